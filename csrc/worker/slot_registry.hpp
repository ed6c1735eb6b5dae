// Slots of the arena that are registered with the device (Device::register_host), so that it copies directly from and to them.
//
// A worker does not know where slots begin and end; it knows only the ranges that tasks use. Ranges and slots are whole pages.
// So ranges of two slots never overlap, and the union of overlapping ranges belongs to one slot.
//
// R1  A range is registered when a third task uses it: registering costs more than one copy, and a slot whose outputs the
//     caller keeps is not used again.
// R2  If the parent has released memory of a slot (Header::punched), the slot has other pages than the device knows. A slot
//     that a task uses belongs to the worker, so it is not released meanwhile. A range that was registered before the newest
//     count is registered again.
// R3  A range is never unregistered while a task uses it.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "device/device.hpp"

namespace ais::worker {

class SlotRegistry {
 public:
  explicit SlotRegistry(device::Device* device) : device_(device) {}
  ~SlotRegistry() { unregister_all(); }
  SlotRegistry(const SlotRegistry&) = delete;
  SlotRegistry& operator=(const SlotRegistry&) = delete;

  // The use of slots by one task, from the first use to end(). `punched`: how often the parent had released memory of slots.
  struct User {
    std::uint64_t task = 0;
    std::uint64_t punched = 0;
    std::vector<std::uintptr_t> ranges;  // registered ones that it uses, by their begin
  };
  // Records that the task uses this memory, and registers it if that pays. Call it before a query whether it is registered.
  void use(User* user, const void* data, std::size_t bytes);
  void end(const User& user);
  // `tell` is called once, when the device has refused to register more memory or to unregister memory.
  void when_refused(std::function<void()> tell) { tell_ = std::move(tell); }
  // Unregisters everything. No task may be in progress. The arena may be unmapped afterwards.
  void unregister_all();

 private:
  struct Range {
    std::uintptr_t end = 0;
    std::uintptr_t wanted_end = 0;  // a task that used it needed so much
    std::uint64_t last_task = 0;
    std::uint64_t punched = 0;  // when it was registered or used last
    std::uint64_t tasks = 0;    // that used it
    bool registered = false;
    int users = 0;  // tasks under way; of a registered one
  };
  using Ranges = std::map<std::uintptr_t, Range>;  // by their begin; they do not overlap

  bool is_known(std::uintptr_t begin, std::uintptr_t end) const;
  Ranges::iterator covering(std::uintptr_t begin, std::uintptr_t end);
  void renew(Ranges::iterator entry, std::uint64_t punched);
  void add(std::uintptr_t begin, Range* range);
  void drop(std::uintptr_t begin, Range* range);
  void refuse();

  device::Device* const device_;
  Ranges ranges_;
  std::size_t registered_bytes_ = 0;
  bool refused_ = false;  // the device cannot
  std::function<void()> tell_;
};

}  // namespace ais::worker
