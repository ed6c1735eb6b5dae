// Loading, running, cancelling.
#include "device/ort/ort_model.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "base/file.hpp"
#include "base/interrupt.hpp"
#include "base/process.hpp"
#include "base/tuning.hpp"
#include "device/ort/ort_describe.hpp"
#include "device/ort/ort_options.hpp"
#include "device/ort/ort_pipeline.hpp"
#include "device/ort/ort_provider.hpp"

namespace ais::ort {
namespace {

constexpr unsigned char kUnwritten = 0xA7;
char g_no_bytes[64];  // the memory of tensors without elements, because the runtime refuses a null pointer

Status forked() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from, and its threads did not come "
                "along; make a new InferSession in this process");
}

std::string advice(const Status& status) {
  const std::string& text = status.message();
  if (text.find("IR version") != std::string::npos || text.find("opset") != std::string::npos) {
    return "; the model is newer than this onnxruntime: upgrade onnxruntime, or export the model for an older version";
  }
  if (status.vendor_code() == kInvalidProtobuf) return "; the file is damaged or incomplete, copy or export it again";
  return "";
}

// If the model is a file, older versions search its weights beside it only, even if the option names another folder.
constexpr std::uint32_t kWeightDirOfFiles = 28;

}  // namespace

// Every run uses the same state.
class OrtBinding final : public device::Binding {
 public:
  OrtBinding(OrtModel::StateInUse state, std::vector<device::Output> outputs)
      : state_(std::move(state)), outputs_(std::move(outputs)) {}

  Status run() override { return state_.model().inherited() ? forked() : state_.model().run(state_.get(), &outputs_); }
  const std::vector<device::Output>& outputs() const override { return outputs_; }

 private:
  OrtModel::StateInUse state_;  // declared first, so destroyed last, because the outputs use its memory
  std::vector<device::Output> outputs_;
};

Result<std::shared_ptr<device::Model>> OrtModel::load(const OrtApi& api, std::shared_ptr<device::Device> device,
                                                      std::shared_ptr<DeviceMemory> memory, const device::ModelSource& source,
                                                      const device::Options& options) {
  const bool beside = source.bytes == nullptr && options.count(kPrepared) == 0 && options.count("weight_dir") != 0;
  if (beside && api.minor < kWeightDirOfFiles) {
    AIS_ASSIGN(const MappedFile file, MappedFile::open(source.path));
    return load(api, std::move(device), std::move(memory), {source.path, file.data(), file.size()}, options);
  }
  AIS_ASSIGN(OrtSessionOptions * session_options, make_session_options(api, options, device->id()));
  OrtSession* session = nullptr;
  const auto prepared = options.find(kPrepared);
  const std::string& path = prepared == options.end() ? source.path : prepared->second;
  OrtStatus* created = source.bytes == nullptr || prepared != options.end()
                           ? api.CreateSession(api.env, path.c_str(), session_options, &session)
                           : api.CreateSessionFromArray(api.env, source.bytes, source.size, session_options, &session);
  api.ReleaseSessionOptions(session_options);
  if (Status status = api.check(created, Code::kModelLoad); !status.ok()) {
    return Status(status.code(), "cannot load the model '" + source.name() + "': " + status.message() + advice(status),
                  status.vendor_code());
  }
  Result<device::ModelInfo> info = describe(api, session, source);
  if (info.ok()) {
    Result<device::Placement> placement = read_placement(api, session, provider_of(options));
    if (placement.ok()) info.value().placement = placement.take();  // an error leaves it unknown
  }
  if (!info.ok()) {
    api.ReleaseSession(session);
    return info.take_status().with_context("cannot load the model '" + source.name() + "'");
  }
  const bool overlaps = has_own_memory(api, options, device->id());
  return std::shared_ptr<device::Model>(
      new OrtModel(api, std::move(device), std::move(memory), session, info.take(), overlaps));
}

