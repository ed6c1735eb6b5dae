// Keeps workers in several heaps, each worker in at most one. The order is by key, then `second`, then position. A change costs
// the logarithm of a heap's size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ais::pool {

class Heaps {
 public:
  struct Entry {
    std::int64_t key;
    std::uint32_t second;
    std::uint32_t position;
    bool operator<(const Entry& other) const {
      if (key != other.key) return key < other.key;
      return second != other.second ? second < other.second : position < other.position;
    }
  };

  explicit Heaps(std::size_t heaps) : heaps_(heaps) {}

  // Empties all heaps, for this many workers.
  void reset(std::size_t workers);
  // Moves the worker to this heap.
  void put(std::size_t position, std::size_t heap, std::int64_t key, std::uint32_t second = 0);
  void take(std::size_t position);
  // Returns the first entry; null: the heap is empty.
  const Entry* first(std::size_t heap) const { return heaps_[heap].empty() ? nullptr : heaps_[heap].data(); }

 private:
  static constexpr std::uint32_t kNowhere = UINT32_MAX;
  struct Where {
    std::uint32_t heap = kNowhere;
    std::uint32_t index = 0;
  };
  void sift(std::vector<Entry>* heap, std::size_t index, Entry entry);

  std::vector<std::vector<Entry>> heaps_;
  std::vector<Where> where_;  // by position
};

}  // namespace ais::pool
