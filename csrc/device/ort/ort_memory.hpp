// The memory of a provider's device, and copies from and to it, with ONNX Runtime's allocators and copies.
//
// Only devices of plugins have it, because ONNX Runtime (1.23 and newer) offers their memory without a session. The host must
// not access this memory: its addresses are valid only for the device and for copies of the provider. The allocators belong to
// ONNX Runtime's environment, which is never released, so a buffer may be freed after all sessions.
//
// Copies are synchronous. ONNX Runtime can start a copy on a stream, but it has no call that waits for the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/process.hpp"
#include "device/device.hpp"
#include "device/ort/ort_api.hpp"
#include "device/ort/ort_cuda.hpp"
#include "device/registered.hpp"

namespace ais::ort {

class DeviceMemory {
 public:
  // kStaging is host memory that the provider allocates for copies (page-locked).
  enum class Side { kHost, kStaging, kDevice };
  struct Location {
    void* data;
    Side side;
  };

  // Null: the device has no memory of its own, ONNX Runtime does not know it, or it failed check().
  static std::shared_ptr<DeviceMemory> find(const OrtApi& api, const OrtEpDevice* device);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  const OrtMemoryInfo* info() const { return info_; }
  bool has_staging() const { return staging_ != nullptr; }

  Result<device::Buffer> allocate(std::size_t bytes) const;
  // Allocates host memory for copies: the provider's if it has some, otherwise ordinary memory. staging_side() says which.
  Result<device::Buffer> allocate_staging(std::size_t bytes) const;
  Side staging_side() const { return has_staging() ? Side::kStaging : Side::kHost; }

  // Registers host memory, so that the device copies from and to it directly. Unsupported: only CUDA can, see ort_cuda.hpp.
  Status register_host(void* host, std::size_t bytes);
  Status unregister_host(void* host);
  // Returns whether all of it is in one registered range.
  bool is_registered(const void* host, std::size_t bytes) const;
  // Returns how slots are copied, for device::Device::host_memory. The first call tries to register a page.
  std::string host_memory();

  // Copies. The ranges must not overlap, and at least one of them must be on the device.
  Status copy(Location to, Location from, std::size_t bytes) const;

 private:
  DeviceMemory(const OrtApi& api, const OrtMemoryInfo* info, OrtAllocator* allocator)
      : api_(api), info_(info), allocator_(allocator) {}

  Result<device::Buffer> take(OrtAllocator* from, std::size_t bytes, const char* what) const;
  Result<OrtValue*> wrap(Location location, std::size_t bytes) const;
  Status here() const;  // ForkedChild in a child of the process that opened the device
  Status try_registering();
  // Allocates, copies in and out, and compares.
  Status check() const;

  const OrtApi& api_;
  const OrtMemoryInfo* const info_;  // belongs to the environment, as the allocators do
  OrtAllocator* const allocator_;
  const OrtMemoryInfo* staging_info_ = nullptr;
  OrtAllocator* staging_ = nullptr;
  std::unique_ptr<CudaHost> cuda_;  // null: host memory cannot be registered
  const std::uint64_t generation_ = fork_generation();
  mutable std::mutex lock_;
  device::Registered registered_;  // guarded by lock_, like the next member
  std::string host_memory_;        // "": nothing was tried yet
};

}  // namespace ais::ort
