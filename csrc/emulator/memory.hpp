// Device memory, pinned host memory, and the lookup of addresses.
//
// Device memory has two addresses. The program gets one of them. Its pages are never readable or writable, and an inaccessible
// page follows every allocation, so any access from host code faults. The emulator uses the other address, with the bytes, for
// copies and executions. Page protection never changes, so API calls, streams and executions run side by side. Freed addresses
// stay inaccessible, and known as freed, for the next kQuarantine frees.
//
// In run mode `device` (host and device memory are the same) both addresses are equal.
//
// Thread-safe. A Range keeps the bytes alive, also after a free; `freed()` returns whether there was one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

enum class MemoryKind {
  kPageable,    // host memory that is unknown to the emulator
  kDevice,      // aclrtMalloc and its relatives
  kDvpp,        // acldvppMalloc
  kPinned,      // aclrtMallocHost
  kRegistered,  // aclrtHostRegister: memory of the program that was pinned
  kMapped,      // the device's address of registered memory
};

struct Allocation {
  MemoryKind kind = MemoryKind::kPageable;
  int device = -1;
  std::uint64_t id = 0;
  std::byte* address = nullptr;  // the program's address
  std::size_t size = 0;          // the requested size
  std::size_t charged = 0;       // the size with padding
  std::size_t reserved = 0;      // bytes of address space at `address`, with the inaccessible page
  std::shared_ptr<std::byte> storage;
  std::atomic<bool> freed{false};
  std::atomic<std::uint32_t> worker{0};  // the model that uses it as work memory now; 0: none

  bool on_device() const { return kind == MemoryKind::kDevice || kind == MemoryKind::kDvpp; }
};

// Bytes inside one allocation, or in pageable memory.
struct Range {
  MemoryKind kind = MemoryKind::kPageable;
  int device = -1;
  std::byte* bytes = nullptr;          // for the emulator to use
  std::size_t available = 0;           // up to the end of the allocation; SIZE_MAX in pageable memory
  std::shared_ptr<std::byte> storage;  // keeps `bytes`
  std::shared_ptr<Allocation> owner;   // null in pageable memory

  bool on_device() const { return owner != nullptr && owner->on_device(); }
  bool freed() const { return owner != nullptr && owner->freed.load(); }
};

class Memory {
 public:
  Memory();

  // Allocates memory of `device`, 64-byte aligned; a pattern fills its first 64 MiB. Returns 207001 if there is no room.
  aclError allocate_device(int device, MemoryKind kind, std::size_t size, std::size_t charged, void** out);
  aclError allocate_pinned(int device, std::size_t size, void** out);
  // Frees memory. Any other address, a second call, or another kind is an error, and the text says which.
  aclError release(void* address, MemoryKind kind);

  aclError register_host(void* address, std::size_t size, bool map, int device, void** mapped);
  aclError unregister_host(void* address);
  // Returns the device's address of mapped registered memory, or nullptr.
  void* mapped_address(const void* host) const;

  // Finds `size` bytes at `address`. Errors, which begin with `what`: beyond the allocation, freed, or unknown pages.
  aclError resolve(const void* address, std::size_t size, const char* what, Range* out) const;

  // Counts device memory without an address: weights and workspaces of models. Returns false if there is no room.
  bool charge(int device, std::size_t bytes);
  void uncharge(int device, std::size_t bytes);
  std::size_t used(int device) const;

  // Frees all memory of one device, or (-1) of all; returns the names of live allocations.
  std::vector<std::string> release_all(int device);

  // "device 0 memory#5+64", "pinned#1", "host", "null".
  std::string name(const void* address) const;
  std::vector<std::string> living() const;

 private:
  struct State;
  aclError insert(std::shared_ptr<Allocation> allocation);
  std::shared_ptr<Allocation> containing(const void* address) const;

  State* const state_;  // never destroyed: a stream's thread may outlive static destructors
};

Memory& memory();

}  // namespace ais::emulator
