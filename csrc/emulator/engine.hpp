// One thing a device does at a time: run a model, copy in, copy out.
//
// An engine has a clock of its own. Work that was ready before the engine was free begins, by that clock, the moment it became
// free: a host thread that wakes up 60 us late does not make the device slower, as long as work is queued ahead of it.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/process.hpp"

namespace ais::emulator {

// Sleeps until `ns` of monotonic_ns(), to within a few microseconds, or until the work is stopped (faults.hpp).
void sleep_until_ns(std::int64_t ns);

class Engine {
 public:
  // A host that is later than this is slower than the device it plays, and the device's clock waits for it.
  static constexpr std::int64_t kForgivenNs = 2000000;

  // Runs `work` and occupies the engine for `duration_ns`, or for as long as the work takes when that is longer. Returns the
  // engine's time at the end; `ready_ns` is when the work could have begun.
  template <typename Work>
  std::int64_t run(std::int64_t ready_ns, std::int64_t duration_ns, Work work) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::int64_t begin = ready_ns > free_at_ns_ ? ready_ns : free_at_ns_;
    work();
    std::int64_t end = begin + duration_ns;
    const std::int64_t now = monotonic_ns();
    if (now < end) {
      sleep_until_ns(end);
      if (monotonic_ns() < end) end = monotonic_ns();  // stopped
    } else if (duration_ns == 0 || now - end > kForgivenNs) {
      end = now;  // no time was asked for, or the host is too slow for the time asked for: it takes what it takes
    }
    free_at_ns_ = end;
    return end;
  }

 private:
  std::mutex mutex_;
  std::int64_t free_at_ns_ = 0;
};

}  // namespace ais::emulator
