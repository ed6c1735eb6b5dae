// Tensors in an arena, and the table that says where they are.
//
//   payloads, each at a multiple of 64 bytes    then the table, at a multiple of 8:
//     uint32 count, uint32 0
//     count x { int32 dtype (base/tensor.hpp), uint32 rank, uint64 offset in the arena, uint64 bytes, int64 dims[rank] }
//
// The table comes last because a model's output shapes may be known only after it ran. A descriptor carries the table's place.
// Payloads need not lie beside their table: feeds that are in the arena already are named where they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"

namespace ais::shm {

constexpr std::size_t kPayloadAlignment = 64;
constexpr std::uint32_t kMaxRank = 64;          // numpy's limit
constexpr std::uint32_t kMaxTensors = 1 << 16;  // in a frame: what a peer gone wrong can make the reader allocate

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

// Fills a slot front to back. Works on addresses inside the arena that the caller owns.
class FrameWriter {
 public:
  FrameWriter() = default;
  FrameWriter(std::uint8_t* arena, Span slot) { reset(arena, slot); }

  // Starts over on another slot, keeping the memory of the entries.
  void reset(std::uint8_t* arena, Span slot);

  // Memory for tensor `index`, below kMaxTensors, or nullptr where the slot has no room. A second call for an index replaces
  // the first.
  void* reserve(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes);

  // The same, but nullptr, too, if that much memory cannot be allocated; refused() says so then. For slots that nobody has
  // checked before.
  void* reserve_checked(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes);

  // Names a payload that lies elsewhere in the arena.
  void refer(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes,
             std::uint64_t offset);

  // Writes the table and returns its place. False where it has no room, or a tensor before the last was never reserved.
  bool finish(Span* table);

  // Bytes of the table for one tensor.
  static constexpr std::size_t entry_bytes(std::size_t rank) { return 24 + rank * sizeof(std::int64_t); }

  // What the frame needs in all, counting the tensors that found no room; valid after a refusal.
  std::size_t needed() const { return needed_; }
  // True when a tensor or the table found no room.
  bool full() const { return full_; }
  // OutOfMemory, with the numbers, after reserve_checked was refused memory.
  const Status& refused() const { return refused_; }
  // How much of the slot was used.
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

// Reads a table whose place came from the other side. `table_room` is where the table must lie, `payload_room` where the
// payloads must. Every value is copied out and checked, so that later changes in shared memory cannot matter: Corrupt
// otherwise. `out` is reused to spare allocations.
Status read_frame(std::uint8_t* arena, Span table, Span table_room, Span payload_room, std::vector<TensorView>* out);

}  // namespace ais::shm
