// Sleeping precisely.
#include "emulator/engine.hpp"

#include <sys/prctl.h>
#include <time.h>

#include <cerrno>

namespace ais::emulator {

void sleep_until_ns(std::int64_t ns) {
  // The kernel may round a sleep up by the thread's timer slack, 50 us unless told otherwise; the thread may be the caller's,
  // so the slack is put back.
  const int slack = prctl(PR_GET_TIMERSLACK);
  prctl(PR_SET_TIMERSLACK, 1UL);
  const timespec until = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
  if (slack > 0) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(slack));
}

}  // namespace ais::emulator
