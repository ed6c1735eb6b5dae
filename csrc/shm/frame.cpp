// Writes and reads frames. The reader checks everything, because a faulty peer may have written it.
#include "shm/frame.hpp"

#include <cstring>
#include <string>

#include "shm/layout.hpp"
#include "shm/memfd.hpp"

namespace ais::shm {
namespace {

struct TableHead {
  std::uint32_t count;
  std::uint32_t unused;
};

struct EntryHead {
  std::int32_t dtype;
  std::uint32_t rank;
  std::uint64_t offset;
  std::uint64_t bytes;
};

static_assert(sizeof(TableHead) == 8 && sizeof(EntryHead) == FrameWriter::entry_bytes(0));

Status corrupt(const std::string& what) { return Status(Code::kCorrupt, "a frame in shared memory " + what); }

}  // namespace

void FrameWriter::reset(std::uint8_t* arena, Span slot) {
  arena_ = arena;
  slot_ = slot;
  used_ = needed_ = count_ = 0;
  full_ = false;
  refused_ = Status();
}

FrameWriter::Entry& FrameWriter::entry_at(std::size_t index) {
  if (entries_.size() <= index) entries_.resize(index + 1);
  for (; count_ <= index; ++count_) entries_[count_].set = false;
  return entries_[index];
}

void* FrameWriter::reserve(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes) {
  const std::size_t at = aligned(used_, kPayloadAlignment);
  needed_ = aligned(needed_, kPayloadAlignment) + bytes;
  if (rank > kMaxRank || at > slot_.bytes || bytes > slot_.bytes - at) {
    full_ = true;
    return nullptr;
  }
  refer(index, dtype, dims, rank, bytes, slot_.offset + at);
  used_ = at + bytes;
  return arena_ + slot_.offset + at;
}

void* FrameWriter::reserve_checked(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank,
                                   std::size_t bytes) {
  const std::size_t at = aligned(used_, kPayloadAlignment);
  if (at <= slot_.bytes && bytes <= slot_.bytes - at) {
    refused_ = room_for(arena_ + slot_.offset + at, bytes);
    if (!refused_.ok()) return nullptr;
  }
  return reserve(index, dtype, dims, rank, bytes);
}

void FrameWriter::refer(std::size_t index, DType dtype, const std::int64_t* dims, std::size_t rank, std::size_t bytes,
                        std::uint64_t offset) {
  Entry& entry = entry_at(index);
  entry.set = true;
  entry.dtype = dtype;
  entry.offset = offset;
  entry.bytes = bytes;
  entry.rank = rank;
  if (rank != 0) std::memcpy(entry.dims, dims, rank * sizeof(std::int64_t));
}

bool FrameWriter::finish(Span* table) {
  std::size_t bytes = sizeof(TableHead);
  for (std::size_t i = 0; i < count_; ++i) {
    if (!entries_[i].set) return false;
    bytes += entry_bytes(entries_[i].rank);
  }
  const std::size_t at = aligned(used_, sizeof(std::int64_t));
  needed_ = aligned(needed_, kPayloadAlignment) + bytes;
  if (full_ || at > slot_.bytes || bytes > slot_.bytes - at) {
    full_ = true;
    return false;
  }
  std::uint8_t* out = arena_ + slot_.offset + at;
  const TableHead head{static_cast<std::uint32_t>(count_), 0};
  std::memcpy(out, &head, sizeof head);
  out += sizeof head;
  for (std::size_t i = 0; i < count_; ++i) {
    const Entry& entry = entries_[i];
    const EntryHead packed{static_cast<std::int32_t>(entry.dtype), static_cast<std::uint32_t>(entry.rank), entry.offset,
                           entry.bytes};
    std::memcpy(out, &packed, sizeof packed);
    std::memcpy(out + sizeof packed, entry.dims, entry.rank * sizeof(std::int64_t));
    out += entry_bytes(entry.rank);
  }
  used_ = at + bytes;
  *table = {slot_.offset + at, bytes};
  return true;
}

Status read_frame(std::uint8_t* arena, Span table, Span table_room, Span payload_room, std::vector<TensorView>* out) {
  if (!table_room.holds(table.offset, table.bytes) || table.bytes < sizeof(TableHead)) {
    return corrupt("has its table at " + std::to_string(table.offset) + " with " + std::to_string(table.bytes) +
                   " bytes, outside [" + std::to_string(table_room.offset) + ", " +
                   std::to_string(table_room.offset + table_room.bytes) + ")");
  }
  const std::uint8_t* in = arena + table.offset;
  std::size_t left = table.bytes - sizeof(TableHead);
  TableHead head;
  fetch(&head, in, sizeof head);
  in += sizeof head;
  if (head.count > kMaxTensors || head.count > left / sizeof(EntryHead))
    return corrupt("claims " + std::to_string(head.count) + " tensors");
  out->resize(head.count);
  for (std::uint32_t i = 0; i < head.count; ++i) {
    EntryHead entry;
    if (left < sizeof entry) return corrupt("ends inside its table");
    fetch(&entry, in, sizeof entry);
    in += sizeof entry;
    left -= sizeof entry;
    if (entry.rank > kMaxRank || entry.rank * sizeof(std::int64_t) > left) {
      return corrupt("has a tensor of rank " + std::to_string(entry.rank));
    }
    TensorView& view = (*out)[i];
    view.dtype = static_cast<DType>(entry.dtype);
    view.shape.resize(entry.rank);
    if (entry.rank != 0) fetch(view.shape.data(), in, entry.rank * sizeof(std::int64_t));
    in += entry.rank * sizeof(std::int64_t);
    left -= entry.rank * sizeof(std::int64_t);
    std::size_t elements = 0;
    if (dtype_bits(view.dtype) == 0 || !count_elements(view.shape, &elements) ||
        packed_bytes(view.dtype, elements) != entry.bytes) {
      return corrupt("has a tensor of dtype number " + std::to_string(entry.dtype) + ", shape " + shape_text(view.shape) +
                     " and " + std::to_string(entry.bytes) + " bytes, which do not agree");
    }
    if (!payload_room.holds(entry.offset, entry.bytes)) {
      return corrupt("has a tensor at " + std::to_string(entry.offset) + " with " + std::to_string(entry.bytes) +
                     " bytes, outside its room");
    }
    if (entry.offset % kPayloadAlignment != 0 && entry.bytes != 0) return corrupt("has a tensor that is not aligned");
    view.data = arena + entry.offset;
    view.bytes = entry.bytes;
  }
  return Status();
}

}  // namespace ais::shm
