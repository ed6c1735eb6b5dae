// The interface to a device runtime. device/ort (ONNX Runtime) and device/acl (AscendCL on an NPU) implement it.
//
//   Runtime   a vendor library, opened once per process        Device   one of its devices
//   Model     one model loaded on one device                   Binding  one model's inputs and outputs, fixed, run many times
//
// Ownership: a Model keeps its Device alive, a Binding its Model, a Buffer its Device. Release them in any order, on any
// thread. Threads: every call may come from any thread. Model::execute may run concurrently with itself; a Binding may not.
// Processes: nothing here survives a fork. In a child the calls return ForkedChild, and destructors release nothing, because
// the threads that a release would wait for exist only in the parent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"

namespace ais::device {

// An input or output of a model. A dynamic dimension is -1. `bytes`: the largest size that the model declares; 0: open.
// Without `ranked` even the number of dimensions is open, and `shape` is empty.
struct TensorDesc {
  std::string name;
  DType dtype = DType::kUndefined;
  int format = 2;  // AscendCL's aclFormat: 0 NCHW, 1 NHWC, 2 ND
  Shape shape;
  bool ranked = true;
  std::size_t bytes = 0;
  std::vector<std::string> symbols;  // the model's names of its dimensions, "" for one without a name; empty: no names
  bool optional = false;             // need not be given to a run
  Shape least;                       // minimum and maximum of each dimension (-1: no limit); empty: unknown
  Shape most;

  bool open() const { return !ranked || is_dynamic(shape); }  // the shape is unknown before a run
};

// The kind of dimensions that a model's gears vary. Only shapes of a gear can run.
enum class GearKind { kNone, kBatch, kImageSize, kDims };
struct Gears {
  GearKind kind = GearKind::kNone;
  // One entry for each gear: {n} for kBatch, {height, width} for kImageSize, and for kDims a value for every dynamic dimension
  // of all inputs, in order.
  std::vector<Shape> values;
};

// A model's metadata. `known` is false if the runtime does not report it.
struct Metadata {
  bool known = false;
  std::string producer;
  std::string graph;
  std::string domain;
  std::string description;
  std::int64_t version = 0;
  std::map<std::string, std::string> custom;
};

// The nodes of a model that run on the processor instead of the device, if the runtime reports them.
struct Placement {
  bool known = false;
  std::size_t nodes = 0;                // of the model as it runs
  std::vector<std::string> on_the_cpu;  // "MatMul 'name'" for each node
};

struct ModelInfo {
  Metadata metadata;
  Placement placement;
  std::vector<TensorDesc> inputs;
  std::vector<TensorDesc> outputs;
  std::vector<TensorDesc> overridable;  // constants of the model that a run may override; all optional
  Gears gears;
  std::vector<std::size_t> aipp_inputs;  // pictures that the device preprocesses with the settings of set_aipp

