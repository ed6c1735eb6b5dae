// AscendCL: element types, data buffers, datasets. These functions need no device.
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/float16.hpp"
#include "emulator/objects.hpp"
#include "emulator/report.hpp"

using namespace ais::emulator;

namespace {

std::shared_ptr<DataBuffer> find_buffer(const aclDataBuffer* handle) {
  std::shared_ptr<DataBuffer> found = objects().buffers.find(handle);
  if (found == nullptr)
    fail(ACL_ERROR_INVALID_PARAM,
         handle == nullptr ? "the data buffer is NULL" : "not a living data buffer (destroyed before?)");
  return found;
}

std::shared_ptr<Dataset> find_dataset(const aclmdlDataset* handle) {
  std::shared_ptr<Dataset> found = objects().datasets.find(handle);
  if (found == nullptr)
    fail(ACL_ERROR_INVALID_PARAM, handle == nullptr ? "the dataset is NULL" : "not a living dataset (destroyed before?)");
  return found;
}

aclError set_dataset_desc(aclmdlDataset* dataset, const aclTensorDesc* tensorDesc, std::size_t index) {
  const std::shared_ptr<Dataset> set = find_dataset(dataset);
  if (set == nullptr) return ACL_ERROR_INVALID_PARAM;
  if (index >= set->buffers.size()) {
    return fail(ACL_ERROR_INVALID_PARAM,
                "index " + std::to_string(index) + ", the dataset has " + std::to_string(set->buffers.size()) + " buffers");
  }
  std::shared_ptr<TensorDesc> copy;
  if (tensorDesc != nullptr) {
    const std::shared_ptr<TensorDesc> given = find_desc(tensorDesc);
    if (given == nullptr) return ACL_ERROR_INVALID_PARAM;
    copy = std::make_shared<TensorDesc>(*given);
  }
  replace_desc(set.get(), index, std::move(copy));
  return ACL_SUCCESS;
}

aclError destroy_dataset(const aclmdlDataset* dataset) {
  const std::shared_ptr<Dataset> set = find_dataset(dataset);
  if (set == nullptr) return ACL_ERROR_INVALID_PARAM;
  if (set->in_flight > 0) violation(handle_name(dataset) + " was destroyed while an asynchronous execution uses it");
  for (std::size_t i = 0; i < set->descs.size(); ++i) replace_desc(set.get(), i, nullptr);
  objects().datasets.take(dataset);
  return ACL_SUCCESS;
}

std::size_t buffer_size(const aclDataBuffer* dataBuffer) {
  const std::shared_ptr<DataBuffer> buffer = find_buffer(dataBuffer);
  return buffer == nullptr ? 0 : buffer->size;
}

}  // namespace

ACL_API std::size_t aclDataTypeSize(aclDataType dataType) { return dtype_bytes(dataType); }

// Infinities and NaN are not kept, as in the real library.
ACL_API float aclFloat16ToFloat(aclFloat16 value) {
  if ((value & 0x7C00) != 0x7C00) return half_to_float(value);
  return (value & 0x3FF) != 0 ? 98304.0F : (value & 0x8000) != 0 ? -65536.0F : 65536.0F;
}

ACL_API aclFloat16 aclFloatToFloat16(float value) {
  const std::uint16_t half = float_to_half(value);
  if ((half & 0x7C00) != 0x7C00) return half;
  const bool nan = (half & 0x3FF) != 0;
  return static_cast<aclFloat16>(nan ? 0x7BFF : (half & 0x8000) | 0x7BFF);
}

ACL_API aclDataBuffer* aclCreateDataBuffer(void* data, std::size_t size) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<aclDataBuffer*>(nullptr),
      [&](const Scope&) {
        auto buffer = std::make_shared<DataBuffer>();
        buffer->data = data;
        buffer->size = size;
        return static_cast<aclDataBuffer*>(objects().buffers.add(std::move(buffer)));
      },
      data, size);
}

