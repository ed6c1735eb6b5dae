// The other objects of a program: buffers, datasets, descriptions, models, settings.
//
// As in the real library, buffers, datasets and descriptions have no locks: one thread at a time.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "device/device.hpp"
#include "emulator/acl_types.hpp"
#include "emulator/aipp.hpp"
#include "emulator/container.hpp"
#include "emulator/handles.hpp"
#include "emulator/machine.hpp"

namespace ais::emulator {

struct DataBuffer {
  void* data = nullptr;
  std::size_t size = 0;
  std::atomic<int> in_flight{0};  // asynchronous executions that use it
};

struct TensorDesc {
  int dtype = ACL_DT_UNDEFINED;
  int format = ACL_FORMAT_UNDEFINED;
  Shape dims;
  std::vector<std::array<std::int64_t, 2>> ranges;
  std::string name;
  void* address = nullptr;
  std::vector<const void*> array;  // of aclmdlCreateAndGetOpDesc: all handles, this one first
  bool in_dataset = false;         // owned by a dataset: the program may read it, and must not destroy it
};

struct Dataset {
  std::vector<aclDataBuffer*> buffers;
  std::vector<aclTensorDesc*> descs;  // one for each buffer, null if none was set; owned
  int gear = -1;                      // chosen by the last Set call
  std::vector<bool> aipp_set;         // per input
  std::atomic<int> in_flight{0};
};

struct Model {
  std::uint32_t id = 0;
  std::shared_ptr<const ModelSpec> spec;
  std::weak_ptr<Context> context;
  int device = 0;
  std::shared_ptr<device::Model> graph;
  std::size_t charged = 0;                                   // its own device memory
  std::vector<std::shared_ptr<struct Allocation>> borrowed;  // the program's memory for work and weights
  std::shared_ptr<struct Allocation> work;                   // the work memory among these

  std::mutex mutex;
  int gear = -1;  // chosen by the last Set call, for any dataset
  int in_flight = 0;
  const void* in_flight_on = nullptr;  // the stream, or an address that identifies the thread
};

struct ModelDesc {
  std::shared_ptr<const ModelSpec> spec;  // null until GetDesc
  std::uint32_t model_id = 0;             // 0: described from a file
};

struct LoadConfig {
  std::size_t load_type = 0;
  std::string path;
  const void* model = nullptr;
  std::size_t model_size = 0;
  void* weight = nullptr;
  std::size_t weight_size = 0;
  void* work = nullptr;
  std::size_t work_size = 0;
  std::string weight_path;                                        // a folder
  std::map<std::string, std::pair<void*, std::size_t>> external;  // memory that the program filled with a file's weights
};

struct ExecConfig {
  int stream_timeout_ms = -1;
  int event_timeout_ms = -1;
};

struct ProfConfig {
  std::vector<std::uint32_t> devices;
  std::uint64_t data_types = 0;
  bool running = false;
};

// The tables of all objects. They are one object, so that all live objects can be listed.
struct Objects {
  HandleTable<DataBuffer, Kind::kBuffer> buffers;
  HandleTable<Dataset, Kind::kDataset> datasets;
  HandleTable<ModelDesc, Kind::kModelDesc> model_descs;
  HandleTable<TensorDesc, Kind::kTensorDesc> tensor_descs;
  HandleTable<AippParameters, Kind::kAipp> aipp;
  HandleTable<LoadConfig, Kind::kLoadConfig> load_configs;
  HandleTable<ExecConfig, Kind::kExecConfig> exec_configs;
  HandleTable<ProfConfig, Kind::kProfConfig> prof_configs;
  HandleTable<std::string, Kind::kProfStamp> prof_stamps;

  // Models have numbers from 1, which are never reused.
  std::mutex models_mutex;
  std::map<std::uint32_t, std::shared_ptr<Model>> models;
  std::uint32_t last_model_id = 0;

  std::shared_ptr<Model> model(std::uint32_t id);
};

Objects& objects();

// Destroys the streams, events and models of one context, and returns their names.
std::vector<std::string> release_objects_of(const std::shared_ptr<Context>& context);
// The same for all objects without a context.
std::vector<std::string> release_objects();
// Returns the names of all live objects except memory and contexts.
std::vector<std::string> living_objects();

// Returns the live desc, or nullptr with an error text.
std::shared_ptr<TensorDesc> find_desc(const aclTensorDesc* handle);

// Returns the spec of a live model desc, or nullptr with an error text.
std::shared_ptr<const ModelSpec> spec_of(const aclmdlDesc* handle);

// Replaces the dataset's own desc (null: by none). Handles of the former desc are invalid afterwards.
void replace_desc(Dataset* dataset, std::size_t index, std::shared_ptr<TensorDesc> desc);

// Reads a model's description. Returns 100003 for a missing file, 145006 or 507008 if it is not a model for the emulator.
aclError read_spec(const void* data, std::size_t size, const std::string& name, std::shared_ptr<const ModelSpec>* out);
aclError read_spec_file(const char* path, std::shared_ptr<const ModelSpec>* out);

// Removes a model and frees its memory.
void unload_model(const std::shared_ptr<Model>& model);

}  // namespace ais::emulator
