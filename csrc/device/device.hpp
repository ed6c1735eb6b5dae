// One interface to a device runtime. device/ort (ONNX Runtime on the CPU) and device/acl (AscendCL on an NPU) implement it.
//
//   Runtime   a vendor library, opened once per process        Device   one device of it
//   Model     one model loaded on one device                   Binding  one model's inputs and outputs, fixed, run many times
//
// Ownership: a Model keeps its Device alive, a Binding its Model, a Buffer its Device; release in any order, from any thread.
// Threads: every call may come from any thread. Model::execute may run concurrently with itself; a Binding may not.
// Processes: nothing here survives a fork. In a child the calls answer ForkedChild, and destructors release nothing, because
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

// An input or output of a model. A dynamic dimension is -1. `bytes` is the largest size the model declares, 0 when open.
// Without `ranked` even the number of dimensions is open, and `shape` is empty.
struct TensorDesc {
  std::string name;
  DType dtype = DType::kUndefined;
  int format = 2;  // AscendCL's aclFormat: 0 NCHW, 1 NHWC, 2 ND
  Shape shape;
  bool ranked = true;
  std::size_t bytes = 0;
  std::vector<std::string> symbols;  // the model's names of its dimensions, "" for one without; empty: it names none
  bool optional = false;             // a run may leave it out
  Shape least;                       // what each dimension is at least, and at most (-1: no limit); empty: not known
  Shape most;

  bool open() const { return !ranked || is_dynamic(shape); }  // the shape is not known before a run
};

// Which dimensions a model was built to vary, and the values it was built for. Shapes outside the list do not run.
enum class GearKind { kNone, kBatch, kImageSize, kDims };
struct Gears {
  GearKind kind = GearKind::kNone;
  // One entry a gear: {n} for kBatch, {height, width} for kImageSize, and for kDims a value for every dynamic
  // dimension of all inputs, in order.
  std::vector<Shape> values;
};

// What a model says about itself. `known` is false if the runtime does not tell.
struct Metadata {
  bool known = false;
  std::string producer;
  std::string graph;
  std::string domain;
  std::string description;
  std::int64_t version = 0;
  std::map<std::string, std::string> custom;
};

// Which nodes of a model the device's own runtime left to the processor, where it tells.
struct Placement {
  bool known = false;
  std::size_t nodes = 0;                // of the model as it runs
  std::vector<std::string> on_the_cpu;  // "MatMul 'name'", one a node
};

struct ModelInfo {
  Metadata metadata;
  Placement placement;
  std::vector<TensorDesc> inputs;
  std::vector<TensorDesc> outputs;
  std::vector<TensorDesc> overridable;  // constants of the model that a run may be given other values for; all optional
  Gears gears;
  std::vector<std::size_t> aipp_inputs;  // pictures that the device preprocesses as set_aipp says

  // What the inputs of a run are for: the model's inputs, and behind them, in runs that override constants, those.
  const TensorDesc& fed(std::size_t i) const { return i < inputs.size() ? inputs[i] : overridable[i - inputs.size()]; }
};

// Preprocessing of a picture on the device, in AscendCL's terms and order of arguments; an empty list is left to the device.
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

// Memory of a device (or of the host, where the device reads that). Freed with the last copy.
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
//   after:  `data`, `bytes` and `shape` describe the result. Where the runtime allocated it, `owner` keeps it alive.
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
  // Runs once over the bound memory. One thread at a time.
  virtual Status run() = 0;
  // What the last run wrote; an output that was bound without memory has a new owner after every run.
  virtual const std::vector<Output>& outputs() const = 0;
};

// Where a run of a pipeline finds host memory for its outputs. What it names stays until the run was waited for.
class Landing {
 public:
  virtual ~Landing() = default;
  // Memory for output `index`; asked once a run, when the shape is known. Null: there is none.
  virtual void* room(std::size_t index, const Shape& shape, std::size_t bytes) = 0;
};

// A time that the device did not tell.
constexpr std::int64_t kUnknownTime = INT64_MIN;

// Runs of one model, several under way at once: the copies of one overlap with the execution of another. Results come in order
// of submission. One thread at a time.
class Pipeline {
 public:
  virtual ~Pipeline() = default;
  // How many runs can be under way.
  virtual std::size_t depth() const = 0;
  // Starts a run; fewer than depth() are under way. `inputs` are host memory with exact shapes. Without a landing they are free
  // when the call returns; with one they stay until the run was waited for, and what is registered (Device::register_host) of
  // them and of the landing's memory is copied without going through memory of the pipeline's.
  virtual Status submit(const std::vector<TensorView>& inputs, Landing* landing) = 0;
  // Waits for the oldest run. Its outputs are host memory, the landing's or the pipeline's; the latter is valid until the next
  // submit. A failure is of that run alone. The times are the device's: copying in, executing, copying out; one that cannot be
  // had is kUnknownTime, and no failure.
  struct Times {
    std::int64_t copy_in_ns = 0;
    std::int64_t execute_ns = 0;
    std::int64_t copy_out_ns = 0;
    std::string why_unknown;  // what asking for the first unknown one was answered
  };
  virtual Status wait(std::vector<Output>* outputs, Times* times) = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;