ACL_API aclError aclDestroyDataBuffer(const aclDataBuffer* dataBuffer) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<DataBuffer> buffer = find_buffer(dataBuffer);
        if (buffer == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        if (buffer->in_flight > 0)
          violation(handle_name(dataBuffer) + " was destroyed while an asynchronous execution uses it");
        objects().buffers.take(dataBuffer);
        return aclError{ACL_SUCCESS};
      },
      dataBuffer);
}

ACL_API aclError aclUpdateDataBuffer(aclDataBuffer* dataBuffer, void* data, std::size_t size) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<DataBuffer> buffer = find_buffer(dataBuffer);
        if (buffer == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        if (buffer->in_flight > 0) violation(handle_name(dataBuffer) + " was changed while an asynchronous execution uses it");
        buffer->data = data;
        buffer->size = size;
        return aclError{ACL_SUCCESS};
      },
      dataBuffer, data, size);
}

ACL_API void* aclGetDataBufferAddr(const aclDataBuffer* dataBuffer) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<void*>(nullptr),
      [&](const Scope&) {
        const std::shared_ptr<DataBuffer> buffer = find_buffer(dataBuffer);
        return buffer == nullptr ? nullptr : buffer->data;
      },
      dataBuffer);
}

ACL_API std::size_t aclGetDataBufferSizeV2(const aclDataBuffer* dataBuffer) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(std::size_t{0}, [&](const Scope&) { return buffer_size(dataBuffer); }, dataBuffer);
}

ACL_API std::uint32_t aclGetDataBufferSize(const aclDataBuffer* dataBuffer) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::uint32_t{0}, [&](const Scope&) { return static_cast<std::uint32_t>(buffer_size(dataBuffer)); }, dataBuffer);
}

ACL_API aclmdlDataset* aclmdlCreateDataset() {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(static_cast<aclmdlDataset*>(nullptr), [&](const Scope&) {
    return static_cast<aclmdlDataset*>(objects().datasets.add(std::make_shared<Dataset>()));
  });
}

ACL_API aclError aclmdlDestroyDataset(const aclmdlDataset* dataset) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return destroy_dataset(dataset); }, dataset);
}

ACL_API aclError aclmdlAddDatasetBuffer(aclmdlDataset* dataset, aclDataBuffer* dataBuffer) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        const std::shared_ptr<Dataset> set = find_dataset(dataset);
        if (set == nullptr || find_buffer(dataBuffer) == nullptr) return aclError{ACL_ERROR_INVALID_PARAM};
        set->buffers.push_back(dataBuffer);
        set->descs.push_back(nullptr);
        set->aipp_set.push_back(false);
        return aclError{ACL_SUCCESS};
      },
      dataset, dataBuffer);
}

ACL_API std::size_t aclmdlGetDatasetNumBuffers(const aclmdlDataset* dataset) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      std::size_t{0},
      [&](const Scope&) {
        const std::shared_ptr<Dataset> set = find_dataset(dataset);
        return set == nullptr ? 0 : set->buffers.size();
      },
      dataset);
}

ACL_API aclDataBuffer* aclmdlGetDatasetBuffer(const aclmdlDataset* dataset, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<aclDataBuffer*>(nullptr),
      [&](const Scope&) {
        const std::shared_ptr<Dataset> set = find_dataset(dataset);
        return set == nullptr || index >= set->buffers.size() ? nullptr : set->buffers[index];
      },
      dataset, index);
}

ACL_API aclError aclmdlSetDatasetTensorDesc(aclmdlDataset* dataset, aclTensorDesc* tensorDesc, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return set_dataset_desc(dataset, tensorDesc, index); }, dataset, tensorDesc, index);
}

ACL_API aclTensorDesc* aclmdlGetDatasetTensorDesc(const aclmdlDataset* dataset, std::size_t index) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<aclTensorDesc*>(nullptr),
      [&](const Scope&) {
        const std::shared_ptr<Dataset> set = find_dataset(dataset);
        return set == nullptr || index >= set->descs.size() ? nullptr : set->descs[index];
      },
      dataset, index);
}