  // The description of a run's input `i`: the model's inputs, followed by the overridden constants.
  const TensorDesc& fed(std::size_t i) const { return i < inputs.size() ? inputs[i] : overridable[i - inputs.size()]; }
};

// Preprocessing of a picture on the device, with AscendCL's terms and order of arguments. Empty list: the device's default.
struct Aipp {
  std::size_t input = 0;      // index in ModelInfo::inputs
  std::int64_t pictures = 1;  // the batch; all of them get the same settings
  int format = 0;             // aclAippInputFormat
  int width = 0;
  int height = 0;
  bool swap_rb_uv = false;
  bool swap_alpha = false;
  std::vector<int> csc;      // switch, 9 of the matrix, 3 output biases, 3 input biases
  std::vector<int> crop;     // switch, x, y, width, height
  std::vector<int> resize;   // switch, width and height before, width and height after
  std::vector<int> padding;  // switch, top, bottom, left, right
  std::vector<int> mean;     // 4 channels
  std::vector<float> min;
  std::vector<float> reciprocal;
};

// Memory of a device, or of the host if the device uses host memory. It is freed with the last copy.
struct Buffer {
  std::shared_ptr<void> data;
  std::size_t bytes = 0;
};

// Bytes of a device's memory.
struct MemoryInfo {
  std::size_t free = 0;
  std::size_t total = 0;
};

// One output of one execution.
//   before: `data` and `capacity` name memory of the device that the caller owns, and `shape` the exact result shape;
//           or `data` is null, and the runtime finds both.
//   after:  `data`, `bytes` and `shape` describe the result. If the runtime allocated it, `owner` keeps it alive.
struct Output {
  void* data = nullptr;
  std::size_t capacity = 0;
  std::size_t bytes = 0;
  Shape shape;
  std::shared_ptr<void> owner;
};

class Binding {
 public:
  virtual ~Binding() = default;
  // Runs once with the bound memory. One thread at a time.
  virtual Status run() = 0;
  // Returns the outputs of the last run. An output that was bound without memory has a new owner after every run.
  virtual const std::vector<Output>& outputs() const = 0;
};

// The source of host memory for the outputs of a pipeline's run. The memory stays valid until the run was waited for.
class Landing {
 public:
  virtual ~Landing() = default;
  // Returns memory for output `index`; called once in a run, when the shape is known. Null: there is none.
  virtual void* room(std::size_t index, const Shape& shape, std::size_t bytes) = 0;
};

// A time that the device did not report.
constexpr std::int64_t kUnknownTime = INT64_MIN;

// Several runs of one model at once: the copies of one run overlap with the execution of another. Results come in the order of
// submission. One thread at a time.
class Pipeline {
 public:
  virtual ~Pipeline() = default;
  // Returns how many runs can be in progress.
  virtual std::size_t depth() const = 0;
  // Starts a run. Fewer than depth() runs may be in progress. `inputs`: host memory with exact shapes. Without a landing the
  // inputs are free when the call returns. With a landing they must stay valid until the run was waited for; if they or the
  // landing's memory are registered (Device::register_host), the device copies them directly.
  virtual Status submit(const std::vector<TensorView>& inputs, Landing* landing) = 0;
  // Waits for the oldest run. Its outputs are in host memory: the landing's, or the pipeline's, which is valid until the next
  // submit. A failure affects only this run. The times are the device's: copying in, executing, copying out. A time that is not
  // available is kUnknownTime, which is not a failure.
  struct DeviceTimes {
    std::int64_t copy_in_ns = 0;
    std::int64_t execute_ns = 0;
    std::int64_t copy_out_ns = 0;
    std::string why_unknown;  // the error of the query for the first unknown time
  };
  virtual Status wait(std::vector<Output>* outputs, DeviceTimes* times) = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;

  // Runs once. `inputs`: those of ModelInfo::fed, in memory of this device, with exact shapes; a view without a type is an
  // optional input that is not given. The shapes select the gear. The caller owns the memory, which must live until the call
  // returns.
  virtual Status execute(const std::vector<TensorView>& inputs, std::vector<Output>* outputs) = 0;

  // Binds inputs and outputs for many runs. The memory must outlive the binding. If an output has another shape than its
  // binding, it is returned in memory of the runtime, as if it had been bound without memory.
  virtual Result<std::unique_ptr<Binding>> bind(const std::vector<TensorView>& inputs, std::vector<Output> outputs) = 0;

  // Makes a pipeline; null if nothing can overlap, so that single runs are as fast.
  virtual Result<std::unique_ptr<Pipeline>> pipeline(std::size_t depth) {
    (void)depth;
    return std::unique_ptr<Pipeline>();
  }

  // Sets the expected bytes of outputs of unknown size, for each output: a hint for later runs, which limits nothing.
  virtual Status expect_outputs(const std::vector<std::size_t>& bytes) {
    (void)bytes;
    return Status();
  }

  // Sets the preprocessing of one of ModelInfo::aipp_inputs, for runs that start later.
  virtual Status set_aipp(const Aipp&) {
    return Status(Code::kUnsupported, "this model has no input with dynamic AIPP (preprocessing on the device)");
  }

