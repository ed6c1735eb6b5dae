// Loading, running, cancelling.
#include "device/ort/ort_model.hpp"

#include <algorithm>
#include <utility>

#include "base/process.hpp"
#include "device/ort/ort_describe.hpp"
#include "device/ort/ort_options.hpp"

namespace ais::ort {
namespace {

char g_no_bytes[64];  // stands for the memory of a tensor without elements: the runtime refuses a null pointer

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

}  // namespace

// A bound run: the same state for every run.
class OrtBinding final : public device::Binding {
 public:
  OrtBinding(std::shared_ptr<OrtModel> model, std::unique_ptr<RunState> state, std::vector<device::Output> outputs)
      : model_(std::move(model)), state_(std::move(state)), outputs_(std::move(outputs)) {}
  ~OrtBinding() override {
    outputs_.clear();
    if (!model_->inherited())
      model_->give_back(std::move(state_));
    else
      state_.release();  // the runtime's objects in it cannot be released here
  }

  Status run() override { return model_->inherited() ? forked() : model_->run(state_.get(), &outputs_); }
  const std::vector<device::Output>& outputs() const override { return outputs_; }

 private:
  std::shared_ptr<OrtModel> model_;
  std::unique_ptr<RunState> state_;
  std::vector<device::Output> outputs_;
};

Result<std::shared_ptr<device::Model>> OrtModel::load(const Api& api, std::shared_ptr<device::Device> device,
                                                      const device::ModelSource& source, const device::Options& options) {
  AIS_ASSIGN(OrtSessionOptions * session_options, make_session_options(api, options));
  OrtSession* session = nullptr;
  OrtStatus* created = source.bytes == nullptr
                           ? api.CreateSession(api.env, source.path.c_str(), session_options, &session)
                           : api.CreateSessionFromArray(api.env, source.bytes, source.size, session_options, &session);
  api.ReleaseSessionOptions(session_options);
  if (Status status = api.check(created, Code::kModelLoad); !status.ok()) {
    return Status(status.code(), "cannot load the model '" + source.name() + "': " + status.message() + advice(status),
                  status.vendor_code());
  }
  Result<device::ModelInfo> info = describe(api, session, source);
  if (!info.ok()) {
    api.ReleaseSession(session);
    return info.take_status().with_context("cannot load the model '" + source.name() + "'");
  }
  return std::shared_ptr<device::Model>(new OrtModel(api, std::move(device), session, info.take()));
}

OrtModel::OrtModel(const Api& api, std::shared_ptr<device::Device> device, OrtSession* session, device::ModelInfo info)
    : api_(api), device_(std::move(device)), session_(session), info_(std::move(info)), generation_(fork_generation()) {
  for (const auto& desc : info_.inputs) input_names_.push_back(desc.name.c_str());
  for (const auto& desc : info_.outputs) output_names_.push_back(desc.name.c_str());
}

OrtModel::~OrtModel() {
  if (inherited()) {
    for (auto& state : free_) state.release();
    return;
  }
  for (auto& state : free_) api_.ReleaseRunOptions(state->options);
  api_.ReleaseSession(session_);
}

bool OrtModel::inherited() const { return generation_ != fork_generation(); }

Result<std::unique_ptr<RunState>> OrtModel::take_state() {
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!free_.empty()) {
      std::unique_ptr<RunState> state = std::move(free_.back());
      free_.pop_back();
      return state;
    }
  }
  auto state = std::make_unique<RunState>();
  AIS_TRY(api_.check(api_.CreateRunOptions(&state->options), Code::kSystem));
  return state;
}

void OrtModel::give_back(std::unique_ptr<RunState> state) {
  release_values(&state->inputs);
  release_values(&state->bound);
  const std::lock_guard<std::mutex> guard(lock_);
  free_.push_back(std::move(state));
}

void OrtModel::release_values(std::vector<OrtValue*>* values) {
  for (OrtValue* value : *values) {
    if (value != nullptr) api_.ReleaseValue(value);
  }
  values->clear();
}

Result<OrtValue*> OrtModel::borrow(void* data, std::size_t bytes, DType dtype, const Shape& shape) const {
  OrtValue* value = nullptr;
  AIS_TRY(api_.check(api_.CreateTensorWithDataAsOrtValue(api_.cpu_memory, data == nullptr || bytes == 0 ? g_no_bytes : data,
                                                         bytes, shape.data(), shape.size(), element_type_of(dtype), &value),
                     Code::kFeedMismatch));
  return value;
}

