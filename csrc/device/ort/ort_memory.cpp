// Allocators of the environment, and copies by the provider's library.
#include "device/ort/ort_memory.hpp"

#include <string>
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "base/process.hpp"

namespace ais::ort {
namespace {

constexpr int kDeviceMemory = 0;          // OrtDeviceMemoryType
constexpr int kHostAccessibleMemory = 5;  // the same
constexpr int kDeviceAllocator = 0;       // OrtAllocatorType
constexpr int kUInt8 = 2;                 // ONNXTensorElementDataType

// Returns the environment's allocator for memory of a device. Null: there is none, and the provider copies as a part of a run.
OrtAllocator* shared_allocator(const OrtApi& api, const OrtEpDevice* device, const OrtMemoryInfo* info, int type) {
  OrtAllocator* found = nullptr;
  if (api.check(api.GetSharedAllocator(api.env, info, &found), Code::kUnavailable).ok() && found != nullptr) return found;
  found = nullptr;
  const Status made =
      api.check(api.CreateSharedAllocator(api.env, device, type, kDeviceAllocator, nullptr, &found), Code::kUnavailable);
  return made.ok() ? found : nullptr;
}

}  // namespace

std::shared_ptr<DeviceMemory> DeviceMemory::find(const OrtApi& api, const OrtEpDevice* device) {
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
  int id = 0;
  if (api.check(api.MemoryInfoGetId(info, &id), Code::kUnavailable).ok()) {
    memory->cuda_ = CudaHost::find(api.EpDevice_EpName(device), id);
  }
  // A provider may offer memory that it cannot copy to, or not from here. Then it copies as a part of a run.
  return memory->check().ok() ? memory : nullptr;
}

DeviceMemory::~DeviceMemory() {
  if (generation_ != fork_generation()) return;  // the parent's
  for (const auto& [address, bytes] : registered_) {
    static_cast<void>(cuda_->unregister_memory(reinterpret_cast<void*>(address)));
  }
}

Status DeviceMemory::register_host(void* host, std::size_t bytes) {
  if (cuda_ == nullptr) return Status(Code::kUnsupported, "ONNX Runtime has no call that registers host memory with a device");
  AIS_TRY(here());
  Status status = cuda_->register_memory(host, bytes);
  const std::lock_guard<std::mutex> guard(lock_);
  if (status.ok()) {
    registered_[reinterpret_cast<std::uintptr_t>(host)] = bytes;
  } else {
    const char* const some = registered_.empty() ? "" : "registered, and for more ";
    const char* const rest = has_staging() ? "page-locked memory of the provider: " : "ordinary memory: ";
    host_memory_ = some + (rest + status.message());
  }
  return status;
}

Status DeviceMemory::unregister_host(void* host) {
  AIS_TRY(here());
  const auto address = reinterpret_cast<std::uintptr_t>(host);
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (registered_.erase(address) == 0) return Status(Code::kInvalidArgument, "this memory was not registered here");
  }
  return cuda_->unregister_memory(host);
}

bool DeviceMemory::is_registered(const void* host, std::size_t bytes) const {
  if (cuda_ == nullptr) return false;
  const std::lock_guard<std::mutex> guard(lock_);
  return device::is_in_one_range(registered_, host, bytes);
}

Status DeviceMemory::try_registering() {
  return with_one_page([this](void* page, std::size_t bytes) {
    AIS_TRY(register_host(page, bytes));
    return unregister_host(page);
  });
}

std::string DeviceMemory::host_memory() {
  if (cuda_ == nullptr) {
    return has_staging() ? "page-locked memory of the provider: ONNX Runtime cannot register slots"
                         : "ordinary memory: the provider has none that is page-locked, and ONNX Runtime cannot register slots";
  }
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!host_memory_.empty()) return host_memory_;
  }
  const Status status = try_registering();
  const std::lock_guard<std::mutex> guard(lock_);
  if (host_memory_.empty()) host_memory_ = status.ok() ? "registered" : "not registered: " + status.message();
  return host_memory_;
}

Status DeviceMemory::check() const {
  std::vector<unsigned char> sent(64);
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<unsigned char>(3 * i + 1);
  std::vector<unsigned char> received(sent.size());
  AIS_ASSIGN(const device::Buffer buffer, allocate(sent.size()));
  AIS_TRY(copy({buffer.data.get(), Side::kDevice}, {sent.data(), Side::kHost}, sent.size()));
  AIS_TRY(copy({received.data(), Side::kHost}, {buffer.data.get(), Side::kDevice}, sent.size()));
  return sent == received ? Status() : Status(Code::kUnavailable, "what was copied to the device came back changed");
}

Status DeviceMemory::here() const {
  if (generation_ == fork_generation()) return Status();
  return Status(Code::kForkedChild,
                "this memory belongs to the process that this one was forked from; devices do not survive a fork");
}

Result<device::Buffer> DeviceMemory::take(OrtAllocator* from, std::size_t bytes, const char* what) const {
  AIS_TRY(here());
  void* data = nullptr;
  Status status = api_.check(api_.AllocatorAlloc(from, bytes == 0 ? 1 : bytes, &data), Code::kOutOfMemory);
  if (!status.ok() || data == nullptr) {
    return Status(Code::kOutOfMemory, std::string(what) + " has no " + std::to_string(bytes) + " bytes of memory left" +
                                          (status.ok() ? "" : ": " + status.message()));
  }
  const std::uint64_t generation = generation_;
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

Result<OrtValue*> DeviceMemory::wrap(Location location, std::size_t bytes) const {
  const OrtMemoryInfo* const info = location.side == Side::kDevice    ? info_
                                    : location.side == Side::kStaging ? staging_info_
                                                                      : api_.cpu_memory;
  const auto size = static_cast<std::int64_t>(bytes);
  OrtValue* value = nullptr;
  AIS_TRY(
      api_.check(api_.CreateTensorWithDataAsOrtValue(info, location.data, bytes, &size, 1, kUInt8, &value), Code::kExecution));
  return value;
}

Status DeviceMemory::copy(Location to, Location from, std::size_t bytes) const {
  if (bytes == 0) return Status();
  AIS_TRY(here());
  if (cuda_ != nullptr) AIS_TRY(cuda_->enter());
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
