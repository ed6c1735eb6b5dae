// Device memory, pinned host memory, and what an address is.
//
// Device memory has two addresses. The program gets one in pages that are never readable or writable, with a closed page behind
// every allocation, so that any access of host code faults, whoever runs at the same time. The emulator keeps the other, where
// the bytes are; only its copies and its executions use it. Nothing is ever protected and unprotected, so API calls, streams
// and executions run side by side. Freed addresses stay closed, and known as freed, for the next kQuarantine frees.
//
// In run mode `device` (host and device memory are the same) both addresses are one.
//
// Thread-safe. A Range keeps the bytes alive, also after a free; `freed()` tells.
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
  kPageable,    // host memory that the emulator knows nothing of
  kDevice,      // aclrtMalloc and its relatives
  kDvpp,        // acldvppMalloc
  kPinned,      // aclrtMallocHost
  kRegistered,  // aclrtHostRegister: pinned memory of the program's own
  kMapped,      // the device's address of registered memory
};

struct Allocation {
  MemoryKind kind = MemoryKind::kPageable;
  int device = -1;
  std::uint64_t id = 0;
  std::byte* address = nullptr;  // what the program holds
  std::size_t size = 0;          // what it asked for
  std::size_t charged = 0;       // what it costs: the size and its padding
  std::size_t reserved = 0;      // bytes of address space behind `address`, with the closed page
  std::shared_ptr<std::byte> storage;
  std::atomic<bool> freed{false};
  std::atomic<std::uint32_t> worker{0};  // the model that runs in it as its work memory; 0: none

  bool on_device() const { return kind == MemoryKind::kDevice || kind == MemoryKind::kDvpp; }
};

// Bytes that were found to lie inside one allocation, or anywhere in pageable memory.
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

  // Device memory of `device`, 64-byte aligned, filled with a pattern (its first 64 MiB). 207001 when the device has no room.
  aclError allocate_device(int device, MemoryKind kind, std::size_t size, std::size_t charged, void** out);
  aclError allocate_pinned(int device, std::size_t size, void** out);
  // Only the address that was handed out, only once, and only of that kind; anything else is an error that says what it is.
  aclError release(void* address, MemoryKind kind);

  aclError register_host(void* address, std::size_t size, bool map, int device, void** mapped);
  aclError unregister_host(void* address);
  // The device's address of mapped registered memory, or nullptr.
  void* mapped_address(const void* host) const;

  // Finds `size` bytes at `address`; `what` begins the message of a failure: beyond the allocation, freed, or in nobody's
  // pages.
  aclError resolve(const void* address, std::size_t size, const char* what, Range* out) const;

  // Device memory that has no address: weights and workspace of models. False when there is no room.
  bool charge(int device, std::size_t bytes);
  void uncharge(int device, std::size_t bytes);
  std::size_t used(int device) const;

  // Frees all memory of one device, or (-1) everything; returns the names of what was still allocated.
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
