// Memory of a provider's device, and copies from and to it, by ONNX Runtime's own allocators and copies.
//
// Only a plugin's device has it: ONNX Runtime knows its memory without a session, since 1.23. The host must not touch this
// memory; it is an address that only the device and the provider's copies can use. The allocators belong to ONNX Runtime's
// environment, which is never released, so a buffer may be freed after every session is gone.
//
// Copies are synchronous: ONNX Runtime can start one on a stream, but it has no call that waits for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

class DeviceMemory {
 public:
  // Whether memory is the device's, the host's, or host memory that the provider handed out for copies (page-locked).
  enum class Place { kHost, kStaging, kDevice };
  struct Span {
    void* data;
    Place place;
  };

  // Null: the device has no memory of its own, or ONNX Runtime does not know it.
  static std::shared_ptr<DeviceMemory> find(const Api& api, const OrtEpDevice* device);

  const OrtMemoryInfo* info() const { return info_; }
  bool has_staging() const { return staging_ != nullptr; }

  Result<device::Buffer> allocate(std::size_t bytes) const;
  // Host memory for copies: the provider's if it has some, otherwise ordinary memory; `place` says which.
  Result<device::Buffer> allocate_staging(std::size_t bytes) const;
  Place staging_place() const { return has_staging() ? Place::kStaging : Place::kHost; }

  // The two do not overlap, and at least one is not on the host.
  Status copy(Span to, Span from, std::size_t bytes) const;

 private:
  DeviceMemory(const Api& api, const OrtMemoryInfo* info, OrtAllocator* allocator)
      : api_(api), info_(info), allocator_(allocator) {}

  Result<device::Buffer> take(OrtAllocator* from, std::size_t bytes, const char* what) const;
  Result<OrtValue*> wrap(Span span, std::size_t bytes) const;

  const Api& api_;
  const OrtMemoryInfo* const info_;  // the environment's, as the allocators
  OrtAllocator* const allocator_;
  const OrtMemoryInfo* staging_info_ = nullptr;
  OrtAllocator* staging_ = nullptr;
};

}  // namespace ais::ort