OrtModel::OrtModel(const OrtApi& api, std::shared_ptr<device::Device> device, std::shared_ptr<DeviceMemory> memory,
                   OrtSession* session, device::ModelInfo info, bool overlaps)
    : api_(api),
      device_(std::move(device)),
      memory_(std::move(memory)),
      session_(session),
      info_(std::move(info)),
      generation_(fork_generation()),
      overlaps_(overlaps),
      unbound_(info_.outputs.size()) {
  for (const auto& desc : info_.inputs) input_names_.push_back(desc.name.c_str());
  for (const auto& desc : info_.overridable) input_names_.push_back(desc.name.c_str());
  for (const auto& desc : info_.outputs) output_names_.push_back(desc.name.c_str());
  for (std::size_t i = 0; i < info_.outputs.size(); ++i) {
    unbound_[i] = std::any_of(input_names_.begin(), input_names_.end(),
                              [&](const char* input) { return info_.outputs[i].name == input; });
  }
}

OrtModel::~OrtModel() {
  if (inherited()) return;
  for (auto& state : states_) {
    api_.ReleaseRunOptions(state->options);
    if (state->binding != nullptr) api_.ReleaseIoBinding(state->binding);
  }
  api_.ReleaseSession(session_);
}

bool OrtModel::inherited() const { return generation_ != fork_generation(); }

Result<OrtModel::StateInUse> OrtModel::take_state() {
  auto self = shared_from_this();
  {
    const std::lock_guard<std::mutex> guard(lock_);
    for (auto& state : states_) {
      if (!state->taken) {
        state->taken = true;
        return StateInUse(std::move(self), state.get());
      }
    }
  }
  auto state = std::make_unique<RunState>();
  RunState* const made = state.get();
  made->taken = true;
  const std::lock_guard<std::mutex> guard(lock_);
  states_.reserve(states_.size() + 1);
  AIS_TRY(api_.check(api_.CreateRunOptions(&made->options), Code::kSystem));
  states_.push_back(std::move(state));
  return StateInUse(std::move(self), made);
}

void OrtModel::give_back(RunState* state) {
  release_results(state);
  release_values(&state->inputs);
  release_values(&state->bound);
  const std::lock_guard<std::mutex> guard(lock_);
  state->taken = false;
}

// Releases the outputs that the runtime allocated and that were not handed out.
void OrtModel::release_results(RunState* state) {
  for (std::size_t i = 0; i < state->outputs.size(); ++i) {
    OrtValue* const value = state->outputs[i];
    if (value != nullptr && (i >= state->bound.size() || value != state->bound[i])) api_.ReleaseValue(value);
  }
  state->outputs.clear();
}

void OrtModel::release_values(std::vector<OrtValue*>* values) {
  for (OrtValue* value : *values) {
    if (value != nullptr) api_.ReleaseValue(value);
  }
  values->clear();
}

Result<OrtValue*> OrtModel::borrow(void* data, std::size_t bytes, DType dtype, const Shape& shape) const {
  OrtValue* value = nullptr;
  AIS_TRY(api_.check(api_.CreateTensorWithDataAsOrtValue(memory_ == nullptr ? api_.cpu_memory : memory_->info(),
                                                         data == nullptr || bytes == 0 ? g_no_bytes : data, bytes, shape.data(),
                                                         shape.size(), element_type_of(dtype), &value),
                     Code::kFeedMismatch));
  return value;
}

Status OrtModel::wrap_inputs(const std::vector<TensorView>& inputs, RunState* state) {
  release_values(&state->inputs);
  state->names.clear();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const TensorView& view = inputs[i];
    if (view.absent()) continue;
    state->names.push_back(input_names_[i]);
    AIS_ASSIGN(OrtValue * value, borrow(view.data, view.bytes, view.dtype, view.shape));
    state->inputs.push_back(value);
  }
  return Status();
}

Status OrtModel::wrap_outputs(const std::vector<device::Output>& outputs, RunState* state) {
  release_values(&state->bound);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::Output& output = outputs[i];
    OrtValue* value = nullptr;
    if (output.data != nullptr && !shapes_vary_ && !unbound_[i]) {
      AIS_ASSIGN(value, borrow(output.data, output.capacity, info_.outputs[i].dtype, output.shape));
    }
    state->bound.push_back(value);
  }
  return Status();
}

