// An engine of a device: it runs models, copies in, or copies out, one at a time.
//
// An engine has its own clock. Work that was ready before the engine was free begins, by this clock, when the engine became
// free. So a host thread that wakes up 60 us late does not make the device slower, as long as work is queued.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/process.hpp"

namespace ais::emulator {

// Sleeps until `ns` of monotonic_ns(), with an error of a few microseconds, or until the work is stopped (faults.hpp).
void sleep_until_ns(std::int64_t ns);

class Engine {
 public:
  // If the host is later than this, it is slower than the emulated device, and the device's clock waits for it.
  static constexpr std::int64_t kForgivenNs = 2000000;

  // Runs `work` and occupies the engine for `duration_ns`, or longer if the work takes longer. Returns the engine's time at the
  // end. `ready_ns`: when the work could have begun.
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
      end = now;  // no duration was set, or the host is slower: use the real time
    }
    free_at_ns_ = end;
    return end;
  }

 private:
  std::mutex mutex_;
  std::int64_t free_at_ns_ = 0;
};

}  // namespace ais::emulator
