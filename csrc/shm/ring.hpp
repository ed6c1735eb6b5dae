// A single-producer, single-consumer ring of 64-byte descriptors in memory that two processes map. Either process may be killed
// at any instruction; the other loses nothing that was published, sees nothing torn, and never hangs.
//
//   write_pos   how many were ever published       written by the producer alone
//   read_pos    how many were ever taken           written by the consumer alone
//   slots       entry i lies at i mod kRingSlots
//
// I1  0 <= write_pos - read_pos <= kRingSlots; both only grow; 64 bits, no wrap.
// I2  Entries [read_pos, write_pos) belong to the consumer, the rest to the producer.
// I3  SYNC(publish): the slots' memory and the entry, then write_pos (release) | write_pos (acquire), then entry and memory.
// I4  SYNC(recycle): the last read of an entry, then read_pos (release) | read_pos (acquire), then overwriting the entry.
// I5  Each side keeps its own position and the last it saw of the other's in private memory: its own is never read back from
//     where the peer could change it, and a new peer cannot see a stale cache.
// I6  A position of the peer that breaks I1 means that somebody wrote where they must not: Corrupt.
//
// I7  A task's entry has a claim word (claim.hpp), which both sides change while the entry lies in the ring; the rest of it is
//     copied without that word. Whoever takes a task claims it in the same step, and passes withdrawn ones by.
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

  // Takes back the entry that was pushed as number `position`, unless the consumer has claimed it.
  bool withdraw(std::uint64_t position, std::uint64_t seq) {
    return settle_claim(entries_ + (position % kRingSlots) * sizeof(Entry), seq, Claim::kWithdrawn);
  }

  // Whether the consumer has claimed that entry. One that is not there any more has been passed, so it was claimed.
  bool claimed(std::uint64_t position, std::uint64_t seq) const {
    const std::uint64_t word =
        claim_of(entries_ + (position % kRingSlots) * sizeof(Entry))->load(std::memory_order_acquire);  // SYNC(claim)
    return word != claim_word(seq, Claim::kOffered) && word != claim_word(seq, Claim::kWithdrawn);
  }

  // How many entries lie in the ring, as far as `enough` of them matter: more may be counted than there are.
  std::uint64_t unread(std::uint64_t enough) {
    if (written_ - read_seen_ >= enough) {
      const std::uint64_t seen = read_pos_->load(std::memory_order_acquire);  // SYNC(recycle)
      if (seen <= written_ && seen > read_seen_) read_seen_ = seen;
    }
    return written_ - read_seen_;
  }

  // How many entries the consumer says that it has taken, ever.
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

  // Whether there may be an entry: one load. Serialised with try_pop, as all of a side is.
  bool has_more() const { return write_pos_->load(std::memory_order_relaxed) != read_; }

  // Calls `look` with a copy of each entry that is published and not taken, oldest first. Takes none.
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

  // False: nothing is published that was not taken. Else a copy of the oldest entry, which is then the producer's again.
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