OrtStatus* OrtModel::call(RunState* state) {
  if (memory_ != nullptr) return call_bound(state);
  return api_.Run(session_, state->options, state->names.data(), state->inputs.data(), state->inputs.size(),
                  output_names_.data(), output_names_.size(), state->outputs.data());
}

// Inputs are bound for each run, because binding copies an input that a node on the processor reads.
OrtStatus* OrtModel::call_bound(RunState* state) {
  if (state->binding == nullptr) {
    if (OrtStatus* failed = api_.CreateIoBinding(session_, &state->binding); failed != nullptr) return failed;
  }
  OrtIoBinding* const binding = state->binding;
  OrtStatus* failed = nullptr;
  for (std::size_t i = 0; failed == nullptr && i < state->names.size(); ++i) {
    failed = api_.BindInput(binding, state->names[i], state->inputs[i]);
  }
  for (std::size_t i = 0; failed == nullptr && i < output_names_.size(); ++i) {
    failed = state->bound[i] != nullptr ? api_.BindOutput(binding, output_names_[i], state->bound[i])
                                        : api_.BindOutputToDevice(binding, output_names_[i], memory_->info());
  }
  if (failed == nullptr) failed = api_.SynchronizeBoundInputs(binding);
  if (failed == nullptr) failed = api_.RunWithBinding(session_, state->options, binding);
  if (failed == nullptr) failed = api_.SynchronizeBoundOutputs(binding);
  if (failed == nullptr) failed = take_bound(state);
  api_.ClearBoundInputs(binding);
  api_.ClearBoundOutputs(binding);
  return failed;
}

// Takes the results from the binding. If a bound output is in other memory now, its own memory was not written.
OrtStatus* OrtModel::take_bound(RunState* state) {
  OrtValue** values = nullptr;
  std::size_t count = 0;
  if (OrtStatus* failed = api_.GetBoundOutputValues(state->binding, api_.allocator, &values, &count); failed != nullptr) {
    return failed;
  }
  OrtStatus* failed = nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    void* got = nullptr;
    void* wanted = nullptr;
    if (failed == nullptr) failed = api_.GetTensorMutableData(values[i], &got);
    if (failed == nullptr && state->bound[i] != nullptr) failed = api_.GetTensorMutableData(state->bound[i], &wanted);
    const bool written = state->bound[i] != nullptr && got == wanted;
    if (failed != nullptr || written) {
      api_.ReleaseValue(values[i]);
    } else {
      state->outputs[i] = values[i];
    }
  }
  OrtStatus* const freed = api_.AllocatorFree(api_.allocator, values);
  if (failed == nullptr) return freed;
  static_cast<void>(api_.check(freed, Code::kSystem));
  return failed;
}

// Runs in another thread, while this thread checks for interrupts.
OrtStatus* OrtModel::call_beside(RunState* state) {
  std::mutex lock;
  std::condition_variable ended;
  bool over = false;
  OrtStatus* result = nullptr;
  std::thread runner;
  try {
    runner = std::thread([&] {
      OrtStatus* const got = call(state);
      const std::lock_guard<std::mutex> guard(lock);
      result = got;
      over = true;
      ended.notify_all();
    });
  } catch (const std::system_error&) {  // there is no thread, so the run cannot be interrupted
    return call(state);
  }
  std::unique_lock<std::mutex> held(lock);
  while (!ended.wait_for(held, tuning::kStopLookEvery, [&] { return over; })) {
    held.unlock();
    if (interrupted()) terminate(state);
    held.lock();
  }
  held.unlock();
  runner.join();
  return result;
}

// The call only sets a flag. If it fails, the run continues.
void OrtModel::terminate(RunState* state) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (state->running) state->terminating = api_.check(api_.RunOptionsSetTerminate(state->options), Code::kSystem).ok();
}

