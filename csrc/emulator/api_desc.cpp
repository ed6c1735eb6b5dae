// AscendCL: descriptions of models.
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/objects.hpp"

using namespace ais::emulator;

namespace {

using Spec = std::shared_ptr<const ModelSpec>;

std::shared_ptr<ModelDesc> find(const aclmdlDesc* handle) {
  std::shared_ptr<ModelDesc> found = objects().model_descs.find(handle);
  if (found == nullptr)
    fail(ACL_ERROR_INVALID_PARAM, handle == nullptr ? "the model desc is NULL" : "not a living model desc (destroyed before?)");
  return found;
}

const InputSpec* input_at(const Spec& spec, std::size_t index) {
  if (spec == nullptr || index >= spec->inputs.size()) return nullptr;
  return &spec->inputs[index];
}

const OutputSpec* output_at(const Spec& spec, std::size_t index) {
  if (spec == nullptr || index >= spec->outputs.size()) return nullptr;
  return &spec->outputs[index];
}

std::string short_name(const std::string& name, std::uint32_t model_id, const char* side, std::size_t index) {
  if (name.size() < kMaxName) return name;
  return "acl_modelId_" + std::to_string(model_id) + "_" + side + "_" + std::to_string(index);
}

aclError give_dims(const ais::Shape& shape, const std::string& name, aclmdlIODims* out) {
  std::memset(out, 0, sizeof(*out));
  std::strncpy(out->name, name.c_str(), kMaxName - 1);
  out->dimCount = shape.size();
  std::copy(shape.begin(), shape.end(), out->dims);
  return ACL_SUCCESS;
}

aclError input_dims(const aclmdlDesc* handle, std::size_t index, aclmdlIODims* out, bool physical) {
  const Spec spec = spec_of(handle);
  const InputSpec* input = input_at(spec, index);
  if (input == nullptr || out == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "no described model, no input of that index, or the place to fill is NULL");
  const bool data = input->role == InputRole::kData;
  const ais::Shape& shape = !data ? input->shape : physical ? input->physical_shape : input->fed_shape;
  return give_dims(shape, short_name(input->name, find(handle)->model_id, "input", index), out);
}

ais::Shape largest_output(const ModelSpec& spec, const OutputSpec& output) {
  return output.shapes[spec.has_gears() ? spec.largest_gear() : 0];
}

aclError output_dims(const aclmdlDesc* handle, std::size_t index, aclmdlIODims* out) {
  const Spec spec = spec_of(handle);
  const OutputSpec* output = output_at(spec, index);
  if (output == nullptr || out == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "no described model, no output of that index, or the place to fill is NULL");
  return give_dims(largest_output(*spec, *output), short_name(output->name, find(handle)->model_id, "output", index), out);
}

aclError current_output_dims(const aclmdlDesc* handle, std::size_t index, aclmdlIODims* out) {
  const std::shared_ptr<ModelDesc> desc = find(handle);
  const Spec spec = spec_of(handle);
  const OutputSpec* output = output_at(spec, index);
  if (output == nullptr || out == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "no described model, no output of that index, or the place to fill is NULL");
  const std::shared_ptr<Model> model = objects().model(desc->model_id);
  if (model == nullptr)
    return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "the desc was not made of a model that is loaded (aclmdlGetDesc)");
  if (spec->gears == GearKind::kOpenShape) {
    return fail(ACL_ERROR_API_NOT_SUPPORT,
                "a dynamic-shape model has no current output dims; read the output dataset's tensor descs");
  }
  const std::lock_guard<std::mutex> lock(model->mutex);
  const bool chosen = spec->has_gears() && model->gear >= 0;
  const ais::Shape shape = chosen ? output->shapes[static_cast<std::size_t>(model->gear)] : largest_output(*spec, *output);
  return give_dims(shape, short_name(output->name, desc->model_id, "output", index), out);
}

