// The only file that calls futex. Shared futexes (no PRIVATE flag): the word is mapped at different addresses.
#include "shm/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/process.hpp"

namespace ais::shm {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the epoch is taken to be the second half of the word");

// The half of the word that the kernel compares.
std::uint32_t* epoch_half(std::atomic<std::uint64_t>* word) { return reinterpret_cast<std::uint32_t*>(word) + 1; }

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` is a no-op on most cores
#endif
}

constexpr std::uint64_t kOneRing = std::uint64_t{1} << 32;

long sleep_on(std::atomic<std::uint64_t>* word, std::uint32_t ticket, std::int64_t deadline_ns) {
  timespec deadline{};
  if (deadline_ns != kNoDeadline) {
    deadline.tv_sec = static_cast<time_t>(deadline_ns / 1'000'000'000);
    deadline.tv_nsec = static_cast<long>(deadline_ns % 1'000'000'000);
  }
  // WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC.
  const long result = syscall(SYS_futex, epoch_half(word), FUTEX_WAIT_BITSET, ticket,
                              deadline_ns == kNoDeadline ? nullptr : &deadline, nullptr, FUTEX_BITSET_MATCH_ANY);
  return result == 0 ? 0 : errno;
}

}  // namespace

void Doorbell::ring() const {
  const std::uint64_t old = word_->fetch_add(kOneRing, std::memory_order_acq_rel);  // SYNC(bell)
  if (static_cast<std::uint32_t>(old) != 0) {
    syscall(SYS_futex, epoch_half(word_), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

Wake Doorbell::wait(std::uint32_t ticket, std::int64_t deadline_ns, std::int64_t spin_ns) const {
  if (this->ticket() != ticket) return Wake::kRung;
  if (deadline_ns == kNoWait) return Wake::kTimeout;
  if (spin_ns > 0) {
    const std::int64_t until = monotonic_ns() + spin_ns;
    do {
      for (int i = 0; i < 16; ++i) {
        if (this->ticket() != ticket) return Wake::kRung;
        relax();
      }
    } while (monotonic_ns() < until);
  }
  // B1: announce and compare in one step.
  const std::uint64_t old = word_->fetch_add(1, std::memory_order_acq_rel);  // SYNC(bell)
  Wake wake = Wake::kRung;
  if (epoch_of(old) == ticket) {
    long reason = 0;
    do {
      reason = sleep_on(word_, ticket, deadline_ns);
    } while (reason == 0 && this->ticket() == ticket);  // the kernel may wake without a reason
    if (this->ticket() == ticket) wake = reason == ETIMEDOUT ? Wake::kTimeout : Wake::kInterrupted;
  }
  word_->fetch_sub(1, std::memory_order_relaxed);  // B3; nothing is published with it
  return wake;
}

}  // namespace ais::shm
