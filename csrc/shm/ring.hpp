// A single-producer, single-consumer ring of 64-byte descriptors in memory that two processes map. Either process may be killed
// at any instruction. The other process then loses no published entry, sees no torn entry, and never hangs.
//
//   write_pos   number of published entries        only the producer writes it
//   read_pos    number of taken entries            only the consumer writes it
//   slots       entry i is at i mod kRingSlots
//
// I1  0 <= write_pos - read_pos <= kRingSlots; both only grow; 64 bits, no wrap.
// I2  Entries [read_pos, write_pos) belong to the consumer, the rest to the producer.
// I3  SYNC(publish): the slots' memory and the entry, then write_pos (release) | write_pos (acquire), then entry and memory.
// I4  SYNC(recycle): the last read of an entry, then read_pos (release) | read_pos (acquire), then overwriting the entry.
// I5  Each side keeps its own position and the last seen position of the peer in private memory. It never reads its own
//     position from memory that the peer can change, and a new peer cannot see a stale cache.
// I6  If a position of the peer breaks I1, the memory was corrupted: Corrupt.
//
// I7  A task's entry has a claim word (claim.hpp), which both sides change while the entry is in the ring. The rest of the
//     entry is copied without that word. The consumer claims a task when it takes it, and skips withdrawn tasks.
//
// "Single" means one at a time: each side serialises its own threads (Lane with a mutex, Port by being used from one thread).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/status.hpp"
#include "shm/claim.hpp"
#include "shm/layout.hpp"

namespace ais::shm {

inline Status corrupt_position(const char* which, std::uint64_t own, std::uint64_t seen) {
  return Status(Code::kCorrupt, std::string("the other side's ") + which + " position is " + std::to_string(seen) +
                                    ", impossible beside ours, " + std::to_string(own));
}

// I7: how much of an entry is plain memory.
template <typename Entry>
constexpr std::size_t kPlainBytes = sizeof(Entry);
template <>
inline constexpr std::size_t kPlainBytes<TaskDescriptor> = offsetof(TaskDescriptor, claim);

template <typename Entry>
class Producer {
 public:
  Producer(std::atomic<std::uint64_t>* write_pos, std::atomic<std::uint64_t>* read_pos, void* entries)
      : write_pos_(write_pos), read_pos_(read_pos), entries_(static_cast<std::uint8_t*>(entries)) {}

  // False: the ring is full. The entry is visible to the consumer when this returns true.
  Result<bool> try_push(const Entry& entry) {
    if (written_ - read_seen_ >= kRingSlots) {
      const std::uint64_t seen = read_pos_->load(std::memory_order_acquire);  // SYNC(recycle)
      if (seen > written_ || seen < read_seen_) return corrupt_position("read", written_, seen);
      read_seen_ = seen;
      if (written_ - read_seen_ >= kRingSlots) return false;
    }
    std::uint8_t* place = entries_ + (written_ % kRingSlots) * sizeof(Entry);
    std::memcpy(place, &entry, kPlainBytes<Entry>);
    if constexpr (kPlainBytes<Entry> < sizeof(Entry)) {
      claim_of(place)->store(claim_word(entry.seq, Claim::kOffered), std::memory_order_relaxed);  // published with the entry
    }
    ++written_;
    write_pos_->store(written_, std::memory_order_release);  // SYNC(publish)
    return true;
  }

  // Withdraws the entry that was pushed as number `position`, unless the consumer has claimed it.
  bool withdraw(std::uint64_t position, std::uint64_t seq) {
    return settle_claim(entries_ + (position % kRingSlots) * sizeof(Entry), seq, Claim::kWithdrawn);
  }

  // Whether the consumer has claimed that entry. An entry that is no longer in the ring was passed, so it was claimed.
  bool claimed(std::uint64_t position, std::uint64_t seq) const {
    const std::uint64_t word =
        claim_of(entries_ + (position % kRingSlots) * sizeof(Entry))->load(std::memory_order_acquire);  // SYNC(claim)
    return word != claim_word(seq, Claim::kOffered) && word != claim_word(seq, Claim::kWithdrawn);
  }

  // How many entries are in the ring, as far as `enough` of them matter: the count may be too high.
  std::uint64_t unread(std::uint64_t enough) {
    if (written_ - read_seen_ >= enough) {
      const std::uint64_t seen = read_pos_->load(std::memory_order_acquire);  // SYNC(recycle)
      if (seen <= written_ && seen > read_seen_) read_seen_ = seen;
    }
    return written_ - read_seen_;
  }

  // How many entries the consumer has taken in total, by its own account.
  std::uint64_t taken() const { return read_pos_->load(std::memory_order_acquire); }  // SYNC(recycle)

 private:
  std::atomic<std::uint64_t>* write_pos_;
  std::atomic<std::uint64_t>* read_pos_;
  std::uint8_t* entries_;
  std::uint64_t written_ = 0;
  std::uint64_t read_seen_ = 0;
};

template <typename Entry>
class Consumer {
 public:
  Consumer(std::atomic<std::uint64_t>* write_pos, std::atomic<std::uint64_t>* read_pos, void* entries)
      : write_pos_(write_pos), read_pos_(read_pos), entries_(static_cast<std::uint8_t*>(entries)) {}

  // Whether there may be an entry: one load. Calls must be serialised with try_pop, like all calls of one side.
  bool has_more() const { return write_pos_->load(std::memory_order_relaxed) != read_; }

  // Calls `look` with a copy of each entry that is published and not taken, oldest first. It takes none of them.
  template <typename Look>
  Status each_unread(Look look) {
    const std::uint64_t seen = write_pos_->load(std::memory_order_acquire);  // SYNC(publish)
    if (seen < write_seen_ || seen - read_ > kRingSlots) return corrupt_position("write", read_, seen);
    write_seen_ = seen;
    for (std::uint64_t i = read_; i < write_seen_; ++i) {
      Entry entry{};
      fetch(&entry, entries_ + (i % kRingSlots) * sizeof(Entry), kPlainBytes<Entry>);
      look(entry);
    }
    return Status();
  }

  // False: there is no published entry left. Otherwise copies the oldest entry, which then belongs to the producer again.
  Result<bool> try_pop(Entry* out) {
    while (true) {
      if (read_ == write_seen_) {
        const std::uint64_t seen = write_pos_->load(std::memory_order_acquire);  // SYNC(publish)
        if (seen < write_seen_ || seen - read_ > kRingSlots) return corrupt_position("write", read_, seen);
        write_seen_ = seen;
        if (read_ == write_seen_) return false;
      }
      std::uint8_t* place = entries_ + (read_ % kRingSlots) * sizeof(Entry);
      fetch(out, place, kPlainBytes<Entry>);
      bool ours = true;
      if constexpr (kPlainBytes<Entry> < sizeof(Entry)) ours = settle_claim(place, out->seq, Claim::kClaimed);
      ++read_;
      read_pos_->store(read_, std::memory_order_release);  // SYNC(recycle)
      if (ours) return true;
    }
  }

 private:
  std::atomic<std::uint64_t>* write_pos_;
  std::atomic<std::uint64_t>* read_pos_;
  std::uint8_t* entries_;
  std::uint64_t read_ = 0;
  std::uint64_t write_seen_ = 0;
};

}  // namespace ais::shm
