// The part of an execution that runs on the device.
#include "emulator/execute.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "emulator/copy.hpp"
#include "emulator/exception.hpp"
#include "emulator/faults.hpp"
#include "emulator/report.hpp"

namespace ais::emulator {
namespace {

std::shared_ptr<TensorDesc> exception_desc(int dtype, int format, const Shape& shape, const Range& memory) {
  auto desc = std::make_shared<TensorDesc>();
  desc->dtype = dtype;
  desc->format = format;
  desc->dims = shape;
  if (memory.owner != nullptr) desc->address = memory.owner->address + (memory.bytes - memory.owner->storage.get());
  return desc;
}

// Marks a model's work memory as in use. Models may share such memory if they never run at the same time.
class WorkMemory {
 public:
  explicit WorkMemory(const Model& model) : model_(model) {
    std::uint32_t other = 0;
    if (model.work == nullptr || model.work->worker.compare_exchange_strong(other, model.id)) return;
    violation("model#" + std::to_string(model.id) + " runs in the work memory that model#" + std::to_string(other) +
              " runs in at the same time");
  }
  ~WorkMemory() {
    std::uint32_t own = model_.id;
    if (model_.work != nullptr) model_.work->worker.compare_exchange_strong(own, 0);
  }
  WorkMemory(const WorkMemory&) = delete;
  WorkMemory& operator=(const WorkMemory&) = delete;

 private:
  const Model& model_;
};

}  // namespace

TaskResult Execution::fail_on_device(aclError code, const std::string& text) const {
  if (is_device_exception(code)) {
    machine().device_exception(context_.get(), code);
    Exception exception;
    exception.device = static_cast<std::uint32_t>(model_->device);
    exception.code = static_cast<std::uint32_t>(code);
    exception.thread = static_cast<std::uint32_t>(syscall(SYS_gettid));
    exception.op_name = model_->spec->name;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const InputSpec& input = model_->spec->inputs[i];
      exception.inputs.push_back(exception_desc(input.dtype, input.format, inputs_[i].shape, inputs_[i].memory));
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const OutputSpec& output = model_->spec->outputs[i];
      exception.outputs.push_back(exception_desc(output.dtype, output.format, outputs_[i].shape, outputs_[i].memory));
    }
    raise_exception(std::move(exception));
  }
  return {code, text, monotonic_ns()};
}

// Checks the state that may have changed since the submission.
aclError Execution::check_before_run() const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::string freed = freed_under_task(inputs_[i].memory);
    if (!freed.empty()) return fail(ACL_ERROR_RT_DEVICE_MEM_ERROR, freed);
    if (model_->spec->inputs[i].role != InputRole::kGearIndex) continue;
    const Shape& values = model_->spec->gear_values[gear_];
    for (std::size_t v = 0; v < values.size(); ++v) {
      std::uint64_t value = 0;
      const std::size_t width = inputs_[i].given >= 8 * values.size() ? 8 : 4;
      std::memcpy(&value, inputs_[i].memory.bytes + width * v, width);
      if (value == static_cast<std::uint64_t>(values[v])) continue;
      return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID,
                  "the gear index buffer does not hold what the Set call wrote; it was overwritten or exchanged");
    }
  }
  for (const ExecutionOutput& output : outputs_) {
    const std::string freed = freed_under_task(output.memory);
    if (!freed.empty()) return fail(ACL_ERROR_RT_DEVICE_MEM_ERROR, freed);
  }
  for (const auto& block : model_->borrowed) {
    if (block->freed) return fail(ACL_ERROR_RT_DEVICE_MEM_ERROR, "the model's work or weight memory was freed");
  }
  return ACL_SUCCESS;
}

Status Execution::prepare_inputs(std::vector<TensorView>* views) {
  const ModelSpec& spec = *model_->spec;
  for (std::size_t i = 0; i < spec.data_inputs(); ++i) {
    const InputSpec& input = spec.inputs[i];
    const ExecutionInput& plan = inputs_[i];
    TensorView view;
    view.dtype = static_cast<DType>(input.graph_dtype);
    view.shape = plan.shape;
    view.bytes = shape_bytes(input.graph_dtype, plan.shape);
    view.data = plan.memory.bytes;
    if (input.aipp >= 0) {
      const AippSpec& aipp = spec.aipp[static_cast<std::size_t>(input.aipp)];
      AippParameters parameters = aipp.fixed;
      for (std::size_t p = 0; aipp.dynamic && p < spec.inputs.size(); ++p) {
        if (spec.inputs[p].role != InputRole::kAippParameters || spec.inputs[p].aipp != input.aipp) continue;
        AIS_ASSIGN(parameters, load_parameters(inputs_[p].memory.bytes, inputs_[p].given));
      }
      if (parameters.width == 0) parameters.width = static_cast<int>(plan.shape[3]);
      if (parameters.height == 0) parameters.height = static_cast<int>(plan.shape[2]);
      AIS_TRY(check_parameters(parameters, plan.shape[0], plan.shape[3], plan.shape[2]));
      const std::size_t picture =
          picture_bytes(parameters.format, parameters.width, parameters.height) * static_cast<std::size_t>(plan.shape[0]);
      if (picture > plan.given || picture > plan.memory.available) {
        return Status(Code::kFeedMismatch, "the pictures of '" + input.name + "' need " + std::to_string(picture) +
                                               " bytes, there are " + std::to_string(plan.given));
      }
      converted_.emplace_back(view.bytes);
      AIS_TRY(run_aipp(parameters, reinterpret_cast<const std::uint8_t*>(plan.memory.bytes), input.graph_dtype, plan.shape,
                       converted_.back().data()));
      view.data = converted_.back().data();
    } else if (plan.given < view.bytes && !spec.has_gears()) {
      converted_.emplace_back(view.bytes, std::byte{0xCD});  // the bytes after the buffer are undefined
      std::memcpy(converted_.back().data(), plan.memory.bytes, plan.given);
      view.data = converted_.back().data();
    }
    views->push_back(std::move(view));
  }
  return Status();
}