// rangeCount is 0 for gear models, because their inputs have no ranges.
aclError input_range(const aclmdlDesc* handle, std::size_t index, aclmdlIODimsRange* out) {
  const Spec spec = spec_of(handle);
  const InputSpec* input = input_at(spec, index);
  if (input == nullptr || out == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "no described model, no input of that index, or the place to fill is NULL");
  std::memset(out, 0, sizeof(*out));
  if (spec->has_gears()) return ACL_SUCCESS;
  out->rangeCount = input->fed_shape.size();
  for (std::size_t axis = 0; axis < out->rangeCount; ++axis) {
    const std::int64_t dim = input->fed_shape[axis];
    out->range[axis][0] = dim >= 0 ? dim : axis < input->range.size() ? input->range[axis][0] : 1;
    out->range[axis][1] = dim >= 0 ? dim : axis < input->range.size() ? input->range[axis][1] : -1;
  }
  return ACL_SUCCESS;
}

template <typename List>
aclError index_of(const List& list, const char* name, std::size_t* index) {
  if (name == nullptr || index == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the name or the place to fill is NULL");
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].name != name) continue;
    *index = i;
    return ACL_SUCCESS;
  }
  return fail(ACL_ERROR_INVALID_PARAM, "unknown tensor '" + std::string(name) + "'");
}

}  // namespace

ACL_API aclmdlDesc* aclmdlCreateDesc() {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(static_cast<aclmdlDesc*>(nullptr), [&](const Scope&) {
    return static_cast<aclmdlDesc*>(objects().model_descs.add(std::make_shared<ModelDesc>()));
  });
}

ACL_API aclError aclmdlDestroyDesc(aclmdlDesc* modelDesc) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        if (find(modelDesc) == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        objects().model_descs.take(modelDesc);
        return aclError{ACL_SUCCESS};
      },
      modelDesc);
}

ACL_API aclError aclmdlGetDesc(aclmdlDesc* modelDesc, std::uint32_t modelId) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        const std::shared_ptr<ModelDesc> desc = find(modelDesc);
        if (desc == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        const std::shared_ptr<Model> model = objects().model(modelId);
        if (model == nullptr) return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(modelId));
        if (model->context.lock() != scope.context) {
          return fail(ACL_ERROR_RT_MODEL_CONTEXT, "model " + std::to_string(modelId) + " was loaded in another context");
        }
        desc->spec = model->spec;
        desc->model_id = modelId;
        return aclError{ACL_SUCCESS};
      },
      modelDesc, modelId);
}

ACL_API aclError aclmdlGetDescFromFile(aclmdlDesc* modelDesc, const char* modelPath) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<ModelDesc> desc = find(modelDesc);
        if (desc == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        desc->model_id = 0;
        return read_spec_file(modelPath, &desc->spec);
      },
      modelDesc, modelPath);
}

ACL_API aclError aclmdlGetDescFromMem(aclmdlDesc* modelDesc, const void* model, std::size_t modelSize) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<ModelDesc> desc = find(modelDesc);
        if (desc == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        if (model == nullptr || modelSize == 0)
          return fail(ACL_ERROR_INVALID_PARAM, "the model's address is NULL or its size 0");
        desc->model_id = 0;
        return read_spec(model, modelSize, "the model in memory", &desc->spec);
      },
      modelDesc, model, modelSize);
}

ACL_API std::size_t aclmdlGetNumInputs(aclmdlDesc* modelDesc) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::size_t{0},
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        return spec == nullptr ? 0 : spec->inputs.size();
      },
      modelDesc);
}

ACL_API std::size_t aclmdlGetNumOutputs(aclmdlDesc* modelDesc) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::size_t{0},
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        return spec == nullptr ? 0 : spec->outputs.size();
      },
      modelDesc);
}

ACL_API std::size_t aclmdlGetInputSizeByIndex(aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::size_t{0},
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const InputSpec* input = input_at(spec, index);
        return input == nullptr ? 0 : input->bytes;
      },
      modelDesc, index);
}

ACL_API std::size_t aclmdlGetOutputSizeByIndex(aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::size_t{0},
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const OutputSpec* output = output_at(spec, index);
        return output == nullptr ? 0 : output->bytes;
      },
      modelDesc, index);
}

ACL_API const char* aclmdlGetInputNameByIndex(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      "",
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const InputSpec* input = input_at(spec, index);
        return input == nullptr ? "" : input->name.c_str();
      },
      modelDesc, index);
}

