// The parent's allocator of slots in an arena. Its state is not in shared memory.
//
// A slot is a virtual range of the arena. Its capacity is a power of two. Slots are cut from the unused part of the arena, and
// return to a free list for their capacity. The slot that was used last is used first, so few pages are in use. An untouched
// page costs nothing, so a slot may be far larger than its content. If the unused part is too small, neighbouring free slots
// are joined. If there is still no room for a power of two, the slot has exactly the requested size.
//
//   small   64 KiB          small feeds; the worker creates the pages of the first ones when it starts
//   large   result_bytes    results, and feeds that fit
//   above   powers of two   everything that is larger
//
// S1  Every slot is either on a free list or held by exactly one Lease.
// S2  `touched` is an upper bound of the bytes at the front of a slot that have memory.
// S3  Free slots keep up to `idle_limit` bytes of memory. Beyond it, the least recently used slots release theirs.
// S4  In a forked child, releasing a slot must not punch memory.
// S5  The unused part has no memory. A slot releases its memory before it is joined.
// S6  Destructors return slots, so this needs no allocation: the free list has had a place for the slot since it was cut.
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

// Owns a slot, and returns it in the destructor, from any thread, even after the lane and the worker have ended. Movable.
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
  // Records that the first `bytes` were written, by either side.
  void touch(std::uint64_t bytes) {
    if (bytes > slot_.touched) slot_.touched = bytes;
  }
  // Releases the memory after the first `bytes`, if it is large.
  void trim(std::uint64_t bytes);
  void release();

 private:
  std::shared_ptr<SlotPool> pool_;
  Slot slot_;
};

class SlotPool : public std::enable_shared_from_this<SlotPool> {
 public:
  // Makes an allocator for [first, region->size()). `large`: the capacity of a result slot, a power of two.
  static std::shared_ptr<SlotPool> create(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large);
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  // Returns a slot of at least `bytes`, if possible with memory for the first `warm` bytes. Empty: the arena is full now.
  Lease acquire(std::uint64_t bytes, std::uint64_t warm);
  // The same, but never a small slot.
  Lease acquire_large(std::uint64_t bytes, std::uint64_t warm);

  // Releases memory of free slots, of the largest ones first, until they have at most `keep` bytes.
  void trim(std::uint64_t keep = 0) { shrink(keep); }
  // Releases the memory of all free slots of this process. Returns how many bytes.
  static std::uint64_t trim_all();

  const std::shared_ptr<Region>& region() const { return region_; }
  std::uint64_t large() const { return large_; }

 private:
  friend class Lease;
  SlotPool(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large);
  struct FreeList {
    std::uint64_t capacity;
    std::size_t cut;          // number of slots of this capacity, free and in use
    std::vector<Slot> slots;  // the last is the last used
  };

  // `least`: the bytes that must fit.
  Lease acquire_from(std::uint64_t capacity, std::uint64_t least, std::uint64_t warm);
  // These three need the mutex.
  std::optional<Slot> take_free(std::uint64_t capacity, std::uint64_t warm);
  std::optional<Slot> cut(std::uint64_t capacity);
  Span joinable(std::uint64_t capacity) const;
  // Makes a slot of neighbouring free slots. Takes the mutex.
  std::optional<Slot> join(std::uint64_t capacity);
  FreeList& list_of(std::uint64_t capacity);
  void count_one(std::uint64_t capacity);
  void release(Slot slot);
  std::uint64_t shrink(std::uint64_t limit);
  // Releases the memory of a part of a slot that belongs to the parent, and counts this.
  void punch(std::uint64_t offset, std::uint64_t bytes);
  std::optional<Slot> take_coldest(std::uint64_t limit);

  const std::shared_ptr<Region> region_;
  const std::uint64_t large_;
  const std::uint64_t generation_;  // S4

  std::mutex join_mutex_;          // one thread joins at a time; taken before the mutex, and held while memory is released
  std::mutex mutex_;               // guards everything below; held for a few instructions, never across a system call
  std::vector<Span> unused_;       // ascending
  std::uint64_t idle_bytes_ = 0;   // sum of `touched` over the free slots
  std::uint64_t recent_peak_ = 0;  // the largest recent `warm`, fading
  std::vector<FreeList> lists_;    // in descending order of capacity; few
};

}  // namespace ais::shm
