// Which part of an arena belongs to whom: the parent's books. Nothing of this lies in shared memory.
//
// A slot is a virtual range of the arena. Ranges come in classes of capacity, every one a power of two; they are cut from what
// is unused and return to their class's free list, last used first, so that the pages in use stay few and warm. Since an
// untouched page costs nothing, a slot may be far larger than what will be in it. If nothing unused is large enough, free slots
// that are neighbours are joined and cut anew; if even that makes no room for a power of two, the slot has just the size asked
// for.
//
//   small   64 KiB          small feeds; the worker makes the first of them exist when it starts
//   large   result_bytes    results, and feeds that fit
//   above   powers of two   whatever is larger
//
// S1  Every slot is either on a free list or held by exactly one Lease.
// S2  `touched` is an upper bound of the bytes at the front of a slot that have memory behind them.
// S3  Free slots keep their memory up to `idle_limit`; beyond it the least recently used give theirs back.
// S4  A forked child must not touch the books' effects: releasing there punches nothing.
// S5  Nothing unused has memory behind it. A slot that is joined gives its memory back first.
// S6  A slot comes back without an allocation, because destructors bring it: its list has had a place for it since it was cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "shm/frame.hpp"
#include "shm/memfd.hpp"

namespace ais::shm {

struct Slot {
  std::uint64_t offset = 0;
  std::uint64_t capacity = 0;
  std::uint64_t touched = 0;
};

class SlotPool;

// A slot on loan. Returns it when destroyed, from any thread, whatever became of lane and worker. Movable.
class Lease {
 public:
  Lease() = default;
  Lease(std::shared_ptr<SlotPool> pool, Slot slot) : pool_(std::move(pool)), slot_(slot) {}
  Lease(Lease&& other) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease() { release(); }

  explicit operator bool() const { return pool_ != nullptr; }
  Span span() const { return {slot_.offset, slot_.capacity}; }
  std::uint64_t touched() const { return slot_.touched; }
  const std::shared_ptr<SlotPool>& pool() const { return pool_; }
  // Notes that the first `bytes` were written, by either side.
  void touch(std::uint64_t bytes) {
    if (bytes > slot_.touched) slot_.touched = bytes;
  }
  // Gives the memory behind everything after the first `bytes` back, if that is much.
  void trim(std::uint64_t bytes);
  void release();

 private:
  std::shared_ptr<SlotPool> pool_;
  Slot slot_;
};

class SlotPool : public std::enable_shared_from_this<SlotPool> {
 public:
  // Hands out [first, region->size()). `large` is the capacity of a result slot, a power of two.
  static std::shared_ptr<SlotPool> create(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large);
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  // A slot of at least `bytes`, best one with memory behind the first `warm` bytes. Empty: the arena is used up for now.
  Lease acquire(std::uint64_t bytes, std::uint64_t warm);
  // The same, never from the small class.
  Lease acquire_large(std::uint64_t bytes, std::uint64_t warm);

  // Gives back memory behind free slots, until they have no more than `keep` bytes; of the largest slots first.
  void trim(std::uint64_t keep = 0) { shrink(keep); }
  // The same for every slot pool of this process.
  static void trim_all();

  const std::shared_ptr<Region>& region() const { return region_; }
  std::uint64_t large() const { return large_; }

 private:
  friend class Lease;
  SlotPool(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large);
  struct FreeList {
    std::uint64_t capacity;
    std::size_t cut;          // how many slots of this capacity there are, free and on loan
    std::vector<Slot> slots;  // the last is the last used
  };

  // `least` is what has to be in it.
  Lease acquire_from(std::uint64_t capacity, std::uint64_t least, std::uint64_t warm);
  // These three need the mutex.
  std::optional<Slot> take_free(std::uint64_t capacity, std::uint64_t warm);
  std::optional<Slot> cut(std::uint64_t capacity);
  Span joinable(std::uint64_t capacity) const;
  // Makes a slot of free neighbours. Takes the mutex.
  std::optional<Slot> join(std::uint64_t capacity);
  FreeList& list_of(std::uint64_t capacity);
  void count_one(std::uint64_t capacity);
  void release(Slot slot);
  void shrink(std::uint64_t limit);
  // Gives the memory of a part of a slot back, which is the parent's, and counts it.
  void punch(std::uint64_t offset, std::uint64_t bytes);
  std::optional<Slot> take_coldest(std::uint64_t limit);

  const std::shared_ptr<Region> region_;
  const std::uint64_t large_;
  const std::uint64_t generation_;  // S4

  std::mutex join_mutex_;          // one joins at a time; taken before the mutex, and held while memory is given back
  std::mutex mutex_;               // guards everything below; held for a few instructions, never across a system call
  std::vector<Span> unused_;       // ascending
  std::uint64_t idle_bytes_ = 0;   // sum of `touched` over the free slots
  std::uint64_t recent_peak_ = 0;  // the largest recent `warm`, fading
  std::vector<FreeList> lists_;    // in descending order of capacity; a handful
};

}  // namespace ais::shm
