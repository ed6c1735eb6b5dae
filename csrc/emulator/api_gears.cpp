// AscendCL: queries a model's gears, and selects one.
#include <algorithm>
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"
#include "emulator/report.hpp"

using namespace ais::emulator;

namespace {

constexpr std::size_t kAnyIndex = static_cast<std::size_t>(-1);

aclError index_must_be_any(std::size_t index) {
  return index == kAnyIndex ? ACL_SUCCESS : fail(ACL_ERROR_INVALID_PARAM, "the index must be (size_t)-1");
}

const char* kind_text(GearKind kind) {
  static const char* const kTexts[] = {"has no gears", "has batch gears", "has image size gears", "has dims gears",
                                       "is a dynamic-shape model"};
  return kTexts[static_cast<int>(kind)];
}

// Writes the values into the gear index buffer: uint64 if there is room for it, otherwise uint32.
aclError write_index(const Scope& scope, const ModelSpec& spec, const Dataset& set, std::size_t index,
                     const ais::Shape& values) {
  if (index >= set.buffers.size() || index >= spec.inputs.size() || spec.inputs[index].role != InputRole::kGearIndex) {
    return fail(ACL_ERROR_INVALID_PARAM, "index " + std::to_string(index) + " is not that of the input " + kDynamicTensorName +
                                             ", or the dataset has no such buffer yet");
  }
  const std::shared_ptr<DataBuffer> buffer = objects().buffers.find(set.buffers[index]);
  if (buffer == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the data buffer of the gear index was destroyed");
  if (buffer->data == nullptr)
    return fail(ACL_ERROR_GE_DYNAMIC_INPUT_ADDR_INVALID, "the buffer of the gear index has no memory");
  if (buffer->size < 4 * values.size()) {
    return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID, "the buffer of the gear index has " + std::to_string(buffer->size) +
                                                               " bytes, it needs " + std::to_string(4 * values.size()));
  }
  Range range;
  if (const aclError code = memory().resolve(buffer->data, buffer->size, "the gear index", &range)) return code;
  if ((!range.on_device() || range.device != scope.device_id) && !settings().host_is_device) {
    return fail(ACL_ERROR_GE_DYNAMIC_INPUT_ADDR_INVALID,
                "the gear index is not memory of device " + std::to_string(scope.device_id));
  }
  if (buffer->in_flight > 0) violation("the gear was set while an asynchronous execution reads it");
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto wide = static_cast<std::uint64_t>(values[i]);
    const auto narrow = static_cast<std::uint32_t>(values[i]);
    if (buffer->size >= 8 * values.size()) {
      std::memcpy(range.bytes + 8 * i, &wide, 8);
    } else {
      std::memcpy(range.bytes + 4 * i, &narrow, 4);
    }
  }
  return ACL_SUCCESS;
}

struct GearChoice {
  std::uint32_t model_id;
  aclmdlDataset* dataset;
  std::size_t index;
};

aclError find_target(const Scope& scope, const GearChoice& choice, GearKind kind, std::shared_ptr<Model>* model,
                     std::shared_ptr<Dataset>* set) {
  *model = objects().model(choice.model_id);
  if (*model == nullptr) return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(choice.model_id));
  if ((*model)->context.lock() != scope.context)
    return fail(ACL_ERROR_RT_MODEL_CONTEXT, "the model was loaded in another context");
  *set = objects().datasets.find(choice.dataset);
  if (*set == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the dataset is NULL or was destroyed");
  const GearKind actual = (*model)->spec->gears;
  if (actual != kind) return fail(ACL_ERROR_GE_DYNAMIC_BATCH_SIZE_INVALID, std::string("the model ") + kind_text(actual));
  return ACL_SUCCESS;
}

aclError choose(const Scope& scope, const GearChoice& choice, const Model& model, std::size_t gear, Dataset* set,
                Model* changed) {
  if (const aclError code = write_index(scope, *model.spec, *set, choice.index, model.spec->gear_values[gear])) return code;
  set->gear = static_cast<int>(gear);
  const std::lock_guard<std::mutex> lock(changed->mutex);
  changed->gear = static_cast<int>(gear);
  return ACL_SUCCESS;
}

aclError set_values(const Scope& scope, const GearChoice& choice, GearKind kind, const ais::Shape& values) {
  std::shared_ptr<Model> model;
  std::shared_ptr<Dataset> set;
  for (const std::int64_t value : values) {
    if (value <= 0) return fail(ACL_ERROR_INVALID_PARAM, "batch, height and width must be at least 1");
  }
  if (const aclError code = find_target(scope, choice, kind, &model, &set)) return code;
  const auto& gears = model->spec->gear_values;
  const auto found = std::find(gears.begin(), gears.end(), values);
  if (found == gears.end())
    return fail(ACL_ERROR_GE_DYNAMIC_BATCH_SIZE_INVALID, ais::shape_text(values) + " is not one of the model's gears");
  return choose(scope, choice, *model, static_cast<std::size_t>(found - gears.begin()), set.get(), model.get());
}

