// Allocators of the environment, and copies by the provider's library.
#include "device/ort/ort_memory.hpp"

#include <string>
#include <utility>

#include "base/process.hpp"

namespace ais::ort {
namespace {

constexpr int kDeviceMemory = 0;          // OrtDeviceMemoryType
constexpr int kHostAccessibleMemory = 5;  // the same
constexpr int kDeviceAllocator = 0;       // OrtAllocatorType
constexpr int kUInt8 = 2;                 // ONNXTensorElementDataType

// The environment's allocator for memory of a device; null: there is none, and the provider copies as a part of a run.
OrtAllocator* shared_allocator(const Api& api, const OrtEpDevice* device, const OrtMemoryInfo* info, int type) {
  OrtAllocator* found = nullptr;
  if (api.check(api.GetSharedAllocator(api.env, info, &found), Code::kUnavailable).ok() && found != nullptr) return found;
  found = nullptr;
  const Status made =
      api.check(api.CreateSharedAllocator(api.env, device, type, kDeviceAllocator, nullptr, &found), Code::kUnavailable);
  return made.ok() ? found : nullptr;
}

}  // namespace

std::shared_ptr<DeviceMemory> DeviceMemory::find(const Api& api, const OrtEpDevice* device) {
  if (api.EpDevice_MemoryInfo == nullptr || api.CopyTensors == nullptr) return nullptr;
  const OrtMemoryInfo* const info = api.EpDevice_MemoryInfo(device, kDeviceMemory);
  if (info == nullptr) return nullptr;
  OrtAllocator* const allocator = shared_allocator(api, device, info, kDeviceMemory);
  if (allocator == nullptr) return nullptr;
  auto memory = std::shared_ptr<DeviceMemory>(new DeviceMemory(api, info, allocator));
  memory->staging_info_ = api.EpDevice_MemoryInfo(device, kHostAccessibleMemory);
  if (memory->staging_info_ != nullptr) {
    memory->staging_ = shared_allocator(api, device, memory->staging_info_, kHostAccessibleMemory);
  }
  return memory;
}

Result<device::Buffer> DeviceMemory::take(OrtAllocator* from, std::size_t bytes, const char* what) const {
  void* data = nullptr;
  Status status = api_.check(api_.AllocatorAlloc(from, bytes == 0 ? 1 : bytes, &data), Code::kOutOfMemory);
  if (!status.ok() || data == nullptr) {
    return Status(Code::kOutOfMemory, std::string(what) + " has no " + std::to_string(bytes) + " bytes of memory left" +
                                          (status.ok() ? "" : ": " + status.message()));
  }
  const std::uint64_t generation = fork_generation();
  return device::Buffer{std::shared_ptr<void>(data,
                                              [&api = api_, from, generation](void* held) {
                                                if (generation != fork_generation()) return;  // the parent's
                                                static_cast<void>(api.check(api.AllocatorFree(from, held), Code::kSystem));
                                              }),
                        bytes};
}

Result<device::Buffer> DeviceMemory::allocate(std::size_t bytes) const { return take(allocator_, bytes, "the device"); }

Result<device::Buffer> DeviceMemory::allocate_staging(std::size_t bytes) const {
  return take(has_staging() ? staging_ : api_.allocator, bytes, "the host");
}

Result<OrtValue*> DeviceMemory::wrap(Span span, std::size_t bytes) const {
  const OrtMemoryInfo* const info = span.place == Place::kDevice    ? info_
                                    : span.place == Place::kStaging ? staging_info_
                                                                    : api_.cpu_memory;
  const auto size = static_cast<std::int64_t>(bytes);
  OrtValue* value = nullptr;
  AIS_TRY(api_.check(api_.CreateTensorWithDataAsOrtValue(info, span.data, bytes, &size, 1, kUInt8, &value), Code::kExecution));
  return value;
}

Status DeviceMemory::copy(Span to, Span from, std::size_t bytes) const {
  if (bytes == 0) return Status();
  AIS_ASSIGN(OrtValue * source, wrap(from, bytes));
  Result<OrtValue*> target = wrap(to, bytes);
  if (!target.ok()) {
    api_.ReleaseValue(source);
    return target.take_status();
  }
  OrtValue* const out = target.value();
  Status status = api_.check(api_.CopyTensors(api_.env, &source, &out, nullptr, 1), Code::kExecution);
  api_.ReleaseValue(source);
  api_.ReleaseValue(out);
  return status;
}

}  // namespace ais::ort
