// The checks before an execution.
#include "emulator/execute.hpp"
#include "emulator/report.hpp"

namespace ais::emulator {
namespace {

constexpr std::size_t kSlack = 64;  // AscendCL accepts a static model's buffer that is this much too small

std::string bytes_text(std::size_t bytes) { return std::to_string(bytes) + " bytes"; }

bool fits_range(const InputSpec& input, const Shape& shape) {
  if (input.shape.size() != shape.size()) return false;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] < 0) return false;
    if (input.shape[axis] >= 0 && input.shape[axis] != shape[axis]) return false;
    if (axis >= input.range.size()) continue;
    if (shape[axis] < input.range[axis][0] || (input.range[axis][1] >= 0 && shape[axis] > input.range[axis][1])) return false;
  }
  return true;
}

aclError find_set(const aclmdlDataset* handle, std::size_t tensors, const char* side, std::shared_ptr<Dataset>* out) {
  *out = objects().datasets.find(handle);
  if (*out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, std::string("the ") + side + " dataset is NULL or was destroyed");
  if ((*out)->buffers.size() == tensors) return ACL_SUCCESS;
  return fail(ACL_ERROR_INVALID_PARAM, std::string("the ") + side + " dataset has " + std::to_string((*out)->buffers.size()) +
                                           " buffers, the model has " + std::to_string(tensors) + " (special inputs count)");
}

}  // namespace

aclError Execution::plan(const Scope& scope, std::uint32_t model_id, const aclmdlDataset* input, aclmdlDataset* output,
                         const Stream* stream, bool synchronous, std::shared_ptr<Execution>* out) {
  const std::shared_ptr<Execution> made(new Execution);
  made->model_ = objects().model(model_id);
  made->context_ = scope.context;
  made->synchronous_ = synchronous;
  if (made->model_ == nullptr)
    return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(model_id) + " (unloaded before?)");
  if (made->model_->context.lock() != scope.context) {
    return fail(ACL_ERROR_RT_MODEL_CONTEXT, "model " + std::to_string(model_id) + " was loaded in another context than " +
                                                handle_name(scope.context->handle));
  }
  const ModelSpec& spec = *made->model_->spec;
  if (const aclError code = find_set(input, spec.inputs.size(), "input", &made->input_set_)) return code;
  if (const aclError code = find_set(output, spec.outputs.size(), "output", &made->output_set_)) return code;
  if (const aclError code = made->claim_model(stream)) return code;
  made->inputs_.resize(spec.inputs.size());
  made->outputs_.resize(spec.outputs.size());
  for (std::size_t i = 0; i < spec.inputs.size(); ++i) {
    if (const aclError code = made->plan_input(scope, i)) return code;
  }
  for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
    if (const aclError code = made->plan_output(scope, i)) return code;
  }
  made->note_overlaps();
  made->count_users(1);
  *out = made;
  return ACL_SUCCESS;
}

Execution::~Execution() {
  if (counted_) count_users(-1);
  if (!claimed_) return;
  const std::lock_guard<std::mutex> lock(model_->mutex);
  --model_->in_flight;
}

// Counts executions in the objects that they use, so that changing or destroying these meanwhile is noticed.
void Execution::count_users(int change) {
  counted_ = true;
  input_set_->in_flight += change;
  output_set_->in_flight += change;
  for (const auto& buffer : used_buffers_) buffer->in_flight += change;
}

