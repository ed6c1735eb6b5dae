// Moves a tensor between host and device, and times each copy.
#include "session/tensor.hpp"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "session/timings.hpp"

namespace ais::session {

Result<device::Buffer> allocate_host(std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  const std::size_t rounded = (bytes + kLine) / kLine * kLine;
  void* data = rounded < bytes ? nullptr : std::aligned_alloc(kLine, rounded);
  if (data == nullptr) return Status(Code::kOutOfMemory, "the host has no " + std::to_string(bytes) + " bytes of memory left");
  return device::Buffer{std::shared_ptr<void>(data, std::free), bytes};
}

Result<Tensor> Tensor::on_host(DType dtype, Shape shape) {
  std::size_t elements = 0;
  if (!count_elements(shape, &elements)) return Status(Code::kInvalidArgument, "shape " + shape_text(shape) + " is too large");
  AIS_ASSIGN(device::Buffer buffer, allocate_host(packed_bytes(dtype, elements)));
  return Tensor(dtype, std::move(shape), std::move(buffer), nullptr);
}

Result<Tensor> Tensor::copy() const {
  if (device_ == nullptr) {
    AIS_ASSIGN(device::Buffer buffer, allocate_host(buffer_.bytes));
    if (buffer_.bytes != 0) std::memcpy(buffer.data.get(), buffer_.data.get(), buffer_.bytes);
    return Tensor(dtype_, shape_, std::move(buffer), nullptr);
  }
  AIS_ASSIGN(device::Buffer buffer, device_->allocate(buffer_.bytes));
  AIS_TRY(device_->copy_on_device(buffer.data.get(), buffer_.data.get(), buffer_.bytes));
  return Tensor(dtype_, shape_, std::move(buffer), device_);
}

Status Tensor::to_device(const std::shared_ptr<device::Device>& device) {
  if (device_ != nullptr && device::same_device(*device_, *device)) return Status();
  if (device_ != nullptr) AIS_TRY(to_host());  // from another device: through the host
  const CopyTimer timer(&memory_times().to_device);
  if (!device->host_visible()) {
    AIS_ASSIGN(device::Buffer buffer, device->allocate(buffer_.bytes));
    AIS_TRY(device->copy_to_device(buffer.data.get(), buffer_.data.get(), buffer_.bytes));
    buffer_ = std::move(buffer);
  }
  device_ = device;
  return Status();
}

Status Tensor::to_host() {
  if (device_ == nullptr) return Status();
  const CopyTimer timer(&memory_times().to_host);
  if (!device_->host_visible()) {
    AIS_ASSIGN(device::Buffer buffer, allocate_host(buffer_.bytes));
    AIS_TRY(device_->copy_to_host(buffer.data.get(), buffer_.data.get(), buffer_.bytes));
    buffer_ = std::move(buffer);
  }
  device_ = nullptr;
  return Status();
}

}  // namespace ais::session