Status OrtModel::run_once(RunState* state) {
  release_results(state);
  state->outputs = state->bound;
  for (const bool beside : {false, true}) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      state->running = true;
    }
    OrtStatus* result = nullptr;
    if (beside) {
      result = call_beside(state);
    } else {
      struct Target {
        OrtModel* model;
        RunState* state;
      } target{this, state};
      const StopPoint point(
          [](void* what) {
            auto* const which = static_cast<Target*>(what);
            which->model->terminate(which->state);
          },
          &target);
      result = call(state);
    }
    bool cancelled = false;
    bool terminating = false;
    {
      const std::lock_guard<std::mutex> guard(lock_);
      state->running = false;
      cancelled = std::exchange(state->cancelled, false);
      terminating = std::exchange(state->terminating, false);
    }
    Status status = api_.check(result, Code::kExecution);
    if (terminating) AIS_TRY(api_.check(api_.RunOptionsUnsetTerminate(state->options), Code::kSystem));
    const bool by_signal = status.code() == Code::kCancelled && !cancelled;
    if (!by_signal || beside || interrupted()) return status;
    // A signal ended the run, and no handler raised an exception.
    release_results(state);
    state->outputs = state->bound;
  }
  return Status();
}

// Fills bound outputs with a byte that a model is unlikely to write everywhere. This also makes the pages exist before the run.
Status OrtModel::fill_bound(const RunState& state, const std::vector<device::Output>& outputs) const {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::Output& output = outputs[i];
    if (state.bound[i] == nullptr || output.capacity == 0) continue;
    if (device_->host_visible()) {
      std::memset(output.data, kUnwritten, output.capacity);
      continue;
    }
    const std::vector<unsigned char> pattern(output.capacity, kUnwritten);
    AIS_TRY(device_->copy_to_device(output.data, pattern.data(), pattern.size()));
  }
  return Status();
}

// Returns whether outputs were not written; these are never bound again.
Result<bool> OrtModel::find_unwritten(const RunState& state, const std::vector<device::Output>& outputs) {
  bool any = false;
  std::vector<unsigned char> copy;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (state.bound[i] == nullptr || outputs[i].capacity == 0) continue;
    const auto* bytes = static_cast<const unsigned char*>(outputs[i].data);
    if (!device_->host_visible()) {
      copy.resize(outputs[i].capacity);
      AIS_TRY(device_->copy_to_host(copy.data(), outputs[i].data, copy.size()));
      bytes = copy.data();
    }
    const bool same = bytes[0] == kUnwritten && std::memcmp(bytes, bytes + 1, outputs[i].capacity - 1) == 0;
    if (same) unbound_[i] = any = true;
  }
  return any;
}

Status OrtModel::run(RunState* state, std::vector<device::Output>* outputs) {
  const auto binds = [&] {
    return std::any_of(state->bound.begin(), state->bound.end(), [](OrtValue* value) { return value != nullptr; });
  };
  const bool check = !seen_written_.load(std::memory_order_relaxed) && binds();
  if (check) AIS_TRY(fill_bound(*state, *outputs));
  Status status = run_once(state);
  bool unwritten = false;
  if (status.ok() && check) {
    AIS_ASSIGN(unwritten, find_unwritten(*state, *outputs));
  }
  if (unwritten) {
    release_results(state);
    for (std::size_t i = 0; i < unbound_.size(); ++i) {
      if (unbound_[i] && state->bound[i] != nullptr) api_.ReleaseValue(std::exchange(state->bound[i], nullptr));
    }
    status = run_once(state);
  }
  if (status.ok() && check) seen_written_ = true;
  if (!status.ok() && status.code() != Code::kCancelled && binds()) {
    // The result may have another shape than the model declares. Each version of the library reports this differently, so try
    // again and let the library allocate; a run has no side effects. If this succeeds, later runs do the same.
    release_results(state);
    release_values(&state->bound);
    state->bound.assign(output_names_.size(), nullptr);
    status = run_once(state);
    if (status.ok()) shapes_vary_ = true;
  }
  AIS_TRY(status);
  return collect(state, outputs);
}

