// Allocates slots: free lists by capacity, and the release of memory.
#include "shm/slots.hpp"

#include <algorithm>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "shm/layout.hpp"

namespace ais::shm {
namespace {

std::uint64_t round_up_to_power_of_two(std::uint64_t value) {
  std::uint64_t power = tuning::kSmallSlot;
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
  if (slot_.touched <= bytes + bytes + tuning::kSlackBytes || fork_generation() != pool_->generation_) return;
  pool_->punch(slot_.offset + bytes, slot_.touched - bytes);
  slot_.touched = bytes;
}

namespace {

// The slot pools of this process, for trim_all.
struct Pools {
  std::mutex lock;
  std::vector<std::weak_ptr<SlotPool>> all;  // guarded by lock
};

Pools& pools() {
  static PerProcess<Pools> pools;
  return pools.get();
}

}  // namespace

std::shared_ptr<SlotPool> SlotPool::create(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large) {
  auto made = std::shared_ptr<SlotPool>(new SlotPool(std::move(region), first, large));
  Pools& known = pools();
  const std::lock_guard<std::mutex> guard(known.lock);
  known.all.erase(std::remove_if(known.all.begin(), known.all.end(), [](const auto& pool) { return pool.expired(); }),
                  known.all.end());
  known.all.push_back(made);
  return made;
}

std::uint64_t SlotPool::trim_all() {
  std::vector<std::weak_ptr<SlotPool>> all;
  {
    Pools& known = pools();
    const std::lock_guard<std::mutex> guard(known.lock);
    all = known.all;
  }
  std::uint64_t released = 0;
  for (const auto& known : all) {
    if (const auto pool = known.lock()) released += pool->shrink(0);
  }
  return released;
}

SlotPool::SlotPool(std::shared_ptr<Region> region, std::uint64_t first, std::uint64_t large)
    : region_(std::move(region)), large_(large), generation_(fork_generation()) {
  if (first < region_->size()) unused_.push_back({first, region_->size() - first});
}

Lease SlotPool::acquire(std::uint64_t bytes, std::uint64_t warm) {
  if (bytes <= tuning::kSmallSlot) return acquire_from(tuning::kSmallSlot, tuning::kSmallSlot, warm);
  return acquire_large(bytes, warm);
}

Lease SlotPool::acquire_large(std::uint64_t bytes, std::uint64_t warm) {
  if (bytes > region_->size()) return Lease();
  const std::uint64_t least =
      std::max<std::uint64_t>((bytes + tuning::kSmallSlot - 1) / tuning::kSmallSlot, 1) * tuning::kSmallSlot;
  return acquire_from(std::max(large_, round_up_to_power_of_two(bytes)), least, warm);
}

Lease SlotPool::acquire_from(std::uint64_t capacity, std::uint64_t least, std::uint64_t warm) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    recent_peak_ = std::max(warm, recent_peak_ - recent_peak_ / 64);
    std::optional<Slot> slot = take_free(capacity, warm);
    if (!slot) slot = cut(capacity);
    if (slot) return Lease(shared_from_this(), *slot);
  }
  const std::lock_guard<std::mutex> joining(join_mutex_);
  for (const std::uint64_t wanted : {capacity, least}) {
    if (const std::optional<Slot> slot = join(wanted)) return Lease(shared_from_this(), *slot);
  }
  return Lease();
}

std::optional<Slot> SlotPool::take_free(std::uint64_t capacity, std::uint64_t warm) {
  const auto list = std::find_if(lists_.begin(), lists_.end(), [&](const FreeList& one) { return one.capacity == capacity; });
  if (list == lists_.end() || list->slots.empty()) return std::nullopt;
  std::vector<Slot>& free = list->slots;
  std::size_t best = free.size() - 1;
  const std::size_t stop = free.size() > tuning::kLookBack ? free.size() - tuning::kLookBack : 0;
  for (std::size_t i = free.size(); i-- > stop && free[best].touched < warm;) {
    if (free[i].touched > free[best].touched) best = i;
  }
  const Slot slot = free[best];
  free.erase(free.begin() + static_cast<std::ptrdiff_t>(best));
  idle_bytes_ -= slot.touched;
  return slot;
}

