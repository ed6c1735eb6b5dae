// A doorbell: one word in shared memory. Any thread of any process may ring it, or sleep on it.
//
//   bits 63..32  epoch: number of rings, wraps around     (the half that the futex compares)
//   bits 31..0   number of announced sleepers
//
// B1  Both halves change only by read-modify-write of the whole word. So either a sleeper's announcement comes first, and the
//     ring sees it and wakes; or the ring comes first, and the announcement sees a newer epoch and does not sleep.
// B2  SYNC(bell): a side publishes before it rings, and the ring is a release. Taking a ticket, and seeing a newer epoch, are
//     acquires. So a check after taking a ticket finds everything that was published before the rings that the ticket counts.
// B3  Only a sleeper removes its own announcement. If a ring removed it, and the ringing process were killed or stopped before
//     its system call, no later ring would wake the sleeper. If a sleeper is killed, its announcement stays, which costs one
//     unnecessary system call for each ring.
// B4  "The word changed", "woken" and "interrupted" all mean: check again. Only Timeout means that the time is over.
//
// Use: ticket = bell.ticket(); check; if there is nothing: bell.wait(ticket, ...); repeat.
#pragma once

#include <atomic>
#include <cstdint>

namespace ais::shm {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock in shared memory would outlive its killed owner");

enum class Wake { kRung, kTimeout, kInterrupted };

constexpr std::int64_t kNoDeadline = -1;
constexpr std::int64_t kNoWait = 0;  // a deadline that has passed: do not wait

class Doorbell {
 public:
  explicit Doorbell(std::atomic<std::uint64_t>* word) : word_(word) {}

  std::uint32_t ticket() const { return epoch_of(word_->load(std::memory_order_acquire)); }  // SYNC(bell)

  // Never blocks. Makes a system call only if there is an announced sleeper.
  void ring() const;

  // Returns kRung as soon as the bell has been rung since the ticket was taken. Spins for `spin_ns`, then sleeps until
  // `deadline_ns` of CLOCK_MONOTONIC. kInterrupted: a signal handler ran in this thread.
  Wake wait(std::uint32_t ticket, std::int64_t deadline_ns, std::int64_t spin_ns) const;

 private:
  static std::uint32_t epoch_of(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }

  std::atomic<std::uint64_t>* word_;
};

}  // namespace ais::shm
