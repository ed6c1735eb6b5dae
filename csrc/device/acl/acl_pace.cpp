// Computes the pauses.
#include "device/acl/acl_pace.hpp"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "base/tuning.hpp"

namespace ais::acl {
std::int64_t Pace::next(bool relaxed, std::int64_t waited, int pauses) const {
  const std::int64_t usual = usual_ns_[relaxed ? 1 : 0].load(std::memory_order_relaxed);
  const std::int64_t goal = relaxed ? usual : usual - usual / 8;
  std::int64_t pause = std::max(waited / (relaxed ? 16 : 64), tuning::kShortestPauseNs);
  if (pauses == 0 || waited < goal) pause = std::max(pause, goal - waited);
  return std::min(pause, tuning::kLongestPauseNs);
}

// If the work had ended at the first query, nothing is learned. If it had ended after the first pause, it took at most this
// long, so the next first pause is shorter.
void Pace::learn(bool relaxed, std::int64_t waited, int pauses) {
  if (pauses == 0) return;
  std::atomic<std::int64_t>& usual = usual_ns_[relaxed ? 1 : 0];
  const std::int64_t before = usual.load(std::memory_order_relaxed);
  const bool early = pauses == 1 && before != 0;
  usual.store(early ? std::min(waited, before - before / (relaxed ? 8 : 4)) : waited, std::memory_order_relaxed);
}

// The kernel may lengthen a sleep by the thread's timer slack, 50 us by default. The thread belongs to the caller, so the slack
// is restored.
bool Pace::pause(std::int64_t ns) {
  const int slack = ns < tuning::kPreciseBelowNs ? prctl(PR_GET_TIMERSLACK) : 0;
  if (slack > 1) prctl(PR_SET_TIMERSLACK, 1UL);
  const timespec time = {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  const int failure = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  if (slack > 1) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(slack));
  return failure != EINTR;
}

}  // namespace ais::acl
