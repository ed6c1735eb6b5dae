// Maps, finds and frees memory; see memory.hpp for the two addresses.
#include "emulator/memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "emulator/error.hpp"
#include "emulator/handles.hpp"
#include "emulator/report.hpp"
#include "emulator/settings.hpp"

namespace ais::emulator {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kQuarantine = 4096;
constexpr std::size_t kFillBytes = std::size_t{64} << 20;
constexpr std::size_t kLargest = std::size_t{1} << 46;
constexpr int kPattern = 0xCD;

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

std::byte* map_pages(std::size_t bytes, int protection) {
  void* address = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return address == MAP_FAILED ? nullptr : static_cast<std::byte*>(address);
}

// Maps readable pages with a pattern. They are unmapped with the last reference.
std::shared_ptr<std::byte> map_storage(std::size_t size) {
  const std::size_t bytes = round_up(size, kPage);
  std::byte* address = map_pages(bytes, PROT_READ | PROT_WRITE);
  if (address == nullptr) return nullptr;
  std::memset(address, kPattern, std::min(size, kFillBytes));
  return std::shared_ptr<std::byte>(address, [bytes](std::byte* pages) { munmap(pages, bytes); });
}

const char* kind_text(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kDevice:
      return "device memory";
    case MemoryKind::kDvpp:
      return "media memory";
    case MemoryKind::kPinned:
      return "pinned host memory";
    case MemoryKind::kRegistered:
      return "registered host memory";
    case MemoryKind::kMapped:
      return "mapped host memory";
    case MemoryKind::kPageable:
      return "host memory";
  }
  return "";
}

std::string allocation_name(const Allocation& allocation) {
  std::string name = kind_text(allocation.kind);
  if (allocation.device >= 0) name += " of device " + std::to_string(allocation.device);
  return name + " #" + std::to_string(allocation.id) + " (" + std::to_string(allocation.size) + " bytes)";
}

}  // namespace

struct Memory::State {
  std::mutex mutex;
  std::map<const std::byte*, std::shared_ptr<Allocation>> by_address;  // also freed ones that are in quarantine
  std::deque<std::shared_ptr<Allocation>> quarantine;
  std::map<MemoryKind, std::uint64_t> last_id;
  std::map<int, std::size_t> used;

  bool has_room(int device, std::size_t bytes) {
    const std::size_t capacity = settings().devices[static_cast<std::size_t>(device)].memory_bytes;
    return bytes <= capacity && used[device] <= capacity - bytes;
  }

  // Makes the program's address inaccessible, and frees the bytes, at once or with the last task that uses them.
  void retire(const std::shared_ptr<Allocation>& allocation) {
    allocation->freed = true;
    if (allocation->on_device()) used[allocation->device] -= allocation->charged;
    const bool separate = allocation->storage.get() != allocation->address;
    allocation->storage.reset();
    if (!separate || allocation->kind == MemoryKind::kRegistered || allocation->reserved == 0) {
      by_address.erase(allocation->address);
      return;
    }
    quarantine.push_back(allocation);
    if (quarantine.size() <= kQuarantine) return;
    const std::shared_ptr<Allocation> oldest = quarantine.front();
    quarantine.pop_front();
    by_address.erase(oldest->address);
    munmap(oldest->address, oldest->reserved);
  }
};

Memory& memory() {
  static auto* const instance = new Memory;
  return *instance;
}

Memory::Memory() : state_(new State) {}

aclError Memory::insert(std::shared_ptr<Allocation> allocation) {
  allocation->id = ++state_->last_id[allocation->kind];
  state_->by_address.emplace(allocation->address, std::move(allocation));
  return ACL_SUCCESS;
}

// Returns the allocation whose bytes or inaccessible page contain `address`. The caller holds the mutex.
std::shared_ptr<Allocation> Memory::containing(const void* address) const {
  const auto* wanted = static_cast<const std::byte*>(address);
  auto next = state_->by_address.upper_bound(wanted);
  if (next == state_->by_address.begin()) return nullptr;
  const std::shared_ptr<Allocation>& found = std::prev(next)->second;
  const std::size_t extent = std::max(found->reserved, found->size);
  return wanted < found->address + extent ? found : nullptr;
}

