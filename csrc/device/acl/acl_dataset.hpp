// A dataset and its data buffers. It does not own the memory.
#pragma once

#include <vector>

#include "base/tensor.hpp"
#include "device/acl/acl_api.hpp"

namespace ais::acl {

class Dataset {
 public:
  explicit Dataset(const AclApi& api) : api_(api) {}
  ~Dataset() { clear(); }
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  // Makes the dataset with `count` buffers without memory.
  Status create(std::size_t count);
  // Destroys everything. Idempotent. Must not be called in a forked child; there the object must not be destroyed, either.
  void clear();

  aclmdlDataset* get() const { return set_; }
  // Points buffer `index` at memory; does nothing if it points there already.
  Status point(std::size_t index, void* data, std::size_t bytes);
  // Returns the memory of buffer `index`, which the library may have allocated.
  void* data(std::size_t index) const { return api_.aclGetDataBufferAddr(buffers_[index].handle); }
  std::size_t bytes(std::size_t index) const { return api_.aclGetDataBufferSizeV2(buffers_[index].handle); }
  std::size_t size() const { return buffers_.size(); }
  // Returns the memory that the library allocated for a buffer without memory; otherwise null.
  void* filled(std::size_t index) const { return buffers_[index].data == nullptr ? data(index) : nullptr; }
  // Removes that memory from the buffer.
  Status empty(std::size_t index);
  // Sets the shape of tensor `index`; shapes stay until the next call.
  Status set_shape(std::size_t index, const Shape& shape);

 private:
  struct Entry {
    aclDataBuffer* handle = nullptr;
    void* data = nullptr;  // the memory that point() has set
    std::size_t bytes = 0;
  };
  const AclApi& api_;
  aclmdlDataset* set_ = nullptr;
  std::vector<Entry> buffers_;
};

}  // namespace ais::acl
