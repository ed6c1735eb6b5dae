// The rankings, see ranking.hpp.
#include "pool/ranking.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/tuning.hpp"

namespace ais::pool {
namespace {

// Positive doubles have the same order as their bits.
Nanos bits_of(double factor) {
  Nanos bits = 0;
  std::memcpy(&bits, &factor, sizeof bits);
  return bits;
}

double factor_of(Nanos bits) {
  double factor = 0;
  std::memcpy(&factor, &bits, sizeof factor);
  return factor;
}

}  // namespace

// There is a heap for each shape, for workers with and without room, on the caller's processor and on others.
Ranking::Ranking(std::uint32_t kind) : kind_(kind), heaps_(4 * kShapes) {}

void Ranking::reset(std::size_t workers) {
  heaps_.reset(workers);
  parts_.assign(workers, Terms());
  loose_.clear();
  roomy_ = 0;
  rate_ = loose_rate_ = fixed_ = slope_ = 0;
  changes_ = 0;
  base_ = kUnknown;
}

void Ranking::add(const Terms& part, double sign) {
  rate_ += sign * part.rate;
  loose_rate_ += sign * part.loose_rate;
  fixed_ += sign * part.fixed;
  slope_ += sign * part.slope;
}

void Ranking::put(std::size_t position, const Glance& glance, const Outlook& outlook, int skip, int avoid_cpu) {
  Terms& part = parts_[position];
  add(part, -1);
  roomy_ -= part.roomy;
  const bool listed = part.loose;
  part = Terms();
  part.expects = std::max<Nanos>(0, outlook.expected);
  Nanos key = 0;
  Shape shape = kIdle;
  const auto each = static_cast<double>(std::max<Nanos>(1, part.expects));
  if (glance.in_hand == 0) {
    shape = outlook.factor > 0 ? kLoose : kIdle;
    key = outlook.factor > 0 ? bits_of(outlook.factor) : part.expects;
  } else {
    shape = glance.due == kUnknown ? kPlaced : glance.overdue ? kOverdue : kDue;
    key = glance.rest + (shape == kPlaced ? glance.whole : shape == kDue ? glance.due : glance.whole / 4 - glance.due);
    if (base_ == kUnknown && glance.due != kUnknown) base_ = glance.due;
    const Nanos since = shape == kDue ? key - base_ : shape == kOverdue ? key + base_ : key;
    part.fixed = static_cast<double>(since) / each;
    part.slope = (shape == kDue ? -1.0 : shape == kOverdue ? 1.0 : 0.0) / each;
    key += part.expects;
    part.loose = outlook.factor > 0;
  }
  if (shape == kLoose) {
    part.loose_rate = 1 / outlook.factor;
  } else {
    part.rate = 1 / each;
  }
  if (!glance.open || outlook.expected == kUnknown) part.rate = part.loose_rate = part.fixed = part.slope = 0;
  part.roomy = glance.usable && !glance.full && static_cast<int>(glance.in_hand) < outlook.limit;
  roomy_ += part.roomy;
  add(part, 1);
  if (part.loose && !listed) loose_.push_back(static_cast<std::uint32_t>(position));
  part.loose = part.loose || listed;
  if (++changes_ == tuning::kSumAgain) {
    changes_ = 0;
    rate_ = loose_rate_ = fixed_ = slope_ = 0;
    for (const Terms& one : parts_) add(one, 1);
  }
  const bool knows = outlook.expected != kUnknown && !glance.unknown;
  const bool pinned = glance.only_cpu != kNoCpu;
  if (!glance.usable || (pinned && glance.only_cpu == skip) || (glance.in_hand > 0 && !knows && !outlook.queues)) {
    heaps_.take(position);
    return;
  }
  const std::size_t group = (pinned && glance.only_cpu == avoid_cpu ? 2 : 0) + (part.roomy ? 1 : 0);
  heaps_.put(position, group * kShapes + shape, key, glance.in_hand);
}

std::vector<std::uint32_t> Ranking::take_loose() {
  if (mean_ == followed_mean_ || loose_.empty()) return {};
  followed_mean_ = mean_;
  for (const std::uint32_t position : loose_) parts_[position].loose = false;
  return std::exchange(loose_, {});
}

Nanos Ranking::finish(Shape shape, Nanos key, Nanos now) const {
  switch (shape) {
    case kLoose:
      return now + static_cast<Nanos>(std::min(mean_ * factor_of(key), 9e17));
    case kDue:
      return key;
    case kOverdue:
      return 2 * now + key;
    default:
      return now + key;
  }
}

Ranking::Choices Ranking::choose(Nanos now) const {
  Choices choices;
  for (std::size_t group = 0; group < 4; ++group) {
    const bool room = group % 2 == 1;
    for (std::size_t shape = 0; shape < kShapes; ++shape) {
      const Heaps::Entry* entry = heaps_.first(group * kShapes + shape);
      if (entry == nullptr) continue;
      Choice one;
      one.finish = finish(static_cast<Shape>(shape), entry->key, now);
      one.in_hand = entry->second;
      one.position = entry->position;
      one.expects = shape == kLoose ? one.finish - now : parts_[entry->position].expects;
      if (group >= 2) one.finish += tuning::kSameProcessorNs;
      if (one.finish < choices.any.finish) choices.any = one;
      if (!room) continue;
      if (one.in_hand == 0 && one.finish < choices.idle.finish) choices.idle = one;
      if (one.finish < choices.with_room.finish ||
          (one.finish == choices.with_room.finish && one.in_hand < choices.with_room.in_hand)) {
        choices.with_room = one;
      }
    }
  }
  return choices;
}

}  // namespace ais::pool
