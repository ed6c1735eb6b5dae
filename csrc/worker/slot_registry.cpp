// Registers ranges; see slot_registry.hpp for the rules.
#include "worker/slot_registry.hpp"

#include <algorithm>

#include "base/tuning.hpp"

namespace ais::worker {
namespace {

constexpr std::uintptr_t kPage = 4096;  // the minimum for AscendCL

}  // namespace

void SlotRegistry::use(User* user, const void* data, std::size_t bytes) {
  if (bytes == 0 || (refused_ && registered_bytes_ == 0)) return;
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = address / kPage * kPage;
  const std::uintptr_t end = (address + bytes + kPage - 1) / kPage * kPage;
  if (bytes < tuning::kRegisterFrom && !is_known(begin, end)) return;
  const auto entry = covering(begin, end);
  if (entry == ranges_.end()) return;
  Range& range = entry->second;
  if (range.users == 0) renew(entry, user->punched);
  if (range.last_task != user->task) ++range.tasks;
  range.last_task = user->task;
  range.punched = user->punched;
  if (range.tasks > tuning::kTasksBeforeRegister && !range.registered) add(entry->first, &range);
  if (!range.registered) return;
  if (std::find(user->ranges.begin(), user->ranges.end(), entry->first) != user->ranges.end()) return;
  ++range.users;
  user->ranges.push_back(entry->first);
}

bool SlotRegistry::is_known(std::uintptr_t begin, std::uintptr_t end) const {
  const auto after = ranges_.lower_bound(end);
  return after != ranges_.begin() && std::prev(after)->second.end > begin;
}

// Returns the range that contains [begin, end), merged from all ranges that overlap it. None if one of these is in use and
// would have to change; it changes at its next use.
SlotRegistry::Ranges::iterator SlotRegistry::covering(std::uintptr_t begin, std::uintptr_t end) {
  auto first = ranges_.upper_bound(begin);
  if (first != ranges_.begin() && std::prev(first)->second.end > begin) --first;
  if (first != ranges_.end() && first->first <= begin) {
    end = std::max(end, first->second.users == 0 ? first->second.wanted_end : end);
    if (first->second.end >= end) return first;
  }
  Range whole;
  auto last = first;
  for (; last != ranges_.end() && last->first < end; ++last) {
    Range& old = last->second;
    old.wanted_end = std::max(old.wanted_end, end);
    if (old.users != 0) return ranges_.end();
    begin = std::min(begin, last->first);
    end = std::max(end, old.end);
    whole.last_task = std::max(whole.last_task, old.last_task);
    whole.tasks = std::max(whole.tasks, old.tasks);
  }
  for (auto old = first; old != last; ++old) drop(old->first, &old->second);
  ranges_.erase(first, last);
  whole.end = whole.wanted_end = end;
  return ranges_.emplace(begin, whole).first;
}

// R2
void SlotRegistry::renew(Ranges::iterator entry, std::uint64_t punched) {
  Range& range = entry->second;
  if (!range.registered || range.punched == punched) return;
  drop(entry->first, &range);
  range.tasks = 0;
  range.last_task = 0;
}

void SlotRegistry::add(std::uintptr_t begin, Range* range) {
  const std::size_t bytes = range->end - begin;
  if (refused_ || bytes > tuning::kMostRegistered - registered_bytes_) return;
  if (!device_->register_host(reinterpret_cast<void*>(begin), bytes).ok()) return refuse();
  range->registered = true;
  registered_bytes_ += bytes;
}

void SlotRegistry::drop(std::uintptr_t begin, Range* range) {
  if (!range->registered) return;
  range->registered = false;
  registered_bytes_ -= range->end - begin;
  // If the device cannot unregister a range, it cannot register it again. From then on the host copies everything.
  if (!device_->unregister_host(reinterpret_cast<void*>(begin)).ok()) refuse();
}

void SlotRegistry::refuse() {
  if (!std::exchange(refused_, true) && tell_) tell_();
}

void SlotRegistry::end(const User& user) {
  for (const std::uintptr_t begin : user.ranges) {
    const auto range = ranges_.find(begin);
    if (range != ranges_.end()) --range->second.users;
  }
}

void SlotRegistry::unregister_all() {
  tell_ = nullptr;
  for (auto& [begin, range] : ranges_) drop(begin, &range);
  ranges_.clear();
}

}  // namespace ais::worker
