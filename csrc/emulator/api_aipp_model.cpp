// AscendCL: queries which inputs have AIPP, and sets dynamic AIPP.
#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"

namespace ais::emulator {
namespace {

aclError input_type(std::uint32_t id, std::size_t index, aclmdlInputAippType* type, std::size_t* attached) {
  const std::shared_ptr<Model> model = objects().model(id);
  if (model == nullptr) return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(id));
  const InputSpec* input = index < model->spec->inputs.size() ? &model->spec->inputs[index] : nullptr;
  if (input == nullptr || type == nullptr || attached == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "no input of that index, or the place to fill is NULL");
  *attached = kInvalidNodeIndex;
  if (input->role == InputRole::kAippParameters) {
    *type = ACL_DYNAMIC_AIPP_NODE;
  } else if (input->aipp < 0) {
    *type = ACL_DATA_WITHOUT_AIPP;
  } else if (!model->spec->aipp[static_cast<std::size_t>(input->aipp)].dynamic) {
    *type = ACL_DATA_WITH_STATIC_AIPP;
  } else {
    *type = ACL_DATA_WITH_DYNAMIC_AIPP;
    for (std::size_t i = 0; i < model->spec->inputs.size(); ++i) {
      const InputSpec& other = model->spec->inputs[i];
      if (other.role == InputRole::kAippParameters && other.aipp == input->aipp) *attached = i;
    }
  }
  return ACL_SUCCESS;
}

aclError static_aipp_missing(std::uint32_t id, std::size_t index) {
  aclmdlInputAippType type = ACL_DATA_WITHOUT_AIPP;
  std::size_t attached = 0;
  if (const aclError code = input_type(id, index, &type, &attached)) return code;
  if (type == ACL_DATA_WITHOUT_AIPP) return fail(ACL_ERROR_GE_AIPP_NOT_EXIST, "the input has no AIPP");
  if (type != ACL_DATA_WITH_STATIC_AIPP) return fail(ACL_ERROR_NOT_STATIC_AIPP, "the input's AIPP is not static");
  return fail(ACL_ERROR_API_NOT_SUPPORT, "the emulator does not tell the details of static AIPP");
}

struct AippTarget {
  std::uint32_t model_id;
  aclmdlDataset* dataset;
  std::size_t index;
  bool is_picture;  // the index is that of the picture, not of the parameters
};

aclError bad(const std::string& what) { return fail(ACL_ERROR_INVALID_PARAM, "AIPP: " + what); }

// Returns the parameter input of a target; inputs.size() if there is none.
std::size_t parameter_input(const ModelSpec& spec, const AippTarget& target) {
  for (std::size_t i = 0; i < spec.inputs.size(); ++i) {
    if (spec.inputs[i].role != InputRole::kAippParameters) continue;
    const auto picture = static_cast<std::size_t>(spec.aipp[static_cast<std::size_t>(spec.inputs[i].aipp)].input);
    if (target.is_picture ? picture == target.index : i == target.index) return i;
  }
  return spec.inputs.size();
}

// With image size gears, settings are checked when the model runs, because the size is unknown before.
Status check_for(const ModelSpec& spec, std::size_t index, const AippParameters& parameters) {
  if (spec.gears == GearKind::kImageSize) return Status();
  const auto picture = static_cast<std::size_t>(spec.aipp[static_cast<std::size_t>(spec.inputs[index].aipp)].input);
  const Shape shape = spec.input_shape(picture, spec.has_gears() ? spec.largest_gear() : 0);
  return check_parameters(parameters, 1, shape[3], shape[2]);
}

// Finds the device memory of the parameter input.
aclError parameter_memory(const Scope& scope, const aclDataBuffer* handle, std::size_t size, Range* out) {
  const std::shared_ptr<DataBuffer> buffer = objects().buffers.find(handle);
  if (buffer == nullptr || buffer->data == nullptr) return bad("the parameter input has no memory");
  if (buffer->size < size) {
    return bad("the parameters need " + std::to_string(size) + " bytes, the buffer has " + std::to_string(buffer->size));
  }
  if (const aclError code = memory().resolve(buffer->data, size, "the AIPP parameters", out)) return code;
  const bool own = out->on_device() && out->device == scope.device_id;
  return own || settings().host_is_device ? ACL_SUCCESS : bad("the parameter input is not memory of this device");
}

// Checks all settings, and writes them to the device.
aclError apply(const Scope& scope, const AippTarget& target, const aclmdlAIPP* handle) {
  const std::shared_ptr<AippParameters> parameters = objects().aipp.find(handle);
  const std::shared_ptr<Model> model = objects().model(target.model_id);
  const std::shared_ptr<Dataset> set = objects().datasets.find(target.dataset);
  if (model == nullptr) {
    return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(target.model_id));
  }
  if (parameters == nullptr || set == nullptr) return bad("the settings or the dataset are NULL or were destroyed");
  const std::size_t index = parameter_input(*model->spec, target);
  if (index == model->spec->inputs.size()) {
    return fail(ACL_ERROR_GE_AIPP_NOT_EXIST, "input " + std::to_string(target.index) + " has no dynamic AIPP");
  }
  if (index >= set->buffers.size()) return bad("the dataset has no buffer for the parameters yet");
  const Status status = check_for(*model->spec, index, *parameters);
  if (!status.ok()) return fail(ACL_ERROR_INVALID_PARAM, status.message());
  Range range;
  const std::size_t size = aipp_data_size(parameters->pictures.size());
  if (const aclError code = parameter_memory(scope, set->buffers[index], size, &range)) return code;
  store_parameters(*parameters, range.bytes);
  set->aipp_set[index] = true;
  return ACL_SUCCESS;
}

}  // namespace
}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclmdlGetAippType(std::uint32_t modelId, std::size_t index, aclmdlInputAippType* type,
                                   std::size_t* dynamicAttachedDataIndex) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return input_type(modelId, index, type, dynamicAttachedDataIndex); }, modelId, index,
                 filled(type), filled(dynamicAttachedDataIndex));
}

ACL_API aclError aclmdlGetFirstAippInfo(std::uint32_t modelId, std::size_t index, void* aippInfo) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return static_aipp_missing(modelId, index); }, modelId, index, aippInfo);
}

ACL_API aclError aclmdlSetInputAIPP(std::uint32_t modelId, aclmdlDataset* dataset, std::size_t index,
                                    const aclmdlAIPP* aippParmsSet) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return apply(scope, {modelId, dataset, index, false}, aippParmsSet); }, modelId,
                 dataset, index, aippParmsSet);
}

ACL_API aclError aclmdlSetAIPPByInputIndex(std::uint32_t modelId, aclmdlDataset* dataset, std::size_t index,
                                           const aclmdlAIPP* aippParmsSet) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return apply(scope, {modelId, dataset, index, true}, aippParmsSet); }, modelId,
                 dataset, index, aippParmsSet);
}
