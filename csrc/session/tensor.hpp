// A tensor that owns its memory, on the host or on a device.
//
// Copies of a Tensor object share the memory, which is freed with the last copy. On a host-visible device "on the device" is
// only a label: the bytes do not move, but the rules are those of a device with its own memory.
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

  // Returns a host tensor with uninitialised memory.
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

  // Returns a tensor with its own copy of the values, in the same place.
  Result<Tensor> copy() const;

  // Move the tensor. Do nothing if it is there already.
  Status to_device(const std::shared_ptr<device::Device>& device);
  Status to_host();

 private:
  DType dtype_;
  Shape shape_;
  device::Buffer buffer_;
  std::shared_ptr<device::Device> device_;  // null on the host
};

// Allocates host memory that is 64-byte aligned, for fast copies to devices.
Result<device::Buffer> allocate_host(std::size_t bytes);

}  // namespace ais::session
