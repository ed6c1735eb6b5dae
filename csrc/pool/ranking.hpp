// Workers in the order in which they would finish one more task of a kind. A choice checks the first entries of a few heaps
// instead of every worker: the start or the end of a task changes the position of one worker only.
//
// The time at which a worker would finish is one of these functions of the current time. Under each of them the order of
// workers does not depend on the current time:
//
//   kIdle     now + key           it holds no task
//   kLoose    now + key * mean    the same, but its time is only known from the times of all workers, which change
//   kPlaced   now + key           its first task is on its way to it
//   kDue      key                 its first task should be finished at a known time
//   kOverdue  2 * now + key       that time is over: the longer the task takes, the longer it is expected to take
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

// The load of one worker, for all kinds of tasks.
struct Glance {
  Nanos due = kUnknown;  // when the oldest held task should be finished; unknown: it is on its way to the worker
  Nanos whole = 0;       // the expected time of that task
  Nanos rest = 0;        // the expected time of the others
  std::uint32_t in_hand = 0;
  int only_cpu = kNoCpu;
  bool usable = false;
  bool open = false;
  bool full = false;
  bool unknown = false;  // a held task has an unknown time
  bool overdue = false;

  // When it is expected to finish the tasks that it holds.
  Nanos free_at(Nanos now) const {
    if (in_hand == 0) return now;
    if (due == kUnknown) return now + whole + rest;
    if (now < due) return due + rest;
    return now + (now - due) + whole / 4 + rest;
  }
};

// The estimate for a worker and a kind.
struct Outlook {
  Nanos expected = kUnknown;
  double factor = 0;    // not 0: `expected` is this times the mean of all workers
  int limit = 1;        // how many it holds at a time
  bool queues = false;  // whether it gets more than one although their time is unknown
};

class Ranking {
 public:
  explicit Ranking(std::uint32_t kind);

  std::uint32_t kind() const { return kind_; }
  void reset(std::size_t workers);
  void put(std::size_t position, const Glance& glance, const Outlook& outlook, int skip, int avoid_cpu);
  // The mean time of all workers, once it is known.
  void set_mean(double mean) { mean_ = mean; }
  // Workers whose position depends on the mean and was not updated with it.
  std::vector<std::uint32_t> take_loose();

  struct Choice {
    Nanos finish = kNever;
    Nanos expects = 0;
    std::uint32_t in_hand = 0;
    std::uint32_t position = 0;
    bool found() const { return finish != kNever; }
  };
  struct Choices {
    Choice any;        // the worker that would finish it first
    Choice with_room;  // the first among those that can take it now
    Choice idle;       // the first among those without tasks
  };
  Choices choose(Nanos now) const;
  // Workers that have room for one more, on any processor.
  std::size_t roomy() const { return roomy_; }
  // How many tasks of this kind all workers finish in a nanosecond, and how many they hold.
  double rate() const { return rate_ + (mean_ > 0 ? loose_rate_ / mean_ : 0); }
  double backlog(Nanos now) const { return fixed_ + slope_ * static_cast<double>(now - base_); }

  // For the owner: which changes of workers it has followed, and when it was used last.
  std::uint64_t followed = 0;
  std::uint64_t used = 0;
  bool stale = true;

 private:
  enum Shape : std::size_t { kIdle, kLoose, kPlaced, kDue, kOverdue, kShapes };
  struct Terms {
    double rate = 0;
    double loose_rate = 0;
    double fixed = 0;
    double slope = 0;
    Nanos expects = 0;
    bool roomy = false;
    bool loose = false;  // and has something in hand: see take_loose
  };
  Nanos finish(Shape shape, Nanos key, Nanos now) const;
  void add(const Terms& part, double sign);

  const std::uint32_t kind_;
  Heaps heaps_;
  std::vector<Terms> parts_;
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
