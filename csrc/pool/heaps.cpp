// The heaps, see heaps.hpp.
#include "pool/heaps.hpp"

namespace ais::pool {

void Heaps::reset(std::size_t workers) {
  for (std::vector<Entry>& heap : heaps_) heap.clear();
  where_.assign(workers, Where());
}

void Heaps::put(std::size_t position, std::size_t heap, std::int64_t key, std::uint32_t second) {
  Where& where = where_[position];
  const Entry entry{key, second, static_cast<std::uint32_t>(position)};
  if (where.heap != heap) {
    take(position);
    where.heap = static_cast<std::uint32_t>(heap);
    where.index = static_cast<std::uint32_t>(heaps_[heap].size());
    heaps_[heap].push_back(entry);
  }
  sift(&heaps_[heap], where.index, entry);
}

void Heaps::take(std::size_t position) {
  const Where was = where_[position];
  if (was.heap == kNowhere) return;
  std::vector<Entry>& heap = heaps_[was.heap];
  const Entry last = heap.back();
  heap.pop_back();
  where_[position].heap = kNowhere;
  if (was.index < heap.size()) sift(&heap, was.index, last);
}

// Moves the entry from the free place `index` to its position in the heap.
void Heaps::sift(std::vector<Entry>* heap, std::size_t index, Entry entry) {
  std::vector<Entry>& entries = *heap;
  const auto move = [&](std::size_t from, std::size_t to) {
    entries[to] = entries[from];
    where_[entries[to].position].index = static_cast<std::uint32_t>(to);
  };
  while (index > 0 && entry < entries[(index - 1) / 2]) {
    move((index - 1) / 2, index);
    index = (index - 1) / 2;
  }
  while (2 * index + 1 < entries.size()) {
    std::size_t child = 2 * index + 1;
    if (child + 1 < entries.size() && entries[child + 1] < entries[child]) ++child;
    if (!(entries[child] < entry)) break;
    move(child, index);
    index = child;
  }
  entries[index] = entry;
  where_[entry.position].index = static_cast<std::uint32_t>(index);
}

}  // namespace ais::pool