aclError Memory::allocate_device(int device, MemoryKind kind, std::size_t size, std::size_t charged, void** out) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (size > kLargest || !state_->has_room(device, charged)) {
    return fail(ACL_ERROR_RT_MEMORY_ALLOCATION,
                "device " + std::to_string(device) + " has no room for " + std::to_string(size) + " bytes; " +
                    std::to_string(state_->used[device]) + " of " +
                    std::to_string(settings().devices[static_cast<std::size_t>(device)].memory_bytes) + " are in use");
  }
  auto allocation = std::make_shared<Allocation>();
  allocation->kind = kind;
  allocation->device = device;
  allocation->size = size;
  allocation->charged = charged;
  allocation->storage = map_storage(charged);
  if (allocation->storage != nullptr && !settings().host_is_device) {
    allocation->reserved = round_up(charged, kPage) + kPage;
    allocation->address = map_pages(allocation->reserved, PROT_NONE);
  } else {
    allocation->address = allocation->storage.get();
  }
  if (allocation->address == nullptr) return fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "the host has no address space left");
  *out = allocation->address;
  state_->used[device] += charged;
  return insert(std::move(allocation));
}

aclError Memory::allocate_pinned(int device, std::size_t size, void** out) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  auto allocation = std::make_shared<Allocation>();
  allocation->kind = MemoryKind::kPinned;
  allocation->device = device;
  allocation->size = size;
  allocation->charged = size;
  allocation->storage = size > kLargest ? nullptr : map_storage(size);
  if (allocation->storage == nullptr) {
    return fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "the host has no room for " + std::to_string(size) + " bytes of pinned memory");
  }
  allocation->address = allocation->storage.get();
  *out = allocation->address;
  return insert(std::move(allocation));
}

aclError Memory::release(void* address, MemoryKind kind) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::shared_ptr<Allocation> found = containing(address);
  const std::string wanted = std::string("not ") + kind_text(kind);
  if (found == nullptr) return fail(ACL_ERROR_INVALID_PARAM, wanted + ": the address belongs to no allocation");
  if (found->freed) return fail(ACL_ERROR_INVALID_PARAM, allocation_name(*found) + " was freed before (double free)");
  if (found->kind != kind) return fail(ACL_ERROR_INVALID_PARAM, wanted + ": the address is " + allocation_name(*found));
  if (found->address != address) {
    return fail(ACL_ERROR_INVALID_PARAM, "the address lies inside " + allocation_name(*found) + ", not at its start");
  }
  if (found->storage.use_count() > 1) {
    violation(allocation_name(*found) + " was freed while a stream's work still uses it; a free does not wait");
  }
  state_->retire(found);
  return ACL_SUCCESS;
}

aclError Memory::register_host(void* address, std::size_t size, bool map, int device, void** mapped) {
  if (reinterpret_cast<std::uintptr_t>(address) % kPage != 0) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, "host memory to register must begin at a multiple of 4096");
  }
  if (msync(address, round_up(size, kPage), MS_ASYNC) != 0) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, "the host memory to register is not mapped in this process");
  }
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto* begin = static_cast<const std::byte*>(address);
  for (const auto& entry : state_->by_address) {
    const Allocation& other = *entry.second;
    if (other.freed || other.address >= begin + size || other.address + other.size <= begin) continue;
    return fail(ACL_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "the range overlaps " + allocation_name(other));
  }
  auto host = std::make_shared<Allocation>();
  host->kind = MemoryKind::kRegistered;
  host->device = device;
  host->address = static_cast<std::byte*>(address);
  host->size = size;
  host->storage = std::shared_ptr<std::byte>(host->address, [](std::byte*) {});  // it belongs to the program
  if (map) {
    auto alias = std::make_shared<Allocation>();
    alias->kind = MemoryKind::kMapped;
    alias->device = device;
    alias->size = size;
    alias->reserved = round_up(size, kPage) + kPage;
    alias->address = map_pages(alias->reserved, PROT_NONE);
    if (alias->address == nullptr) return fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "the host has no address space left");
    alias->storage = host->storage;
    if (mapped != nullptr) *mapped = alias->address;
    insert(std::move(alias));
  }
  return insert(std::move(host));
}