// The gear must have been set for this dataset, and be the model's last one. A model can run only once at a time.
aclError Execution::claim_model(const Stream* stream) {
  static thread_local char t_thread;
  const std::lock_guard<std::mutex> lock(model_->mutex);
  const std::string name = "model#" + std::to_string(model_->id);
  if (model_->spec->has_gears()) {
    if (input_set_->gear < 0) {
      return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID,
                  name + " has gears, and none was set for this dataset (aclmdlSetDynamicBatchSize, ...)");
    }
    if (input_set_->gear != model_->gear) {
      return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID,
                  name + " had another gear set since, through another dataset; set it again before executing");
    }
    gear_ = static_cast<std::size_t>(input_set_->gear);
  }
  const void* place = stream != nullptr ? static_cast<const void*>(stream) : &t_thread;
  if (model_->in_flight > 0 && model_->in_flight_on != place) {
    violation(name + " is executed while another execution of it is in flight; load it twice to run it twice at once");
    return fail(ACL_ERROR_GE_FAILURE, name + " is executed while another execution of it is in flight");
  }
  model_->in_flight_on = place;
  ++model_->in_flight;
  claimed_ = true;
  return ACL_SUCCESS;
}

void Execution::look_up(const Scope& scope, const void* address, std::size_t bytes, const std::string& what, Range* out) {
  const auto fault = [&](aclError code, const std::string& text) {
    if (device_fault_ != ACL_SUCCESS) return;
    device_fault_ = code;
    device_fault_text_ = what + " " + text;
  };
  if (memory().resolve(address, 0, what.c_str(), out) != ACL_SUCCESS) {
    const char* text = take_recent_error();
    fault(ACL_ERROR_RT_DEVICE_MEM_ERROR, text == nullptr ? "cannot be used" : text);
  } else if (!out->on_device()) {
    if (!settings().host_is_device) fault(ACL_ERROR_RT_MODEL_EXECUTE, "is host memory; the device can only reach its own");
  } else if (out->device != scope.device_id) {
    fault(ACL_ERROR_RT_DEVICE_MEM_ERROR,
          "is memory of device " + std::to_string(out->device) + ", the model runs on " + std::to_string(scope.device_id));
  } else if (bytes > out->available) {
    fault(ACL_ERROR_RT_DEVICE_MEM_ERROR,
          "needs " + bytes_text(bytes) + ", and its memory ends after " + std::to_string(out->available));
  }
}

aclError Execution::plan_input(const Scope& scope, std::size_t index) {
  const ModelSpec& spec = *model_->spec;
  const InputSpec& input = spec.inputs[index];
  ExecutionInput& plan = inputs_[index];
  const std::string what = "input " + std::to_string(index) + " ('" + input.name + "')";
  const std::shared_ptr<DataBuffer> buffer = objects().buffers.find(input_set_->buffers[index]);
  if (buffer == nullptr) return fail(ACL_ERROR_INVALID_PARAM, what + ": its data buffer was destroyed");
  if (buffer->data == nullptr) return fail(ACL_ERROR_INVALID_PARAM, what + " has no memory");
  used_buffers_.push_back(buffer);
  plan.given = buffer->size;
  plan.bytes = input.bytes;
  const bool picture = input.aipp >= 0 && input.role == InputRole::kData;
  if (input.role == InputRole::kAippParameters && !input_set_->aipp_set[index]) {
    return fail(ACL_ERROR_GE_PARAM_INVALID, what + ": no AIPP settings were given for this dataset (aclmdlSetInputAIPP)");
  }
  if (input.role == InputRole::kData) {
    plan.shape = spec.input_shape(index, gear_);
    if (spec.gears == GearKind::kOpenShape) {
      const std::shared_ptr<TensorDesc> desc = objects().tensor_descs.find(input_set_->descs[index]);
      if (desc == nullptr) return fail(ACL_ERROR_INVALID_PARAM, what + ": no shape was given (aclmdlSetDatasetTensorDesc)");
      if (!fits_range(input, desc->dims)) {
        return fail(ACL_ERROR_INVALID_PARAM, what + ": the shape " + shape_text(desc->dims) +
                                                 " is outside of what was compiled, " + shape_text(input.shape));
      }
      plan.shape = desc->dims;
      plan.bytes = shape_bytes(input.dtype, plan.shape);
      if (buffer->size < plan.bytes)
        return fail(ACL_ERROR_GE_PARAM_INVALID,
                    what + " needs " + bytes_text(plan.bytes) + ", its buffer has " + std::to_string(buffer->size));
    } else if (spec.has_gears() && !picture) {
      plan.bytes = shape_bytes(input.dtype, plan.shape);
    }
  }
  const bool dynamic_picture = picture && spec.aipp[static_cast<std::size_t>(input.aipp)].dynamic;
  if (!spec.has_gears() && !dynamic_picture && buffer->size + kSlack < plan.bytes) {
    return fail(ACL_ERROR_GE_PARAM_INVALID,
                what + " needs " + bytes_text(plan.bytes) + ", its buffer has " + std::to_string(buffer->size));
  }
  if (!dynamic_picture && buffer->size < plan.bytes) {
    violation(what + " needs " + bytes_text(plan.bytes) + ", its buffer says " + std::to_string(buffer->size) +
              "; AscendCL does not check that");
  }
  const std::size_t read = dynamic_picture ? 0 : buffer->size < plan.bytes && !spec.has_gears() ? buffer->size : plan.bytes;
  look_up(scope, buffer->data, read, what, &plan.memory);
  return ACL_SUCCESS;
}

