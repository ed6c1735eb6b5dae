// A dataset has three levels, which are freed separately: the memory (not owned), the buffers, the dataset.
#include "device/acl/acl_dataset.hpp"

namespace ais::acl {

Status Dataset::create(std::size_t count) {
  set_ = api_.aclmdlCreateDataset();
  if (set_ == nullptr) return api_.failed("aclmdlCreateDataset", Code::kOutOfMemory);
  for (std::size_t i = 0; i < count; ++i) {
    aclDataBuffer* buffer = api_.aclCreateDataBuffer(nullptr, 0);
    if (buffer == nullptr) return api_.failed("aclCreateDataBuffer", Code::kOutOfMemory);
    buffers_.push_back({buffer, nullptr, 0});
    AIS_TRY(ACL_CALL(api_, aclmdlAddDatasetBuffer, set_, buffer));
  }
  return Status();
}

void Dataset::clear() {
  if (set_ != nullptr) ACL_RELEASE(api_, aclmdlDestroyDataset, set_);
  set_ = nullptr;
  for (const Entry& entry : buffers_) ACL_RELEASE(api_, aclDestroyDataBuffer, entry.handle);
  buffers_.clear();
}

Status Dataset::point(std::size_t index, void* data, std::size_t bytes) {
  Entry& entry = buffers_[index];
  if (entry.data == data && entry.bytes == bytes) return Status();
  AIS_TRY(ACL_CALL(api_, aclUpdateDataBuffer, entry.handle, data, bytes));
  entry.data = data;
  entry.bytes = bytes;
  return Status();
}

Status Dataset::empty(std::size_t index) {
  Entry& entry = buffers_[index];
  // If the update fails, the next point() must know where the buffer points.
  entry.data = data(index);
  entry.bytes = bytes(index);
  return point(index, nullptr, 0);
}

Status Dataset::set_shape(std::size_t index, const Shape& shape) {
  aclTensorDesc* desc = api_.aclCreateTensorDesc(kFloat, static_cast<int>(shape.size()), shape.data(), kFormatNd);
  if (desc == nullptr) return api_.failed("aclCreateTensorDesc");
  Status status = ACL_CALL(api_, aclmdlSetDatasetTensorDesc, set_, desc, index);
  api_.aclDestroyTensorDesc(desc);  // the dataset has a copy
  return status;
}

}  // namespace ais::acl