Status OrtModel::wrap_inputs(const std::vector<TensorView>& inputs, RunState* state) {
  release_values(&state->inputs);
  for (const TensorView& view : inputs) {
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
    if (output.data != nullptr && !shapes_vary_) {
      AIS_ASSIGN(value, borrow(output.data, output.capacity, info_.outputs[i].dtype, output.shape));
    }
    state->bound.push_back(value);
  }
  return Status();
}

Status OrtModel::run_once(RunState* state) {
  state->outputs = state->bound;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    running_.push_back(state);
  }
  OrtStatus* result = api_.Run(session_, state->options, input_names_.data(), state->inputs.data(), state->inputs.size(),
                               output_names_.data(), output_names_.size(), state->outputs.data());
  bool cancelled = false;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    running_.erase(std::find(running_.begin(), running_.end(), state));
    cancelled = std::exchange(state->cancelled, false);
  }
  if (cancelled) AIS_TRY(api_.check(api_.RunOptionsUnsetTerminate(state->options), Code::kSystem));
  return api_.check(result, Code::kExecution);
}

Status OrtModel::run(RunState* state, std::vector<device::Output>* outputs) {
  Status status = run_once(state);
  const bool any_bound =
      std::any_of(state->bound.begin(), state->bound.end(), [](OrtValue* value) { return value != nullptr; });
  if (!status.ok() && status.code() != Code::kCancelled && any_bound) {
    // The result may have another shape than the model declares, which every version of the library reports in other words. Let
    // the library allocate; a run has no side effects. If that is right once, it is from now on.
    release_values(&state->bound);
    state->bound.assign(output_names_.size(), nullptr);
    status = run_once(state);
    if (status.ok()) shapes_vary_ = true;
  }
  if (!status.ok()) {
    for (std::size_t i = 0; i < state->outputs.size(); ++i) {
      if (state->outputs[i] != nullptr && state->outputs[i] != state->bound[i]) api_.ReleaseValue(state->outputs[i]);
    }
    return status;
  }
  return collect(state, outputs);
}

Status OrtModel::collect(RunState* state, std::vector<device::Output>* outputs) {
  // First give every value the runtime made an owner, so that an error below leaks nothing.
  auto self = shared_from_this();
  for (std::size_t i = 0; i < state->outputs.size(); ++i) {
    OrtValue* value = state->outputs[i];
    device::Output& output = (*outputs)[i];
    if (value == state->bound[i]) {
      output.bytes = output.capacity;
    } else {
      output = device::Output();
      output.owner = std::shared_ptr<void>(value, [self](void* held) {
        if (!self->inherited()) self->api_.ReleaseValue(static_cast<OrtValue*>(held));
      });
    }
  }
  for (std::size_t i = 0; i < state->outputs.size(); ++i) {
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
      return Status(Code::kExecution, "output '" + info_.outputs[i].name + "' is too large");
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
  AIS_ASSIGN(std::unique_ptr<RunState> state, take_state());
  Status status = wrap_inputs(inputs, state.get());
  if (status.ok()) status = wrap_outputs(*outputs, state.get());
  if (status.ok()) status = run(state.get(), outputs);
  give_back(std::move(state));
  return status;
}

Result<std::unique_ptr<device::Binding>> OrtModel::bind(const std::vector<TensorView>& inputs,
                                                        std::vector<device::Output> outputs) {
  if (inherited()) return forked();
  AIS_ASSIGN(std::unique_ptr<RunState> state, take_state());
  Status status = wrap_inputs(inputs, state.get());
  if (status.ok()) status = wrap_outputs(outputs, state.get());
  if (!status.ok()) {
    give_back(std::move(state));
    return status;
  }
  return std::unique_ptr<device::Binding>(new OrtBinding(shared_from_this(), std::move(state), std::move(outputs)));
}

std::string OrtModel::cancel() {
  const std::lock_guard<std::mutex> guard(lock_);
  for (RunState* state : running_) {
    // It only sets a flag; a failure would mean that the flag cannot be set, and then the run goes on, as it may.
    state->cancelled = api_.check(api_.RunOptionsSetTerminate(state->options), Code::kSystem).ok();
  }
  return "";
}

}  // namespace ais::ort
