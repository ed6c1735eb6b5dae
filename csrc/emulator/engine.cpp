// Sleeps precisely.
#include "emulator/engine.hpp"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>

#include "emulator/faults.hpp"

namespace ais::emulator {

void sleep_until_ns(std::int64_t ns) {
  // The kernel may lengthen a sleep by the thread's timer slack, 50 us by default. This may be a thread of the program, so the
  // slack is restored.
  const int slack = prctl(PR_GET_TIMERSLACK);
  prctl(PR_SET_TIMERSLACK, 1UL);
  constexpr std::int64_t kSliceNs = 20000000;  // how soon a stop is noticed
  for (std::int64_t now = monotonic_ns(); now < ns && !work_is_stopped(); now = monotonic_ns()) {
    const std::int64_t slice = std::min(ns, now + kSliceNs);
    const timespec until = {static_cast<time_t>(slice / 1000000000), static_cast<long>(slice % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);  // a signal ends it early, and the loop continues
  }
  if (slack > 0) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(slack));
}

}  // namespace ais::emulator
