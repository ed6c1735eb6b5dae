// A model in a context: AscendCL's model id, and the objects for its runs.
//
// AscendCL can run a model id only once at a time, and keeps the last gear in the model and in the dataset. So one lock covers
// "point the buffers, select the gear, execute", and concurrent callers take turns. A pipeline submits its runs under the same
// lock, to one stream, with its own datasets.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_dataset.hpp"
#include "device/acl/acl_describe.hpp"
#include "device/acl/acl_load.hpp"
#include "device/acl/acl_pace.hpp"
#include "device/device.hpp"

namespace ais::acl {

// The objects of a run, kept for the next one: datasets, and memory for the special inputs.
struct DatasetPair {
  explicit DatasetPair(const AclApi& api) : in(api), out(api) {}
  Dataset in;
  Dataset out;
  std::vector<device::Buffer> special;  // keeps the gear index and AIPP parameters
  int gear = -1;                        // selected for `in`
  std::vector<Shape> shapes;            // set for `in`, for models with open shapes
  std::vector<std::uint64_t> aipp;      // version of the settings in `in`, for each AIPP input
};

class LoadedModel final : public Resident {
 public:
  // Call these functions during a use of the context, except cancel() and those that only read.
  static Result<std::shared_ptr<LoadedModel>> load(AclContext* context, const device::ModelSource& source,
                                                   const LoadOptions& options, DeviceShare* share);
  explicit LoadedModel(AclContext* context) : context_(*context), api_(context->api()) {}
  ~LoadedModel() override = default;
  void release() override;

  const Layout& layout() const { return layout_; }
  // Returns whether the outputs' shapes follow from the inputs' shapes, and the library allocates no output.
  bool predictable() const;

  // Sets guesses of the outputs' sizes in bytes, for models with open shapes. There may be fewer than outputs.
  void expect_outputs(const std::vector<std::size_t>& bytes);

  Status run(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs);
  Status set_aipp(const device::Aipp& settings);

  // For a pipeline: the outputs' shapes of the prepared run, the lock for prepare, sizes, submit and describe, and the stream.
  Result<std::unique_ptr<DatasetPair>> make_datasets();
  std::mutex& lock() { return lock_; }
  // The memory for an output, and whether it may be too small. 0: unknown, because there was no run.
  struct Room {
    std::size_t bytes = 0;
    bool guessed = false;
  };
  Room room_for(std::size_t output) const;
  // Returns whether a run with guessed memory may have failed because the memory was too small.
  static bool worth_another(const Status& run);
  // After such a failure: the library allocates the outputs of the next run.
  void forget_sizes();
  Status prepare(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  const std::vector<Shape>& output_shapes(const DatasetPair& datasets) const {
    return layout_.outputs[datasets.gear < 0 ? 0 : datasets.gear];
  }
  Status execute_async(DatasetPair* datasets, std::uint64_t cancels, aclrtStream* stream);
  void async_done() { --in_flight_; }
  int in_flight() const { return in_flight_; }
  // Sets shapes and bytes of the outputs of the datasets' last run, which has ended.
  Status describe_results(const DatasetPair& datasets, std::vector<device::Output>* outputs);

  // Returns the number of calls of cancel(). A run must stop if this number changes.
  std::uint64_t cancels() const { return cancels_.load(); }
  // Model::cancel of csrc/device/device.hpp.
  std::string cancel();
  Status cancelled_since(std::uint64_t cancels) const;
  // Returns the error of a stopped run.
  Status stopped() const;

 private:
  struct AippSettings {
    aclmdlAIPP* handle = nullptr;
    device::Aipp given;  // the settings of which it was made
    std::uint64_t version = 0;
  };

  Status load_id(const device::ModelSource& source, const LoadOptions& options, DeviceShare* share);
  Status learn_outputs();
  Status choose_gear(DatasetPair* datasets, int gear);
  Status apply_gear(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  Status apply_shapes(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  Status apply_aipp(const std::vector<TensorView>& inputs, DatasetPair* datasets);

  // Allocates memory for every output of the next run. `guessed` becomes true if some of it may be too small.
  Status place(std::vector<device::Output>* outputs, bool* guessed);
  Status execute(std::vector<device::Output>* outputs, std::uint64_t cancels);
  Status naming_shapes(Status status, const DatasetPair& datasets) const;
  Status call_execute(const std::vector<device::Output>& outputs, std::uint64_t cancels);
  Status wait_for_stream(std::uint64_t cancels);
  // Takes the memory that the library allocated, also after a failed run.
  Status claim(std::vector<device::Output>* outputs);
  // Waits for the turn to use the workspace, and holds it until this run was started. No lock: the model has its own workspace.
  Result<std::unique_lock<std::mutex>> take_turn(std::uint64_t cancels);
  void leave_workspace();
  Result<Shape> result_shape(const DatasetPair& datasets, std::size_t index, std::size_t bytes);

  AclContext& context_;
  const AclApi& api_;
  Layout layout_;
  std::uint32_t id_ = 0;
  bool loaded_ = false;
  std::vector<device::Buffer> weights_;   // used by the loaded model, shared with other sessions
  std::shared_ptr<Workspace> workspace_;  // shared with other models; null: it has its own
  aclmdlDesc* desc_ = nullptr;
  std::atomic<std::uint64_t> cancels_{0};
  std::atomic<int> in_flight_{0};  // runs of the pipeline on stream_
  Pace pace_;
  Pace turn_pace_;  // of waits for the workspace

  std::mutex lock_;  // guards the members below
  std::unique_ptr<DatasetPair> datasets_;
  aclrtStream stream_ = nullptr;
  int gear_ = -1;                     // the model's last gear
  std::vector<std::size_t> learned_;  // bytes of outputs of unknown size in earlier runs
  std::vector<std::size_t> guesses_;  // guessed bytes; 0 after a guess was too small
  std::vector<AippSettings> aipp_;    // one for each AIPP input
};

// Returns the settings as AscendCL's object, which the caller must destroy.
Result<aclmdlAIPP*> make_aipp(const AclApi& api, const device::Aipp& settings);

// Checks that `bytes` contain the pictures that the device reads with these settings, because AscendCL does not check it.
Status check_pictures(const std::string& input, const device::Aipp& settings, std::int64_t pictures, std::size_t bytes);

}  // namespace ais::acl
