// Whose a published task is: the parent may withdraw it until the worker has claimed it.
//
//   offered --worker--> claimed      the worker runs it, and answers
//   offered --parent--> withdrawn    the worker passes it by; both its slots are the parent's again
//
// The word lies in the task's descriptor, with the task's number in it, so a descriptor that was written over is never mistaken
// for the one before.
//
// C1  SYNC(claim): both transitions are one compare-and-swap of one word, so exactly one of them happens, and each side knows
//     which from its own.
// C2  The worker claims before it gives the entry back (read_pos), so the parent cannot have written over it by then.
// C3  The worker reads and writes a task's slots only after claiming it. So a parent that has withdrawn may use them at once.
// C4  A word that is neither (a peer gone wrong) fails both: the parent takes the task for begun, the worker passes it by, and
//     its time limit or the worker's end settles it.
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

// Whether it was this call that moved the word from offered to `to`.
inline bool settle_claim(void* descriptor, std::uint64_t seq, Claim to) {
  std::uint64_t offered = claim_word(seq, Claim::kOffered);
  const std::uint64_t wanted = claim_word(seq, to);
  return claim_of(descriptor)->compare_exchange_strong(offered, wanted, std::memory_order_acq_rel);  // SYNC(claim)
}

}  // namespace ais::shm
