// Facts about this process: its processors, its parent, and whether it was forked after an object was made.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace ais {

// Returns the number of forks between the first process and this one. An object that must not be used or released in a forked
// child stores this number when it is made, and compares later. A device session is such an object: its threads do not exist in
// the child.
std::uint64_t fork_generation();

// One T for each process. A forked child makes a new one at its first use, because a lock that another thread held during the
// fork is never released in the child. The child does not touch the parent's T. No T is destroyed.
template <typename T>
class PerProcess {
 public:
  T& get() {
    Entry* entry = entry_.load(std::memory_order_acquire);
    if (entry != nullptr && entry->generation == fork_generation()) return entry->value;
    auto* fresh = new Entry{fork_generation(), {}};
    if (entry_.compare_exchange_strong(entry, fresh, std::memory_order_acq_rel)) return fresh->value;
    delete fresh;  // another thread was first
    return entry->value;
  }

 private:
  struct Entry {
    std::uint64_t generation;
    T value;
  };
  std::atomic<Entry*> entry_{nullptr};
};

// Returns the processors in this thread's affinity mask, in ascending order; never empty.
std::vector<int> allowed_cpus();

// Returns whether all of these processors share a last-level cache; false if the kernel does not report it.
bool share_a_cache(const std::vector<int>& cpus);

// Returns the processor on which this thread runs; -1 if the kernel does not report it.
int current_cpu();

// Returns how many processors this process may use: the affinity mask, limited by a cgroup quota (v2 `cpu.max` or v1
// `cpu.cfs_quota_us`, rounded up). At least 1.
int usable_cpu_count();

// Makes the kernel kill this process when the thread of `parent` that started it ends. Returns false if the parent has ended.
bool die_with_parent(int parent);

// Makes this process ignore SIGINT.
void ignore_interrupts();

// Returns nanoseconds of CLOCK_MONOTONIC, which is the same clock in all processes of a machine.
std::int64_t monotonic_ns();

}  // namespace ais