aclError Execution::deliver_one(std::size_t index, const device::Output& result) {
  const OutputSpec& spec = model_->spec->outputs[index];
  ExecutionOutput& plan = outputs_[index];
  if (result.owner != nullptr) {  // the runtime determined the shape and allocated memory
    if (plan.allocate) {
      const std::size_t size = result.bytes == 0 ? 1 : result.bytes;
      if (const aclError code =
              memory().allocate_device(model_->device, MemoryKind::kDevice, size, (size + 63) / 32 * 32, &plan.buffer->data))
        return code;
      plan.buffer->size = size;
      if (const aclError code = memory().resolve(plan.buffer->data, size, "the output", &plan.memory)) return code;
    } else if (result.bytes > plan.given || result.bytes > plan.memory.available) {
      return fail(ACL_ERROR_GE_PARAM_INVALID, "output " + std::to_string(index) + " ('" + spec.name + "') needs " +
                                                  std::to_string(result.bytes) + " bytes, its buffer has " +
                                                  std::to_string(plan.given));
    }
    if (result.bytes != 0) std::memcpy(plan.memory.bytes, result.data, result.bytes);
  }
  if (model_->spec->gears != GearKind::kOpenShape) return ACL_SUCCESS;
  auto desc = std::make_shared<TensorDesc>();
  desc->dtype = spec.dtype;
  desc->format = spec.format;
  desc->dims = result.shape;
  replace_desc(output_set_.get(), index, std::move(desc));
  return ACL_SUCCESS;
}

aclError Execution::deliver(const std::vector<device::Output>& results) {
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (const aclError code = deliver_one(i, results[i])) return code;
  }
  return ACL_SUCCESS;
}

TaskResult Execution::compute(std::int64_t ready_ns) {
  std::vector<TensorView> views;
  std::vector<device::Output> results(outputs_.size());
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const ExecutionOutput& plan = outputs_[i];
    if (plan.bytes == 0 || plan.bytes > plan.given) continue;
    results[i].data = plan.memory.bytes;
    results[i].capacity = plan.bytes;
    results[i].shape = plan.shape;
  }
  Device& device = *machine().device(model_->device);
  Status status;
  aclError code = ACL_ERROR_GE_PARAM_INVALID;  // if preparing fails
  const std::int64_t end = device.compute.run(ready_ns, device.draw_exec_ns(), [&] {
    status = prepare_inputs(&views);
    if (!status.ok()) return;
    code = ACL_ERROR_GE_FAILURE;
    status = model_->graph->execute(views, &results);
  });
  if (!status.ok()) return {code, status.message(), end};
  if (const aclError undelivered = deliver(results)) return task_failure(undelivered);
  return {ACL_SUCCESS, "", end};
}

TaskResult Execution::run(std::int64_t ready_ns) {
  // It was submitted before an exception on another stream.
  if (const aclError code = usable({context_, model_->device})) return task_failure(code);
  const WorkMemory work(*model_);  // before the faults: a delay counts as work
  if (const aclError code = fault_at("device.execute", model_->device)) {
    const TaskResult failure = task_failure(code);
    return fail_on_device(code, failure.text);
  }
  if (device_fault_ != ACL_SUCCESS) return fail_on_device(device_fault_, device_fault_text_);
  if (const aclError code = check_before_run()) {
    const TaskResult failure = task_failure(code);
    return fail_on_device(code, failure.text);
  }
  TaskResult result = compute(ready_ns);
  if (result.code == ACL_SUCCESS) {
    if (const aclError code = check_before_run()) {  // freed while it ran
      const TaskResult failure = task_failure(code);
      return fail_on_device(code, failure.text);
    }
  }
  return result;
}

}  // namespace ais::emulator
