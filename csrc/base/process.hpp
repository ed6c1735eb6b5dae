// What this process is: which processors it may use, and whether it was forked since an object was made.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace ais {

// Counts the forks between the first process and this one. An object that must not be used or released in a forked
// child (a device session: its threads did not come along) stores the generation it was made in and compares.
std::uint64_t fork_generation();

// One T for each process: a forked child gets a fresh one at its first use, because a lock that another thread held during the
// fork stays locked in the child for ever. The parent's T is left alone there, and none is ever destroyed.
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

// Processors in this thread's affinity mask, in ascending order; never empty.
std::vector<int> allowed_cpus();

// The processor this thread runs on just now; -1 where the kernel does not say.
int current_cpu();

// How many processors' worth of time this process may use: the affinity mask, lowered by a cgroup quota (v2 `cpu.max` or v1
// `cpu.cfs_quota_us`, rounded up). At least 1.
int usable_cpu_count();

// Asks the kernel to kill this process when the thread of `parent` that started it ends. False: that parent is gone already.
bool die_with_parent(int parent);

// SIGINT does nothing any more.
void ignore_interrupts();

// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
std::int64_t monotonic_ns();

}  // namespace ais
