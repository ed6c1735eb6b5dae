// A dataset and its data buffers. The memory is somebody else's.
#pragma once

#include <vector>

#include "base/tensor.hpp"
#include "device/acl/acl_api.hpp"

namespace ais::acl {

class Dataset {
 public:
  explicit Dataset(const Api& api) : api_(api) {}
  ~Dataset() { clear(); }
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  // Makes it with `count` buffers without memory.
  Status create(std::size_t count);
  // The whole of it; twice is fine. In a forked child it must not be called, or destroyed.
  void clear();

  aclmdlDataset* get() const { return set_; }
  // Points buffer `index` at memory; does nothing where it points there already.
  Status point(std::size_t index, void* data, std::size_t bytes);
  // Where buffer `index` points now: the library may have put memory of its own there.
  void* data(std::size_t index) const { return api_.aclGetDataBufferAddr(buffers_[index].handle); }
  std::size_t bytes(std::size_t index) const { return api_.aclGetDataBufferSizeV2(buffers_[index].handle); }
  std::size_t size() const { return buffers_.size(); }
  // The memory that the library put into a buffer that had none, else null.
  void* filled(std::size_t index) const { return buffers_[index].data == nullptr ? data(index) : nullptr; }
  // Makes such a buffer empty again.
  Status empty(std::size_t index);
  // Fixes the shape of tensor `index`; shapes stay until the next call.
  Status set_shape(std::size_t index, const Shape& shape);

 private:
  struct Entry {
    aclDataBuffer* handle = nullptr;
    void* data = nullptr;  // what we pointed it at
    std::size_t bytes = 0;
  };
  const Api& api_;
  aclmdlDataset* set_ = nullptr;
  std::vector<Entry> buffers_;
};

}  // namespace ais::acl
