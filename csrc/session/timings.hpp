// Times that are always kept: executions per session, copies per process.
//
// A log keeps the newest kKept entries, so that a process that serves for months does not grow; `total` goes on counting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "base/process.hpp"

namespace ais::session {

template <typename T>
class TimeLog {
 public:
  static constexpr std::size_t kKept = std::size_t{1} << 20;

  void add(const T& entry) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (entries_.size() < kKept) {
      entries_.push_back(entry);
    } else {
      entries_[total_ % kKept] = entry;
    }
    ++total_;
  }

  // The entries from number `since` on (0 is the first ever after a clear), as far as they are kept, and how many there were in
  // all. `clears` counts the clear() calls, so that a reader that has some already knows whether they still count.
  std::vector<T> read(std::uint64_t since, std::uint64_t* total, std::uint64_t* clears) const {
    const std::lock_guard<std::mutex> guard(lock_);
    *total = total_;
    *clears = clears_;
    std::vector<T> result;
    const std::uint64_t oldest = total_ - entries_.size();
    for (std::uint64_t i = since < oldest ? oldest : since; i < total_; ++i) {
      result.push_back(entries_[entries_.size() < kKept ? i : i % kKept]);
    }
    return result;
  }

  void clear() {
    const std::lock_guard<std::mutex> guard(lock_);
    entries_ = {};  // with its memory
    total_ = 0;
    ++clears_;
  }

 private:
  mutable std::mutex lock_;
  std::vector<T> entries_;  // guarded by lock_, like the rest; a ring once it is full
  std::uint64_t total_ = 0;
  std::uint64_t clears_ = 0;
};

// One execution, in milliseconds since the session was made.
struct Span {
  double start_ms;
  double end_ms;
};

// Copies between host and device of all sessions of the process, in milliseconds, one entry a transfer. On a device that reads
// host memory the entry is the time it took to hand the memory over, copy included where one was needed.
struct MemoryTimes {
  TimeLog<float> to_device;
  TimeLog<float> to_host;
};
MemoryTimes& memory_times();

// Adds the time from its construction to its end to a log.
class CopyTimer {
 public:
  explicit CopyTimer(TimeLog<float>* log) : log_(log), start_ns_(monotonic_ns()) {}
  ~CopyTimer() { log_->add(static_cast<float>(static_cast<double>(monotonic_ns() - start_ns_) * 1e-6)); }
  CopyTimer(const CopyTimer&) = delete;
  CopyTimer& operator=(const CopyTimer&) = delete;

 private:
  TimeLog<float>* log_;
  std::int64_t start_ns_;
};

}  // namespace ais::session
