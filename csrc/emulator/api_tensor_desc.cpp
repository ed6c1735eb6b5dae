// AscendCL: tensor descriptions.
#include "emulator/call.hpp"
#include "emulator/objects.hpp"

namespace ais::emulator {

std::shared_ptr<TensorDesc> find_desc(const aclTensorDesc* handle) {
  std::shared_ptr<TensorDesc> found = objects().tensor_descs.find(handle);
  if (found == nullptr)
    fail(ACL_ERROR_INVALID_PARAM,
         handle == nullptr ? "the tensor desc is NULL" : "not a living tensor desc (destroyed before?)");
  return found;
}

}  // namespace ais::emulator

using namespace ais::emulator;

namespace {

// A desc with one unknown dimension of -2 has no rank.
bool unknown_rank(const TensorDesc& desc) { return !desc.dims.empty() && desc.dims[0] == -2; }

std::size_t elements_of(const TensorDesc& desc) {
  std::size_t elements = 0;
  return ais::count_elements(desc.dims, &elements) ? elements : 0;
}

}  // namespace

ACL_API aclTensorDesc* aclCreateTensorDesc(aclDataType dataType, int numDims, const std::int64_t* dims, aclFormat format) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<aclTensorDesc*>(nullptr),
      [&](const Scope&) -> aclTensorDesc* {
        if (numDims < 0 || static_cast<std::size_t>(numDims) > kMaxDims || (numDims > 0 && dims == nullptr)) {
          fail(ACL_ERROR_INVALID_PARAM, "numDims is negative or over 128, or dims is NULL");
          return nullptr;
        }
        auto desc = std::make_shared<TensorDesc>();
        desc->dtype = dataType;
        desc->format = format;
        if (numDims > 0) desc->dims.assign(dims, dims + numDims);
        return static_cast<aclTensorDesc*>(objects().tensor_descs.add(std::move(desc)));
      },
      dataType, numDims, Numbers{dims, numDims < 0 ? 0 : static_cast<std::size_t>(numDims)}, format);
}

ACL_API void aclDestroyTensorDesc(const aclTensorDesc* desc) {
  static Function fn(__func__, Need::kNothing);
  fn.call(
      [&](const Scope&) {
        const std::shared_ptr<TensorDesc> found = find_desc(desc);
        if (found == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        if (found->in_dataset)
          return fail(ACL_ERROR_INVALID_PARAM, handle_name(desc) + " belongs to a dataset, which destroys it");
        for (std::size_t i = 1; i < found->array.size(); ++i) objects().tensor_descs.take(found->array[i]);
        objects().tensor_descs.take(desc);
        return aclError{ACL_SUCCESS};
      },
      desc);
}

ACL_API aclDataType aclGetTensorDescType(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? ACL_DT_UNDEFINED : static_cast<aclDataType>(found->dtype);
}

ACL_API aclFormat aclGetTensorDescFormat(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? ACL_FORMAT_UNDEFINED : static_cast<aclFormat>(found->format);
}

ACL_API std::size_t aclGetTensorDescElementCount(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? 0 : elements_of(*found);
}

ACL_API std::size_t aclGetTensorDescSize(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? 0 : elements_of(*found) * dtype_bytes(found->dtype);
}

ACL_API std::size_t aclGetTensorDescNumDims(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found == nullptr) return 0;
  return unknown_rank(*found) ? kUnknownRank : found->dims.size();
}

ACL_API std::int64_t aclGetTensorDescDim(const aclTensorDesc* desc, std::size_t index) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr || index >= found->dims.size() ? -1 : found->dims[index];
}

ACL_API aclError aclGetTensorDescDimV2(const aclTensorDesc* desc, std::size_t index, std::int64_t* dimSize) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found == nullptr) return ACL_ERROR_INVALID_PARAM;
  if (dimSize == nullptr || index >= found->dims.size())
    return fail(ACL_ERROR_INVALID_PARAM, "no such dimension, or the place to fill is NULL");
  *dimSize = found->dims[index];
  return ACL_SUCCESS;
}

ACL_API aclError aclSetTensorShapeRange(aclTensorDesc* desc, std::size_t dimsCount, std::int64_t dimsRange[][2]) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found == nullptr || dimsRange == nullptr || dimsCount > kMaxDims)
    return fail(ACL_ERROR_INVALID_PARAM, "no desc, no range, or too many dimensions");
  found->ranges.clear();
  for (std::size_t i = 0; i < dimsCount; ++i) found->ranges.push_back({dimsRange[i][0], dimsRange[i][1]});
  return ACL_SUCCESS;
}

ACL_API aclError aclGetTensorDescDimRange(const aclTensorDesc* desc, std::size_t index, std::size_t dimRangeNum,
                                          std::int64_t* dimRange) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found == nullptr || dimRange == nullptr || dimRangeNum < 2 || index >= found->ranges.size()) {
    return fail(ACL_ERROR_INVALID_PARAM, "no desc, no such dimension, or the place to fill is NULL");
  }
  dimRange[0] = found->ranges[index][0];
  dimRange[1] = found->ranges[index][1];
  return ACL_SUCCESS;
}

ACL_API void aclSetTensorDescName(aclTensorDesc* desc, const char* name) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found != nullptr) found->name = name == nullptr ? "" : name;
}

ACL_API const char* aclGetTensorDescName(aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? "" : found->name.c_str();
}

ACL_API aclTensorDesc* aclGetTensorDescByIndex(aclTensorDesc* desc, std::size_t index) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  if (found == nullptr) return nullptr;
  if (found->array.empty()) return index == 0 ? desc : nullptr;
  return index < found->array.size() ? static_cast<aclTensorDesc*>(const_cast<void*>(found->array[index])) : nullptr;
}

ACL_API void* aclGetTensorDescAddress(const aclTensorDesc* desc) {
  const std::shared_ptr<TensorDesc> found = find_desc(desc);
  return found == nullptr ? nullptr : found->address;
}
