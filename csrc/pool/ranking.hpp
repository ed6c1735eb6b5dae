// Workers in the order in which they would be done with one more task of a kind. Choosing looks at a few heaps' first entries
// instead of at every worker: at the start of a task and at its end one worker changes its place, and no other.
//
// When a worker would be done is one of these functions of the time, and in each the order of workers does not depend on it:
//
//   kIdle     now + key           it has nothing to do
//   kLoose    now + key * mean    the same, but what it takes is only known by the times of all workers, which change
//   kPlaced   now + key           what it has in hand first is on its way there
//   kDue      key                 that should be done at a known time
//   kOverdue  2 * now + key       and that is over: the longer it takes, the longer it is expected to
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pool/heaps.hpp"

namespace ais::pool {

using Nanos = std::int64_t;

constexpr Nanos kUnknown = -1;
constexpr Nanos kNever = INT64_MAX;
constexpr int kNoCpu = -1;

// Of one worker, whatever the kind of task.
struct Glance {
  Nanos due = kUnknown;  // when the oldest task in hand should be done; unknown: it is on its way there
  Nanos whole = 0;       // what that one is expected to take
  Nanos rest = 0;        // and the others
  std::uint32_t in_hand = 0;
  int only_cpu = kNoCpu;
  bool usable = false;
  bool open = false;
  bool full = false;
  bool unknown = false;  // something in hand is of unknown time
  bool overdue = false;

  // When it is expected to be through with what it has.
  Nanos free_at(Nanos now) const {
    if (in_hand == 0) return now;
    if (due == kUnknown) return now + whole + rest;
    if (now < due) return due + rest;
    return now + (now - due) + whole / 4 + rest;
  }
};

// What is known of a worker and a kind.
struct Outlook {
  Nanos expected = kUnknown;
  double factor = 0;    // not 0: `expected` is this times the mean of all workers
  int limit = 1;        // how many it is handed at a time
  bool queues = false;  // it gets more than one although their time is unknown
};

class Ranking {
 public:
  explicit Ranking(std::uint32_t kind);

  std::uint32_t kind() const { return kind_; }
  void reset(std::size_t workers);
  void put(std::size_t position, const Glance& glance, const Outlook& outlook, int skip, int shun);
  // What all workers take on average, once that is known.
  void set_mean(double mean) { mean_ = mean; }
  // Workers whose place depends on the mean and has not followed it.
  std::vector<std::uint32_t> take_loose();

  struct Choice {
    Nanos finish = kNever;
    Nanos expects = 0;
    std::uint32_t in_hand = 0;
    std::uint32_t position = 0;
    bool found() const { return finish != kNever; }
  };
  struct Choices {
    Choice any;        // that would finish it first
    Choice with_room;  // of those that can take it now
    Choice idle;       // of those that have nothing to do
  };
  Choices choose(Nanos now) const;
  // Workers that have room for one more, wherever they are pinned.
  std::size_t roomy() const { return roomy_; }
  // How many tasks of this kind all workers do in a nanosecond, and have in hand.
  double rate() const { return rate_ + (mean_ > 0 ? loose_rate_ / mean_ : 0); }
  double backlog(Nanos now) const { return fixed_ + slope_ * static_cast<double>(now - base_); }

  // For the owner: which changes of workers it has followed, and when it was used last.
  std::uint64_t followed = 0;
  std::uint64_t used = 0;
  bool stale = true;

 private:
  enum Shape : std::size_t { kIdle, kLoose, kPlaced, kDue, kOverdue, kShapes };
  struct Part {
    double rate = 0;
    double loose_rate = 0;
    double fixed = 0;
    double slope = 0;
    Nanos expects = 0;
    bool roomy = false;
    bool loose = false;  // and has something in hand: see take_loose
  };
  Nanos finish(Shape shape, Nanos key, Nanos now) const;
  void add(const Part& part, double sign);

  const std::uint32_t kind_;
  Heaps heaps_;
  std::vector<Part> parts_;
  std::vector<std::uint32_t> loose_;
  std::size_t roomy_ = 0;
  double mean_ = 0;
  double followed_mean_ = 0;
  double rate_ = 0;
  double loose_rate_ = 0;
  double fixed_ = 0;
  double slope_ = 0;
  Nanos base_ = kUnknown;  // times are counted from here, for the sums' sake
  std::uint32_t changes_ = 0;
};

}  // namespace ais::pool
