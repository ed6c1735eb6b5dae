// The owner of a published task: the parent may withdraw the task until the worker has claimed it.
//
//   offered --worker--> claimed      the worker runs it, and answers
//   offered --parent--> withdrawn    the worker skips it; both its slots belong to the parent again
//
// The word is in the task's descriptor and contains the task's number, so an overwritten descriptor is never taken for the
// former one.
//
// C1  SYNC(claim): both transitions are one compare-and-swap of one word. So exactly one of them happens, and the result tells
//     each side which.
// C2  The worker claims before it releases the entry (read_pos), so the parent cannot have overwritten the entry by then.
// C3  The worker reads and writes a task's slots only after claiming it. So a parent that has withdrawn may use them at once.
// C4  If a faulty peer wrote another value, both transitions fail: the parent assumes that the task has begun, the worker skips
//     it, and the task ends by its time limit or with the worker.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/layout.hpp"

namespace ais::shm {

enum class Claim : std::uint64_t { kOffered = 1, kClaimed = 2, kWithdrawn = 3 };

constexpr std::uint64_t claim_word(std::uint64_t seq, Claim claim) { return seq << 2 | static_cast<std::uint64_t>(claim); }

inline std::atomic<std::uint64_t>* claim_of(void* descriptor) {
  return reinterpret_cast<std::atomic<std::uint64_t>*>(static_cast<std::uint8_t*>(descriptor) +
                                                       offsetof(TaskDescriptor, claim));
}

// Moves the word from offered to `to`. Returns whether this call did it.
inline bool settle_claim(void* descriptor, std::uint64_t seq, Claim to) {
  std::uint64_t offered = claim_word(seq, Claim::kOffered);
  const std::uint64_t wanted = claim_word(seq, to);
  return claim_of(descriptor)->compare_exchange_strong(offered, wanted, std::memory_order_acq_rel);  // SYNC(claim)
}

}  // namespace ais::shm
