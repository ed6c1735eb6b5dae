// The books over an arena: classes, free lists, and giving memory back.
#include "shm/slots.hpp"

#include <algorithm>
#include <utility>

#include "base/process.hpp"
#include "shm/layout.hpp"

namespace ais::shm {
namespace {

// What free slots may keep: enough for a few tasks of any usual size, and for a few of the sizes seen lately.
constexpr std::uint64_t kIdleLimit = std::uint64_t{256} << 20;
constexpr std::uint64_t kIdleTasks = 4;
// A slot that would pin this much more memory than its content needs is trimmed.
constexpr std::uint64_t kSlack = std::uint64_t{4} << 20;
// How many free slots are looked at for a warm one.
constexpr std::size_t kLookBack = 16;

std::uint64_t round_up_to_power_of_two(std::uint64_t value) {
  std::uint64_t power = kSmallSlot;
  while (power < value) power *= 2;
  return power;
}

}  // namespace

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    release();
    pool_ = std::move(other.pool_);
    slot_ = other.slot_;
  }
  return *this;
}

void Lease::release() {
  if (pool_ == nullptr) return;
  const std::shared_ptr<SlotPool> pool = std::move(pool_);
  pool->release(slot_);
}

void Lease::trim(std::uint64_t bytes) {
  if (slot_.touched <= bytes + bytes + kSlack || fork_generation() != pool_->generation_) return;
  pool_->punch(slot_.offset + bytes, slot_.touched - bytes);
  slot_.touched = bytes;
}

SlotPool::SlotPool(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large)
    : region_(std::move(region)), large_(large), generation_(fork_generation()), next_(first) {}

Lease SlotPool::acquire(std::uint64_t bytes, std::uint64_t warm) {
  if (bytes <= kSmallSlot) return acquire_from(kSmallSlot, warm);
  return acquire_large(bytes, warm);
}

Lease SlotPool::acquire_large(std::uint64_t bytes, std::uint64_t warm) {
  if (bytes > region_->size()) return Lease();
  return acquire_from(std::max(large_, round_up_to_power_of_two(bytes)), warm);
}

Lease SlotPool::acquire_from(std::uint64_t capacity, std::uint64_t warm) {
  const std::lock_guard<std::mutex> lock(mutex_);
  recent_peak_ = std::max(warm, recent_peak_ - recent_peak_ / 64);
  std::vector<Slot>& free = list_of(capacity).slots;
  if (!free.empty()) {
    std::size_t best = free.size() - 1;
    const std::size_t stop = free.size() > kLookBack ? free.size() - kLookBack : 0;
    for (std::size_t i = free.size(); i-- > stop && free[best].touched < warm;) {
      if (free[i].touched > free[best].touched) best = i;
    }
    const Slot slot = free[best];
    free.erase(free.begin() + static_cast<std::ptrdiff_t>(best));
    idle_bytes_ -= slot.touched;
    return Lease(shared_from_this(), slot);
  }
  if (next_ > region_->size() || capacity > region_->size() - next_) return Lease();
  const Slot slot{next_, capacity, 0};
  next_ += capacity;
  return Lease(shared_from_this(), slot);
}

SlotPool::FreeList& SlotPool::list_of(std::uint64_t capacity) {
  auto list = lists_.begin();
  while (list != lists_.end() && list->capacity > capacity) ++list;
  if (list == lists_.end() || list->capacity != capacity) list = lists_.insert(list, {capacity, {}});
  return *list;
}

void SlotPool::release(Slot slot) {
  if (fork_generation() != generation_) return;
  std::uint64_t limit = 0;
  bool over = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    list_of(slot.capacity).slots.push_back(slot);
    idle_bytes_ += slot.touched;
    limit = std::max(kIdleLimit, kIdleTasks * recent_peak_);
    over = idle_bytes_ > limit;
  }
  if (over) shrink(limit);
}

// A slot that is being punched is on nobody's list, so nobody can be handed it meanwhile.
void SlotPool::shrink(std::uint64_t limit) {
  while (std::optional<Slot> slot = take_coldest(limit)) {
    punch(slot->offset, slot->touched);
    slot->touched = 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Slot>& free = list_of(slot->capacity).slots;
    free.insert(free.begin(), *slot);
  }
}

void SlotPool::punch(std::uint64_t offset, std::uint64_t bytes) {
  region_->punch(offset, bytes);
  reinterpret_cast<Header*>(region_->data())->punched.fetch_add(1, std::memory_order_relaxed);
}

std::optional<Slot> SlotPool::take_coldest(std::uint64_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_bytes_ <= limit) return std::nullopt;
  for (FreeList& list : lists_) {  // the largest class first
    for (auto slot = list.slots.begin(); slot != list.slots.end(); ++slot) {
      if (slot->touched == 0) continue;
      const Slot taken = *slot;
      list.slots.erase(slot);
      idle_bytes_ -= taken.touched;
      return taken;
    }
  }
  return std::nullopt;
}

}  // namespace ais::shm