aclError set_dims(const Scope& scope, const GearChoice& choice, const aclmdlIODims* dims) {
  std::shared_ptr<Model> model;
  std::shared_ptr<Dataset> set;
  if (dims == nullptr || dims->dimCount == 0 || dims->dimCount > kMaxDims)
    return fail(ACL_ERROR_INVALID_PARAM, "dims is NULL or has no dimensions");
  if (const aclError code = find_target(scope, choice, GearKind::kDims, &model, &set)) return code;
  const ais::Shape wanted(dims->dims, dims->dims + dims->dimCount);
  ais::Shape pattern;
  for (const int input : model->spec->gear_order) {
    const ais::Shape& shape = model->spec->inputs[static_cast<std::size_t>(input)].shape;
    pattern.insert(pattern.end(), shape.begin(), shape.end());
  }
  bool fits = pattern.size() == wanted.size();
  for (std::size_t i = 0; fits && i < pattern.size(); ++i) fits = pattern[i] < 0 || pattern[i] == wanted[i];
  if (!fits) {
    return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID,
                ais::shape_text(wanted) + " does not fit the inputs, " + ais::shape_text(pattern));
  }
  for (std::size_t gear = 0; gear < model->spec->gear_values.size(); ++gear) {
    if (model->spec->gear_dims(gear) == wanted) return choose(scope, choice, *model, gear, set.get(), model.get());
  }
  return fail(ACL_ERROR_GE_DYNAMIC_BATCH_SIZE_INVALID, ais::shape_text(wanted) + " is not one of the model's gears");
}

aclError list_dims(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims, std::size_t gearCount) {
  const std::shared_ptr<const ModelSpec> spec = spec_of(modelDesc);
  if (spec == nullptr) return ACL_ERROR_INVALID_PARAM;
  if (const aclError code = index_must_be_any(index)) return code;
  const std::size_t count = spec->gears == GearKind::kDims ? spec->gear_values.size() : 0;
  if (dims == nullptr || gearCount < count) {
    return fail(ACL_ERROR_INVALID_PARAM,
                "there are " + std::to_string(count) + " gears, and room for " + std::to_string(gearCount));
  }
  for (std::size_t gear = 0; gear < count; ++gear) {
    const ais::Shape all = spec->gear_dims(gear);
    std::memset(&dims[gear], 0, sizeof(dims[gear]));
    dims[gear].dimCount = all.size();
    std::copy(all.begin(), all.end(), dims[gear].dims);
  }
  return ACL_SUCCESS;
}

}  // namespace

ACL_API aclError aclmdlGetDynamicBatch(const aclmdlDesc* modelDesc, aclmdlBatch* batch) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<const ModelSpec> spec = spec_of(modelDesc);
        if (spec == nullptr || batch == nullptr)
          return fail(ACL_ERROR_INVALID_PARAM, "the model desc describes nothing, or the place to fill is NULL");
        std::memset(batch, 0, sizeof(*batch));
        if (spec->gears != GearKind::kBatch) return aclError{ACL_SUCCESS};
        for (const ais::Shape& gear : spec->gear_values)
          batch->batch[batch->batchCount++] = static_cast<std::uint64_t>(gear[0]);
        return aclError{ACL_SUCCESS};
      },
      modelDesc, batch);
}

ACL_API aclError aclmdlGetDynamicHW(const aclmdlDesc* modelDesc, std::size_t index, aclmdlHW* hw) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<const ModelSpec> spec = spec_of(modelDesc);
        if (spec == nullptr || hw == nullptr)
          return fail(ACL_ERROR_INVALID_PARAM, "the model desc describes nothing, or the place to fill is NULL");
        if (const aclError code = index_must_be_any(index)) return code;
        std::memset(hw, 0, sizeof(*hw));
        if (spec->gears != GearKind::kImageSize) return aclError{ACL_SUCCESS};
        for (const ais::Shape& gear : spec->gear_values) {
          hw->hw[hw->hwCount][0] = static_cast<std::uint64_t>(gear[0]);
          hw->hw[hw->hwCount++][1] = static_cast<std::uint64_t>(gear[1]);
        }
        return aclError{ACL_SUCCESS};
      },
      modelDesc, index, hw);
}

ACL_API aclError aclmdlGetInputDynamicGearCount(const aclmdlDesc* modelDesc, std::size_t index, std::size_t* gearCount) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<const ModelSpec> spec = spec_of(modelDesc);
        if (spec == nullptr || gearCount == nullptr)
          return fail(ACL_ERROR_INVALID_PARAM, "the model desc describes nothing, or the place to fill is NULL");
        if (const aclError code = index_must_be_any(index)) return code;
        *gearCount = spec->gears == GearKind::kDims ? spec->gear_values.size() : 0;
        return aclError{ACL_SUCCESS};
      },
      modelDesc, index, filled(gearCount));
}

ACL_API aclError aclmdlGetInputDynamicDims(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims,
                                           std::size_t gearCount) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return list_dims(modelDesc, index, dims, gearCount); }, modelDesc, index, dims, gearCount);
}

ACL_API aclError aclmdlSetDynamicBatchSize(std::uint32_t modelId, aclmdlDataset* dataset, std::size_t index,
                                           std::uint64_t batchSize) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        return set_values(scope, {modelId, dataset, index}, GearKind::kBatch, {static_cast<std::int64_t>(batchSize)});
      },
      modelId, dataset, index, batchSize);
}

ACL_API aclError aclmdlSetDynamicHWSize(std::uint32_t modelId, aclmdlDataset* dataset, std::size_t index, std::uint64_t height,
                                        std::uint64_t width) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        return set_values(scope, {modelId, dataset, index}, GearKind::kImageSize,
                          {static_cast<std::int64_t>(height), static_cast<std::int64_t>(width)});
      },
      modelId, dataset, index, height, width);
}

ACL_API aclError aclmdlSetInputDynamicDims(std::uint32_t modelId, aclmdlDataset* dataset, std::size_t index,
                                           const aclmdlIODims* dims) {
  static Function fn(__func__, Need::kContext);
  const Numbers values = dims == nullptr ? Numbers{nullptr, 0} : Numbers{dims->dims, dims->dimCount};
  return fn.call([&](const Scope& scope) { return set_dims(scope, {modelId, dataset, index}, dims); }, modelId, dataset, index,
                 values);
}