Status OrtModel::collect(RunState* state, std::vector<device::Output>* outputs) {
  auto self = shared_from_this();
  for (std::size_t i = 0; i < state->outputs.size(); ++i) {
    device::Output& output = (*outputs)[i];
    if (state->outputs[i] == state->bound[i]) {
      output.bytes = output.capacity;
    } else {
      output = device::Output();
      // shared_ptr calls the deleter even if it cannot allocate, so the value is released in any case.
      OrtValue* const value = std::exchange(state->outputs[i], nullptr);
      output.owner = std::shared_ptr<void>(value, [self](void* held) {
        if (!self->inherited()) self->api_.ReleaseValue(static_cast<OrtValue*>(held));
      });
    }
  }
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    device::Output& output = (*outputs)[i];
    if (output.owner == nullptr) continue;
    auto* value = static_cast<OrtValue*>(output.owner.get());
    OrtTensorTypeAndShapeInfo* info = nullptr;
    AIS_TRY(api_.check(api_.GetTensorTypeAndShape(value, &info), Code::kExecution));
    std::size_t rank = 0;
    Status status = api_.check(api_.GetDimensionsCount(info, &rank), Code::kExecution);
    output.shape.resize(rank);
    if (status.ok()) status = api_.check(api_.GetDimensions(info, output.shape.data(), rank), Code::kExecution);
    api_.ReleaseTensorTypeAndShapeInfo(info);
    AIS_TRY(status);
    AIS_TRY(api_.check(api_.GetTensorMutableData(value, &output.data), Code::kExecution));
    std::size_t elements = 0;
    if (!count_elements(output.shape, &elements))
      return Status(Code::kExecution, "output '" + info_.outputs[i].name + "' has shape " + shape_text(output.shape) +
                                          ", which is too large for memory; use smaller inputs");
    output.bytes = packed_bytes(info_.outputs[i].dtype, elements);
    AIS_TRY(separate(*state, &output));
  }
  return Status();
}

Status OrtModel::separate(const RunState& state, device::Output* output) {
  for (OrtValue* input : state.inputs) {
    void* fed = nullptr;
    AIS_TRY(api_.check(api_.GetTensorMutableData(input, &fed), Code::kExecution));
    if (fed != output->data) continue;
    AIS_ASSIGN(device::Buffer copy, device_->allocate(output->bytes));
    AIS_TRY(device_->copy_on_device(copy.data.get(), output->data, output->bytes));
    output->data = copy.data.get();
    output->owner = std::move(copy.data);
    break;
  }
  return Status();
}

Status OrtModel::execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) {
  if (inherited()) return forked();
  AIS_ASSIGN(const StateInUse state, take_state());
  AIS_TRY(wrap_inputs(inputs, state.get()));
  AIS_TRY(wrap_outputs(*outputs, state.get()));
  return run(state.get(), outputs);
}

Result<std::unique_ptr<device::Binding>> OrtModel::bind(const std::vector<TensorView>& inputs,
                                                        std::vector<device::Output> outputs) {
  if (inherited()) return forked();
  AIS_ASSIGN(StateInUse state, take_state());
  AIS_TRY(wrap_inputs(inputs, state.get()));
  AIS_TRY(wrap_outputs(outputs, state.get()));
  return std::unique_ptr<device::Binding>(new OrtBinding(std::move(state), std::move(outputs)));
}

Result<std::unique_ptr<device::Pipeline>> OrtModel::pipeline(std::size_t depth) {
  if (inherited()) return forked();
  if (!overlaps_) return std::unique_ptr<device::Pipeline>();
  return make_pipeline(shared_from_this(), device_, memory_, depth);
}

std::string OrtModel::cancel() {
  const std::lock_guard<std::mutex> guard(lock_);
  for (auto& state : states_) {
    if (!state->running) continue;
    state->terminating = api_.check(api_.RunOptionsSetTerminate(state->options), Code::kSystem).ok();
    state->cancelled = state->terminating;
  }
  return "";
}

}  // namespace ais::ort