  // Runs once. `inputs` are those of ModelInfo::fed, over memory of this device, with their exact shapes, and views without a
  // type for what is optional and not given; gear models take their gear from the shapes. The memory is the caller's and only
  // has to live until the call returns.
  virtual Status execute(const std::vector<TensorView>& inputs, std::vector<Output>* outputs) = 0;

  // Fixes inputs and outputs for many runs. The memory must outlive the binding. An output that turns out to have another
  // shape than the one it was bound with is handed out in memory of the runtime, as if it had been bound without any.
  virtual Result<std::unique_ptr<Binding>> bind(const std::vector<TensorView>& inputs, std::vector<Output> outputs) = 0;

  // A pipeline; null where there is nothing to overlap, and the runs are as well made one after the other.
  virtual Result<std::unique_ptr<Pipeline>> pipeline(std::size_t depth) {
    (void)depth;
    return std::unique_ptr<Pipeline>();
  }

  // How many bytes outputs of unknown size may have, one an output: a hint for the next runs, which limits nothing.
  virtual Status expect_outputs(const std::vector<std::size_t>& bytes) {
    (void)bytes;
    return Status();
  }

  // Settings for one of ModelInfo::aipp_inputs, for the runs that start after it.
  virtual Status set_aipp(const Aipp&) {
    return Status(Code::kUnsupported, "this model has no input with dynamic AIPP (preprocessing on the device)");
  }

  // Asks every execution that is running now to stop; each answers Cancelled, at the latest when it has ended by itself. Later
  // executions are not affected. Returns "", or why the device cannot stop a run, so that they do end by themselves.
  virtual std::string cancel() = 0;
};

// Where a model comes from: a file, or bytes that only have to live until load returns.
struct ModelSource {
  std::string path;
  const void* bytes = nullptr;
  std::size_t size = 0;
  std::string name() const {
    return bytes == nullptr || !path.empty() ? path : "<" + std::to_string(size) + " bytes in memory>";
  }
};

// Options of one runtime, by name; open and load get the same set. An unknown name is InvalidArgument and lists the known ones.
using Options = std::map<std::string, std::string>;

class Device {
 public:
  virtual ~Device() = default;
  virtual int id() const = 0;
  virtual std::string runtime() const = 0;  // its runtime's name
  // What of the runtime drives it, where there are several: ONNX Runtime's name of a provider. "": there is one.
  virtual std::string provider() const { return ""; }
  // True: execute reads and writes ordinary host memory, and the copy calls are plain memcpy.
  virtual bool host_visible() const = 0;
  virtual Result<Buffer> allocate(std::size_t bytes) = 0;
  virtual Status copy_to_device(void* device, const void* host, std::size_t bytes) = 0;
  virtual Status copy_to_host(void* host, const void* device, std::size_t bytes) = 0;
  virtual Status copy_on_device(void* to, const void* from, std::size_t bytes) = 0;
  // How much memory the device has, and how much of it nobody uses. Unsupported where the runtime does not tell.
  virtual Result<MemoryInfo> memory() { return Status(Code::kUnsupported, "this runtime does not tell of a device's memory"); }
  // Tells the device about host memory that many copies will use, so that they run at full speed. Unsupported is an answer
  // a caller can ignore.
  virtual Status register_host(void* host, std::size_t bytes) = 0;
  virtual Status unregister_host(void* host) = 0;
  // What the copies of memory that register_host could take go through, in words: "registered", or "page-locked" memory of the
  // runtime's and why. It changes when memory is refused later. "": there are none.
  virtual std::string host_memory() { return ""; }
  virtual Result<std::shared_ptr<Model>> load(const ModelSource& source, const Options& options) = 0;
};

// Whether memory of one is memory of the other.
inline bool same_device(const Device& a, const Device& b) {
  return a.id() == b.id() && a.runtime() == b.runtime() && a.provider() == b.provider();
}

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;
  // What the vendor's library is a part of, with its version, and the chip that it drives: for bug reports. "" where unknown.
  virtual std::string toolkit() const { return ""; }
  virtual std::string chip() const { return ""; }
  virtual Result<int> device_count() = 0;
  virtual Result<std::shared_ptr<Device>> open(int device_id, const Options& options) = 0;
  // The file of the vendor's library. "" where unknown.
  virtual std::string library() const { return ""; }
  // For a runtime with providers: those that are built in, and what the devices of the one are called that `options` names. The
  // latter may load drivers, so it is for a process that was made for it.
  virtual Result<std::vector<std::string>> built_in() { return std::vector<std::string>(); }
  virtual Result<std::vector<std::string>> devices_of(const Options&) {
    return Status(Code::kUnsupported, "this runtime has no providers");
  }
  // Releases what the process holds of the vendor's library beyond devices and models. It can be used again after.
  virtual Status finalize() = 0;
};

// "ort" or "acl", by the content of the model, not by its file name; `wanted` where that is not empty. ModelLoad where the
// model cannot be read, or its content says nothing.
Result<std::string> runtime_for(const ModelSource& source, const std::string& wanted);

// The runtime of that name, opened at the first call. `libraries` are the paths to try, best first; only the first successful
// call's are used. A library that cannot be opened is Unavailable and lists every path tried.
Result<Runtime*> open_runtime(const std::string& name, const std::vector<std::string>& libraries);

}  // namespace ais::device
