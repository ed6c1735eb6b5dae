// Reads names, types and shapes through the C API, and gears from the model's metadata.
#include "device/ort/ort_describe.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/file.hpp"
#include "device/gears.hpp"
#include "device/onnx_file.hpp"

namespace ais::ort {
namespace {

using device::ModelInfo;
using device::TensorDesc;

Status refuse(const std::string& role, const std::string& name, const std::string& type) {
  return Status(Code::kUnsupported, role + " '" + name + "' of the model must be a tensor of numbers or booleans, it is a " +
                                        type + "; remove or convert it inside of the model");
}

Status read_tensor(const OrtApi& api, const std::string& role, const OrtTypeInfo* type, TensorDesc* desc) {
  int kind = 0;
  AIS_TRY(api.check(api.GetOnnxTypeFromTypeInfo(type, &kind), Code::kModelLoad));
  if (kind == kTypeOptional && role == "input" && !desc->optional) {
    const OrtOptionalTypeInfo* optional = nullptr;  // owned by `type`
    AIS_TRY(api.check(api.CastTypeInfoToOptionalTypeInfo(type, &optional), Code::kModelLoad));
    OrtTypeInfo* contained = nullptr;
    AIS_TRY(api.check(api.GetOptionalContainedTypeInfo(optional, &contained), Code::kModelLoad));
    desc->optional = true;
    Status status = read_tensor(api, role, contained, desc);
    api.ReleaseTypeInfo(contained);
    return status;
  }
  if (kind != kTypeTensor) return refuse(role, desc->name, type_name(kind));
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // owned by `type`
  AIS_TRY(api.check(api.CastTypeInfoToTensorInfo(type, &tensor), Code::kModelLoad));
  int element = 0;
  AIS_TRY(api.check(api.GetTensorElementType(tensor, &element), Code::kModelLoad));
  desc->dtype = dtype_of(element);
  if (desc->dtype == DType::kUndefined) {
    return refuse(role, desc->name,
                  element == kElementString ? "tensor of strings" : "tensor of element type " + std::to_string(element));
  }
  std::size_t rank = 0;
  AIS_TRY(api.check(api.GetDimensionsCount(tensor, &rank), Code::kModelLoad));
  desc->shape.resize(rank);
  AIS_TRY(api.check(api.GetDimensions(tensor, desc->shape.data(), rank), Code::kModelLoad));
  std::vector<const char*> symbols(rank, nullptr);  // owned by `type`
  AIS_TRY(api.check(api.GetSymbolicDimensions(tensor, symbols.data(), rank), Code::kModelLoad));
  for (const char* symbol : symbols) desc->symbols.emplace_back(symbol == nullptr ? "" : symbol);
  std::size_t elements = 0;
  if (count_elements(desc->shape, &elements)) desc->bytes = packed_bytes(desc->dtype, elements);
  return Status();
}

// Describes the inputs or the outputs of the model; the three calls that differ are arguments.
template <typename Count, typename Name, typename Type>
Status read_side(const OrtApi& api, OrtSession* session, const std::string& role, Count count_of, Name name_of, Type type_of,
                 std::vector<TensorDesc>* out) {
  std::size_t count = 0;
  AIS_TRY(api.check(count_of(session, &count), Code::kModelLoad));
  out->resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    TensorDesc& desc = (*out)[i];
    char* name = nullptr;
    AIS_TRY(api.check(name_of(session, i, api.allocator, &name), Code::kModelLoad));
    desc.name = name;
    AIS_TRY(api.check(api.AllocatorFree(api.allocator, name), Code::kModelLoad));
    OrtTypeInfo* type = nullptr;
    AIS_TRY(api.check(type_of(session, i, &type), Code::kModelLoad));
    Status status = read_tensor(api, role, type, &desc);
    api.ReleaseTypeInfo(type);
    if (!status.ok()) return status;
  }
  return Status();
}

// For the C API a tensor without a declared shape is a scalar, so the file is read.
Status mark_unranked(const device::ModelSource& source, ModelInfo* info) {
  bool doubt = false;
  for (auto* side : {&info->inputs, &info->outputs, &info->overridable}) {
    for (const TensorDesc& desc : *side) doubt = doubt || desc.shape.empty();
  }
  if (!doubt) return Status();
  std::set<std::string> names;
  if (source.bytes != nullptr) {
    names = device::unranked_tensors(static_cast<const std::uint8_t*>(source.bytes), source.size);
  } else {
    AIS_ASSIGN(MappedFile file, MappedFile::open(source.path));
    names = device::unranked_tensors(file.data(), file.size());
  }
  for (auto* side : {&info->inputs, &info->outputs, &info->overridable}) {
    for (TensorDesc& desc : *side) {
      if (!desc.shape.empty() || names.count(desc.name) == 0) continue;
      desc.ranked = false;
      desc.bytes = 0;
    }
  }
  return Status();
}

// Copies a text that the library allocated, and frees it.
Status take_text(const OrtApi& api, char* text, std::string* out) {
  if (text == nullptr) return Status();
  *out = text;
  return api.check(api.AllocatorFree(api.allocator, text), Code::kModelLoad);
}

Status read_custom(const OrtApi& api, const OrtModelMetadata* metadata, std::map<std::string, std::string>* out) {
  char** keys = nullptr;
  std::int64_t count = 0;
  AIS_TRY(api.check(api.ModelMetadataGetCustomMetadataMapKeys(metadata, api.allocator, &keys, &count), Code::kModelLoad));
  Status status;
  for (std::int64_t i = 0; i < count; ++i) {  // go on after an error, because each key must be freed
    std::string key;
    char* text = nullptr;
    if (status.ok()) {
      status = api.check(api.ModelMetadataLookupCustomMetadataMap(metadata, api.allocator, keys[i], &text), Code::kModelLoad);
    }
    Status taken = take_text(api, keys[i], &key);
    if (status.ok()) status = std::move(taken);
    if (status.ok()) status = take_text(api, text, &(*out)[key]);
  }
  Status freed = keys == nullptr ? Status() : api.check(api.AllocatorFree(api.allocator, keys), Code::kModelLoad);
  return status.ok() ? freed : status;
}

Status fill_metadata(const OrtApi& api, const OrtModelMetadata* metadata, device::Metadata* out) {
  const auto text = [&](auto getter, std::string* to) -> Status {
    char* value = nullptr;
    AIS_TRY(api.check(getter(metadata, api.allocator, &value), Code::kModelLoad));
    return take_text(api, value, to);
  };
  AIS_TRY(text(api.ModelMetadataGetProducerName, &out->producer));
  AIS_TRY(text(api.ModelMetadataGetGraphName, &out->graph));
  AIS_TRY(text(api.ModelMetadataGetDomain, &out->domain));
  AIS_TRY(text(api.ModelMetadataGetDescription, &out->description));
  AIS_TRY(api.check(api.ModelMetadataGetVersion(metadata, &out->version), Code::kModelLoad));
  AIS_TRY(read_custom(api, metadata, &out->custom));
  out->known = true;
  return Status();
}

Status read_metadata(const OrtApi& api, OrtSession* session, ModelInfo* info) {
  OrtModelMetadata* metadata = nullptr;
  AIS_TRY(api.check(api.SessionGetModelMetadata(session, &metadata), Code::kModelLoad));
  Status status = fill_metadata(api, metadata, &info->metadata);
  api.ReleaseModelMetadata(metadata);
  return status;
}

Status read_gears(ModelInfo* info) {
  std::map<std::string, std::string> declared;
  for (const char* key : device::kGearKeys) {
    const auto found = info->metadata.custom.find(key);
    if (found != info->metadata.custom.end()) declared.insert(*found);
  }
  AIS_ASSIGN(info->gears, device::parse_gears(declared, info->inputs));
  device::set_largest_sizes(info->gears, &info->inputs);
  return Status();
}

}  // namespace

Result<ModelInfo> describe(const OrtApi& api, OrtSession* session, const device::ModelSource& source) {
  ModelInfo info;
  AIS_TRY(read_side(api, session, "input", api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo,
                    &info.inputs));
  AIS_TRY(read_side(api, session, "output", api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo,
                    &info.outputs));
  AIS_TRY(read_side(api, session, "initializer", api.SessionGetOverridableInitializerCount,
                    api.SessionGetOverridableInitializerName, api.SessionGetOverridableInitializerTypeInfo, &info.overridable));
  for (TensorDesc& desc : info.overridable) desc.optional = true;
  AIS_TRY(mark_unranked(source, &info));
  AIS_TRY(read_metadata(api, session, &info));
  AIS_TRY(read_gears(&info));
  return info;
}

}  // namespace ais::ort
