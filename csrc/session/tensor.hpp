// A tensor with memory of its own, on the host or on a device.
//
// Copies of a Tensor object share the memory; it is freed with the last of them. On a host-visible device "on the device" is a
// label: the bytes stay where they are, but the same rules hold as on a discrete one.
#pragma once

#include <memory>

#include "base/status.hpp"
#include "base/tensor.hpp"
#include "device/device.hpp"

namespace ais::session {

class Tensor {
 public:
  Tensor(DType dtype, Shape shape, device::Buffer buffer, std::shared_ptr<device::Device> device)
      : dtype_(dtype), shape_(std::move(shape)), buffer_(std::move(buffer)), device_(std::move(device)) {}

  // A host tensor with uninitialised memory.
  static Result<Tensor> on_host(DType dtype, Shape shape);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::size_t bytes() const { return buffer_.bytes; }
  const device::Buffer& buffer() const { return buffer_; }
  void* data() const { return buffer_.data.get(); }
  bool is_on_host() const { return device_ == nullptr; }
  int device_id() const { return device_ == nullptr ? -1 : device_->id(); }
  const std::shared_ptr<device::Device>& device() const { return device_; }
  TensorView view() const { return {data(), bytes(), dtype_, shape_}; }

  // The same values in memory of their own, in the same place.
  Result<Tensor> copy() const;

  // Both do nothing when the tensor is there already.
  Status to_device(const std::shared_ptr<device::Device>& device);
  Status to_host();

 private:
  DType dtype_;
  Shape shape_;
  device::Buffer buffer_;
  std::shared_ptr<device::Device> device_;  // null on the host
};

// Host memory as the devices' copies like it: 64-byte aligned.
Result<device::Buffer> allocate_host(std::size_t bytes);

}  // namespace ais::session
