// Statistics of the times of tasks: one histogram for each stage. Their memory does not grow.
//
// A histogram has 32 buckets for every doubling of the time, so the error of a quantile is at most 1.6 %. Count, sum and
// maximum are exact. Recording takes a few nanoseconds.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

namespace ais::shm {

class Histogram {
 public:
  void record(std::int64_t ns);
  void add(const Histogram& other);

  std::uint64_t count() const { return count_; }
  std::int64_t max() const { return max_; }
  double mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }
  // Returns the time that a share `q` of the records does not exceed; 0 without records.
  double quantile(double q) const;

 private:
  static constexpr int kSubBits = 5;
  static constexpr int kBuckets = (64 - kSubBits) << kSubBits;
  static int bucket_of(std::uint64_t ns);
  static double middle_of(int bucket);

  std::uint64_t count_ = 0;
  std::int64_t sum_ = 0;
  std::int64_t max_ = 0;
  std::array<std::uint64_t, kBuckets> buckets_{};
};

// One task's durations, in nanoseconds.
struct TaskTimes {
  std::int64_t queued = 0;      // from publishing until the worker took it
  std::int64_t copy_in = 0;     // the parent's copy into the slot, and the worker's to its device
  std::int64_t execute = 0;     // on the device
  std::int64_t copy_out = 0;    // from the device, and the parent's copy out of the slot
  std::int64_t end_to_end = 0;  // from the begin of submit until the caller has the reply
  std::int64_t preprocess = 0;  // the caller's functions, in the worker
  std::int64_t postprocess = 0;
  std::int64_t busy = 0;      // of the worker
  std::uint16_t unknown = 0;  // bits of UnknownTime (layout.hpp): these stages are left out of the statistics
};

// The use of a worker's time for an answer, in nanoseconds. During the first two the worker had no other task.
struct Occupied {
  std::int64_t queued = 0;   // the task was published, and the worker had not taken it
  std::int64_t copy_in = 0;  // the parent copied its feeds; and the copy to the device
  std::int64_t callables = 0;
  std::int64_t execute = 0;
  std::int64_t copy_out = 0;  // from the device
};

// Any thread.
class Stats {
 public:
  enum Stage { kQueued, kCopyIn, kExecute, kCopyOut, kEndToEnd, kPreprocess, kPostprocess, kStages };
  struct Snapshot {
    std::uint64_t tasks = 0;
    std::uint64_t failures = 0;
    std::int64_t busy_ns = 0;
    std::int64_t before_ns = 0;  // the part of `occupied` before workers took tasks
    Occupied occupied;
    std::array<Histogram, kStages> stages;
  };

  void record(const TaskTimes& times, bool failed);
  // `before_ns`: the part of it before the worker took the task.
  void occupy(const Occupied& occupied, std::int64_t before_ns);
  void add_busy(std::int64_t ns);  // of an unwanted task
  void add(const Snapshot& other);
  void reset();
  Snapshot snapshot() const;

 private:
  mutable std::mutex mutex_;
  Snapshot sum_;
};

constexpr std::array<const char*, Stats::kStages> kStageNames = {
    "queued_ms", "copy_in_ms", "execute_ms", "copy_out_ms", "end_to_end_ms", "preprocess_ms", "postprocess_ms"};

}  // namespace ais::shm