  // Stops all executions that are running now; each returns Cancelled, at the latest when it has ended by itself. Later
  // executions are not affected. Returns "", or why the device cannot stop a run, so that the runs end by themselves.
  virtual std::string cancel() = 0;
};

// The source of a model: a file, or bytes that must live until load returns.
struct ModelSource {
  std::string path;
  const void* bytes = nullptr;
  std::size_t size = 0;
  std::string name() const {
    return bytes == nullptr || !path.empty() ? path : "<" + std::to_string(size) + " bytes in memory>";
  }
};

// Options of one runtime, by name; open and load get the same set. For an unknown name InvalidArgument lists the known ones.
using Options = std::map<std::string, std::string>;

class Device {
 public:
  virtual ~Device() = default;
  virtual int id() const = 0;
  virtual std::string runtime() const = 0;  // the name of its runtime
  // Returns ONNX Runtime's name of the provider; "" for a runtime without providers, or the processor.
  virtual std::string provider() const { return ""; }
  // Returns whether execute reads and writes ordinary host memory; then the copy calls are memcpy.
  virtual bool host_visible() const = 0;
  virtual Result<Buffer> allocate(std::size_t bytes) = 0;
  virtual Status copy_to_device(void* device, const void* host, std::size_t bytes) = 0;
  virtual Status copy_to_host(void* host, const void* device, std::size_t bytes) = 0;
  virtual Status copy_on_device(void* to, const void* from, std::size_t bytes) = 0;
  // Returns the device's total and free memory. Unsupported if the runtime does not report it.
  virtual Result<MemoryInfo> memory() { return Status(Code::kUnsupported, "this runtime does not tell of a device's memory"); }
  // Registers host memory with the device, so that copies from and to it are fast. A caller can ignore Unsupported.
  virtual Status register_host(void* host, std::size_t bytes) = 0;
  virtual Status unregister_host(void* host) = 0;
  // Returns how host memory is copied, as text: "registered", or "page-locked" memory of the runtime with the reason. It
  // changes if memory is refused later. "": there are no copies.
  virtual std::string host_memory() { return ""; }
  virtual Result<std::shared_ptr<Model>> load(const ModelSource& source, const Options& options) = 0;
};

// Returns whether both use the same memory.
inline bool same_device(const Device& a, const Device& b) {
  return a.id() == b.id() && a.runtime() == b.runtime() && a.provider() == b.provider();
}

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;
  // Returns the vendor's toolkit with its version, and the chip, for bug reports; "" if unknown.
  virtual std::string toolkit() const { return ""; }
  virtual std::string chip() const { return ""; }
  virtual Result<int> device_count() = 0;
  virtual Result<std::shared_ptr<Device>> open(int device_id, const Options& options) = 0;
  // Returns the file of the vendor's library; "" if unknown.
  virtual std::string library() const { return ""; }
  // For a runtime with providers: the built-in ones, and the names of the devices of the provider in `options`. The second call
  // may load drivers, so it must be made in a helper process.
  virtual Result<std::vector<std::string>> built_in() { return std::vector<std::string>(); }
  virtual Result<std::vector<std::string>> devices_of(const Options&) {
    return Status(Code::kUnsupported, "this runtime has no providers");
  }
  // Releases the process's other resources of the vendor's library. The runtime can be used again afterwards.
  virtual Status finalize() = 0;
};

// Returns "ort" or "acl" by the model's content, not by its file name; `wanted` if it is not empty. ModelLoad if the model
// cannot be read, or its content is unknown.
Result<std::string> runtime_for(const ModelSource& source, const std::string& wanted);

// Returns the runtime with this name; the first call opens it. `libraries`: the paths to try, best first; those of later calls
// are ignored. If no library can be opened, Unavailable lists every path that was tried.
Result<Runtime*> open_runtime(const std::string& name, const std::vector<std::string>& libraries);

}  // namespace ais::device