ACL_API const char* aclmdlGetOutputNameByIndex(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      "",
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const OutputSpec* output = output_at(spec, index);
        return output == nullptr ? "" : output->name.c_str();
      },
      modelDesc, index);
}

ACL_API aclError aclmdlGetInputIndexByName(const aclmdlDesc* modelDesc, const char* name, std::size_t* index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        return spec == nullptr ? aclError{ACL_ERROR_INVALID_PARAM} : index_of(spec->inputs, name, index);
      },
      modelDesc, name, filled(index));
}

ACL_API aclError aclmdlGetOutputIndexByName(const aclmdlDesc* modelDesc, const char* name, std::size_t* index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        return spec == nullptr ? aclError{ACL_ERROR_INVALID_PARAM} : index_of(spec->outputs, name, index);
      },
      modelDesc, name, filled(index));
}

ACL_API aclDataType aclmdlGetInputDataType(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      ACL_DT_UNDEFINED,
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const InputSpec* input = input_at(spec, index);
        return input == nullptr ? ACL_DT_UNDEFINED : static_cast<aclDataType>(input->dtype);
      },
      modelDesc, index);
}

ACL_API aclDataType aclmdlGetOutputDataType(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      ACL_DT_UNDEFINED,
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const OutputSpec* output = output_at(spec, index);
        return output == nullptr ? ACL_DT_UNDEFINED : static_cast<aclDataType>(output->dtype);
      },
      modelDesc, index);
}

ACL_API aclFormat aclmdlGetInputFormat(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      ACL_FORMAT_UNDEFINED,
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const InputSpec* input = input_at(spec, index);
        return input == nullptr ? ACL_FORMAT_UNDEFINED : static_cast<aclFormat>(input->format);
      },
      modelDesc, index);
}

ACL_API aclFormat aclmdlGetOutputFormat(const aclmdlDesc* modelDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      ACL_FORMAT_UNDEFINED,
      [&](const Scope&) {
        const Spec spec = spec_of(modelDesc);
        const OutputSpec* output = output_at(spec, index);
        return output == nullptr ? ACL_FORMAT_UNDEFINED : static_cast<aclFormat>(output->format);
      },
      modelDesc, index);
}

ACL_API aclError aclmdlGetInputDims(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return input_dims(modelDesc, index, dims, false); }, modelDesc, index, dims);
}

ACL_API aclError aclmdlGetInputDimsV2(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return input_dims(modelDesc, index, dims, true); }, modelDesc, index, dims);
}

ACL_API aclError aclmdlGetInputDimsRange(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODimsRange* dimsRange) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return input_range(modelDesc, index, dimsRange); }, modelDesc, index, dimsRange);
}

ACL_API aclError aclmdlGetOutputDims(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return output_dims(modelDesc, index, dims); }, modelDesc, index, dims);
}

ACL_API aclError aclmdlGetCurOutputDims(const aclmdlDesc* modelDesc, std::size_t index, aclmdlIODims* dims) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return current_output_dims(modelDesc, index, dims); }, modelDesc, index, dims);
}

ACL_API const char* aclmdlGetTensorRealName(const aclmdlDesc* modelDesc, const char* name) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<const char*>(nullptr),
      [&](const Scope&) -> const char* {
        const Spec spec = spec_of(modelDesc);
        if (spec == nullptr || name == nullptr) return nullptr;
        const std::uint32_t id = find(modelDesc)->model_id;
        for (std::size_t i = 0; i < spec->inputs.size(); ++i) {
          const std::string& real = spec->inputs[i].name;
          if (real == name || short_name(real, id, "input", i) == name) return real.c_str();
        }
        for (std::size_t i = 0; i < spec->outputs.size(); ++i) {
          const std::string& real = spec->outputs[i].name;
          if (real == name || short_name(real, id, "output", i) == name) return real.c_str();
        }
        return nullptr;
      },
      modelDesc, name);
}

ACL_API const char* aclmdlGetOpAttr(aclmdlDesc* modelDesc, const char* opName, const char* attr) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or("", [&](const Scope&) { return ""; }, modelDesc, opName, attr);
}
