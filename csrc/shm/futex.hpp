// A doorbell: one word in shared memory that any thread of any process may ring, and any may sleep on.
//
//   bits 63..32  epoch: counts the rings, wraps           (the half that the futex compares)
//   bits 31..0   how many may be asleep
//
// B1  Both halves change only by read-modify-write of the whole word. So either a sleeper's announcement comes first, and the
//     ring sees it and wakes; or the ring comes first, and the announcement sees a newer epoch and does not sleep.
// B2  SYNC(bell): whoever rings has published first; the ring is a release. Taking a ticket, and seeing a newer epoch, are
//     acquires. So looking after taking a ticket finds everything that was published before the rings the ticket counts.
// B3  Only a sleeper takes its own announcement down. If a ring did, a ringer that is killed or stopped between that and its
//     system call would leave a sleeper whom no later ring wakes. A sleeper that is killed leaves its announcement up: a
//     needless system call a ring.
// B4  "The word changed", "woken" and "interrupted" all mean: look again. Only Timeout means that the time is over.
//
// Use: ticket = bell.ticket(); look; if there was nothing: bell.wait(ticket, ...); repeat.
#pragma once

#include <atomic>
#include <cstdint>

namespace ais::shm {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock in shared memory would outlive its killed owner");

enum class Wake { kRung, kTimeout, kInterrupted };

constexpr std::int64_t kNoDeadline = -1;
constexpr std::int64_t kNoWait = 0;  // a deadline that has passed: only what is there already

class Doorbell {
 public:
  explicit Doorbell(std::atomic<std::uint64_t>* word) : word_(word) {}

  std::uint32_t ticket() const { return epoch_of(word_->load(std::memory_order_acquire)); }  // SYNC(bell)

  // Never blocks; a system call only where somebody announced that it sleeps.
  void ring() const;

  // Returns kRung as soon as the bell was rung since the ticket was taken. Looks for `spin_ns`, then sleeps until
  // `deadline_ns` of CLOCK_MONOTONIC. kInterrupted: a signal handler ran in this thread.
  Wake wait(std::uint32_t ticket, std::int64_t deadline_ns, std::int64_t spin_ns) const;

 private:
  static std::uint32_t epoch_of(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }

  std::atomic<std::uint64_t>* word_;
};

}  // namespace ais::shm