std::optional<Slot> SlotPool::cut(std::uint64_t capacity) {
  const auto from = std::find_if(unused_.begin(), unused_.end(), [&](const Span& span) { return span.bytes >= capacity; });
  if (from == unused_.end()) return std::nullopt;
  count_one(capacity);
  const Slot slot{from->offset, capacity, 0};
  from->offset += capacity;
  from->bytes -= capacity;
  if (from->bytes == 0) unused_.erase(from);
  return slot;
}

// Returns the first range of unused memory and free slots that is large enough; an empty range: there is none.
Span SlotPool::joinable(std::uint64_t capacity) const {
  std::vector<Span> free = unused_;
  for (const FreeList& list : lists_) {
    for (const Slot& slot : list.slots) free.push_back({slot.offset, slot.capacity});
  }
  std::sort(free.begin(), free.end(), [](const Span& a, const Span& b) { return a.offset < b.offset; });
  Span stretch;
  for (const Span& span : free) {
    if (stretch.offset + stretch.bytes != span.offset) stretch = {span.offset, 0};
    stretch.bytes += span.bytes;
    if (stretch.bytes >= capacity) return stretch;
  }
  return Span();
}

// Slots that are being joined are on no list, so no other thread can get them. A thread without room because of this waits
// here.
std::optional<Slot> SlotPool::join(std::uint64_t capacity) {
  Span stretch;
  std::vector<Slot> joined;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stretch = joinable(capacity);
    if (stretch.bytes == 0) return std::nullopt;
    const auto within = [&](std::uint64_t offset, std::uint64_t bytes) { return stretch.holds(offset, bytes); };
    for (const FreeList& list : lists_) {
      for (const Slot& slot : list.slots) {
        if (within(slot.offset, slot.capacity)) joined.push_back(slot);
      }
    }
    unused_.reserve(unused_.size() + 1);  // for the remaining range; nothing below allocates
    count_one(capacity);
    for (FreeList& list : lists_) {
      const auto gone = std::remove_if(list.slots.begin(), list.slots.end(),
                                       [&](const Slot& slot) { return within(slot.offset, slot.capacity); });
      list.cut -= static_cast<std::size_t>(list.slots.end() - gone);
      list.slots.erase(gone, list.slots.end());
    }
    for (const Slot& slot : joined) idle_bytes_ -= slot.touched;
    unused_.erase(
        std::remove_if(unused_.begin(), unused_.end(), [&](const Span& span) { return within(span.offset, span.bytes); }),
        unused_.end());
  }
  for (const Slot& slot : joined) {
    if (slot.touched != 0) punch(slot.offset, aligned(slot.touched, tuning::kSmallSlot));
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const Span rest{stretch.offset + capacity, stretch.bytes - capacity};
  const auto after = std::find_if(unused_.begin(), unused_.end(), [&](const Span& span) { return span.offset > rest.offset; });
  if (rest.bytes != 0) unused_.insert(after, rest);
  return Slot{stretch.offset, capacity, 0};
}

SlotPool::FreeList& SlotPool::list_of(std::uint64_t capacity) {
  auto list = lists_.begin();
  while (list != lists_.end() && list->capacity > capacity) ++list;
  if (list == lists_.end() || list->capacity != capacity) list = lists_.insert(list, {capacity, 0, {}});
  return *list;
}

// S6
void SlotPool::count_one(std::uint64_t capacity) {
  FreeList& list = list_of(capacity);
  if (list.slots.capacity() <= list.cut) list.slots.reserve(2 * list.cut + 1);
  ++list.cut;
}

void SlotPool::release(Slot slot) {
  if (fork_generation() != generation_) return;
  std::uint64_t limit = 0;
  bool over = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    list_of(slot.capacity).slots.push_back(slot);  // S6
    idle_bytes_ += slot.touched;
    limit = std::max(tuning::kIdleBytes, tuning::kIdleTasks * recent_peak_);
    over = idle_bytes_ > limit;
  }
  if (over) shrink(limit);
}

// A slot that is being punched is on no list, so no other thread can get it meanwhile.
std::uint64_t SlotPool::shrink(std::uint64_t limit) {
  std::uint64_t released = 0;
  while (std::optional<Slot> slot = take_coldest(limit)) {
    punch(slot->offset, aligned(slot->touched, tuning::kSmallSlot));
    released += slot->touched;
    slot->touched = 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Slot>& free = list_of(slot->capacity).slots;
    free.insert(free.begin(), *slot);
  }
  return released;
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