aclError Memory::unregister_host(void* address) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::shared_ptr<Allocation> found = containing(address);
  if (found == nullptr || found->kind != MemoryKind::kRegistered || found->address != address) {
    return fail(ACL_ERROR_HOST_MEMORY_NOT_REGISTERED, "no registered host memory begins at this address");
  }
  for (const auto& entry : state_->by_address) {
    const std::shared_ptr<Allocation> alias = entry.second;
    if (alias->kind != MemoryKind::kMapped || alias->freed || alias->storage != found->storage) continue;
    state_->retire(alias);
    break;
  }
  if (found->storage.use_count() > 1)
    violation(allocation_name(*found) + " was unregistered while a stream's work still uses it");
  state_->retire(found);
  return ACL_SUCCESS;
}

void* Memory::mapped_address(const void* host) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::shared_ptr<Allocation> found = containing(host);
  if (found == nullptr || found->kind != MemoryKind::kRegistered) return nullptr;
  for (const auto& entry : state_->by_address) {
    const Allocation& alias = *entry.second;
    if (alias.kind != MemoryKind::kMapped || alias.freed || alias.storage != found->storage) continue;
    return alias.address + (static_cast<const std::byte*>(host) - found->address);
  }
  return nullptr;
}

aclError Memory::resolve(const void* address, std::size_t size, const char* what, Range* out) const {
  if (!handle_name(address).empty()) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, std::string(what) + " is " + handle_name(address) + ", not memory");
  }
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::shared_ptr<Allocation> found = containing(address);
  if (found == nullptr) {
    *out = Range();
    out->bytes = static_cast<std::byte*>(const_cast<void*>(address));
    out->available = SIZE_MAX;
    return ACL_SUCCESS;
  }
  if (found->freed) {
    return fail(ACL_ERROR_RT_PARAM_INVALID,
                std::string(what) + " lies in " + allocation_name(*found) + ", which was freed (use after free)");
  }
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - found->address);
  if (offset > found->size || size > found->size - offset) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, std::string(what) + ": " + std::to_string(size) + " bytes at offset " +
                                                std::to_string(offset) + " go beyond the end of " + allocation_name(*found));
  }
  out->kind = found->kind;
  out->device = found->device;
  out->bytes = found->storage.get() + offset;
  out->available = found->size - offset;
  out->storage = found->storage;
  out->owner = found;
  return ACL_SUCCESS;
}

bool Memory::charge(int device, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (!state_->has_room(device, bytes)) return false;
  state_->used[device] += bytes;
  return true;
}

void Memory::uncharge(int device, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->used[device] -= bytes;
}

std::size_t Memory::used(int device) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->used[device];
}

std::vector<std::string> Memory::release_all(int device) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::vector<std::shared_ptr<Allocation>> found;
  for (const auto& entry : state_->by_address) {
    const std::shared_ptr<Allocation>& allocation = entry.second;
    const bool host_side = allocation->kind == MemoryKind::kPinned || allocation->kind == MemoryKind::kRegistered;
    if (!allocation->freed && (device < 0 || (allocation->device == device && !host_side))) found.push_back(allocation);
  }
  std::vector<std::string> names;
  for (const auto& allocation : found) {
    if (allocation->kind != MemoryKind::kMapped) names.push_back(allocation_name(*allocation));
    state_->retire(allocation);
  }
  return names;
}

std::string Memory::name(const void* address) const {
  if (address == nullptr) return "null";
  const std::string handle = handle_name(address);
  if (!handle.empty()) return handle;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const std::shared_ptr<Allocation> found = containing(address);
  if (found == nullptr) return "host";
  const std::ptrdiff_t offset = static_cast<const std::byte*>(address) - found->address;
  std::string name;
  switch (found->kind) {
    case MemoryKind::kPinned:
      name = "pinned#";
      break;
    case MemoryKind::kRegistered:
      name = "registered#";
      break;
    case MemoryKind::kMapped:
      name = "mapped#";
      break;
    default:
      name = "device " + std::to_string(found->device) + (found->kind == MemoryKind::kDvpp ? " media#" : " memory#");
  }
  return name + std::to_string(found->id) + (offset == 0 ? "" : "+" + std::to_string(offset));
}

std::vector<std::string> Memory::living() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::vector<std::string> names;
  for (const auto& entry : state_->by_address) {
    if (!entry.second->freed && entry.second->kind != MemoryKind::kMapped) names.push_back(allocation_name(*entry.second));
  }
  return names;
}

}  // namespace ais::emulator
