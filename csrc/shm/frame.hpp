// Frames: tensors in an arena, and a table of their positions.
//
//   payloads, each at a multiple of 64 bytes    then the table, at a multiple of 8:
//     uint32 count, uint32 0
//     count x { int32 dtype (base/tensor.hpp), uint32 rank, uint64 offset in the arena, uint64 bytes, int64 dims[rank] }
//
// The table comes last because a model's output shapes may be known only after its run. A descriptor contains the table's
// place. Payloads may be elsewhere in the arena: feeds that are already there are not copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"

namespace ais::shm {

constexpr std::size_t kPayloadAlignment = 64;
constexpr std::uint32_t kMaxRank = 64;          // numpy's limit
constexpr std::uint32_t kMaxTensors = 1 << 16;  // in a frame: limits what a faulty peer can make the reader allocate

constexpr std::size_t aligned(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// A range of the arena.
struct Span {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool holds(std::uint64_t at, std::uint64_t length) const {
    return at >= offset && at - offset <= bytes && length <= bytes - (at - offset);
  }
};

// Fills a slot from front to back. The caller must own the slot.
class FrameWriter {
 public:
  FrameWriter() = default;
  FrameWriter(std::uint8_t* arena, Span slot) { reset(arena, slot); }

  // Starts again on another slot, and keeps the memory of the entries.
  void reset(std::uint8_t* arena, Span slot);

  // Returns memory for tensor `index` (below kMaxTensors), or nullptr if the slot has no room. A second call for an index
  // replaces the first.
  void* reserve(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes);

  // The same, but also returns nullptr if this much memory cannot be allocated; then refused() has the error. For slots that
  // were not checked before.
  void* reserve_checked(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes);

  // Adds a payload that is elsewhere in the arena.
  void refer(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes,
             std::uint64_t offset);

  // Writes the table and sets its place. Returns false if there is no room, or a tensor before the last was never reserved.
  bool finish(Span* table);

  // Returns the bytes of the table for one tensor.
  static constexpr std::size_t entry_bytes(std::size_t rank) { return 24 + rank * sizeof(std::int64_t); }

  // Returns the bytes of the whole frame, with the tensors for which there was no room.
  std::size_t needed() const { return needed_; }
  // Returns whether there was no room for a tensor or the table.
  bool full() const { return full_; }
  // Returns OutOfMemory, with the numbers, if reserve_checked got no memory.
  const Status& refused() const { return refused_; }
  // Returns how many bytes of the slot were used.
  std::size_t used() const { return used_; }

 private:
  struct Entry {
    bool set = false;
    DType dtype = DType::kUndefined;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::size_t rank = 0;
    std::int64_t dims[kMaxRank];
  };
  Entry& entry_at(std::size_t index);

  std::uint8_t* arena_ = nullptr;
  Span slot_;
  std::size_t used_ = 0;
  std::size_t needed_ = 0;
  bool full_ = false;
  Status refused_;
  std::size_t count_ = 0;
  std::vector<Entry> entries_;
};

// Reads a table whose place the other side has given. The table must be in `table_room`, the payloads in `payload_room`. Copies
// and checks every value, so later changes in shared memory have no effect. Returns Corrupt for an invalid value. `out` is
// reused to save allocations.
Status read_frame(std::uint8_t* arena, Span table, Span table_room, Span payload_room, std::vector<TensorView>* out);

}  // namespace ais::shm