aclError Execution::plan_output(const Scope& scope, std::size_t index) {
  const ModelSpec& spec = *model_->spec;
  const OutputSpec& output = spec.outputs[index];
  ExecutionOutput& plan = outputs_[index];
  const std::string what = "output " + std::to_string(index) + " ('" + output.name + "')";
  plan.buffer = objects().buffers.find(output_set_->buffers[index]);
  if (plan.buffer == nullptr) return fail(ACL_ERROR_INVALID_PARAM, what + ": its data buffer was destroyed");
  used_buffers_.push_back(plan.buffer);
  const Shape& shape = output.shapes[gear_];
  if (spec.gears != GearKind::kOpenShape && !is_dynamic(shape)) {
    plan.shape = shape;
    plan.bytes = shape_bytes(output.dtype, shape);
  }
  plan.given = plan.buffer->size;
  if (plan.buffer->data == nullptr) {
    if (!synchronous_) return fail(ACL_ERROR_INVALID_PARAM, what + " has no memory; only a synchronous execution allocates it");
    plan.allocate = true;
    if (output.bytes == 0) return ACL_SUCCESS;
    // An output of known size is allocated before the run, and stays with the buffer if the run fails.
    if (const aclError code = memory().allocate_device(scope.device_id, MemoryKind::kDevice, output.bytes,
                                                       (output.bytes + 63) / 32 * 32, &plan.buffer->data)) {
      return code;
    }
    plan.buffer->size = plan.given = output.bytes;
    plan.allocate = false;
  }
  if (!spec.has_gears() && plan.bytes > plan.given + kSlack) {
    return fail(ACL_ERROR_GE_PARAM_INVALID,
                what + " needs " + bytes_text(plan.bytes) + ", its buffer has " + std::to_string(plan.given));
  }
  if (plan.bytes > plan.given) {
    violation(what + " needs " + bytes_text(plan.bytes) + ", its buffer says " + std::to_string(plan.given) +
              "; the device writes beyond it");
  }
  look_up(scope, plan.buffer->data, plan.bytes, what, &plan.memory);
  return ACL_SUCCESS;
}

// Reports outputs that overlap inputs, because the device may write an output before it has read all inputs.
void Execution::note_overlaps() const {
  for (std::size_t o = 0; o < outputs_.size(); ++o) {
    const ExecutionOutput& output = outputs_[o];
    const std::byte* begin = output.memory.bytes;
    if (begin == nullptr) continue;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const ExecutionInput& input = inputs_[i];
      if (input.memory.bytes >= begin + output.given || begin >= input.memory.bytes + input.bytes) continue;
      violation("model#" + std::to_string(model_->id) + ": output " + std::to_string(o) + " lies over input " +
                std::to_string(i));
    }
  }
}

}  // namespace ais::emulator
