// Times that are always kept: executions per session, copies per process.
//
// A log keeps the newest kTimesKept entries (base/tuning.hpp), so that a process that serves for months does not grow; `total`
// goes on counting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "base/guarded.hpp"
#include "base/process.hpp"
#include "base/status.hpp"
#include "base/tuning.hpp"

namespace ais::session {

// What everything of a session answers in a child that was forked from its process.
inline Status forked_child() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from; make a new InferSession here");
}

template <typename T>
class TimeLog {
 public:
  // Where memory is short the entry is left out: a time is worth no failure, and timers end in destructors.
  void add(const T& entry) noexcept {
    const auto log = log_.lock();
    if (!log) return;
    try {
      if (log->entries.size() < tuning::kTimesKept) {
        log->entries.push_back(entry);
      } else {
        log->entries[log->total % tuning::kTimesKept] = entry;
      }
      ++log->total;
    } catch (const std::bad_alloc&) {
    }
  }

  struct Part {
    std::vector<T> entries;
    std::uint64_t total = 0;   // how many there were in all
    std::uint64_t clears = 0;  // how often they were cleared: whether what a reader has already still counts
  };
  // The entries from number `since` on (0 is the first ever after a clear), as far as they are kept. ForkedChild there.
  Result<Part> read(std::uint64_t since) const {
    const auto log = log_.lock();
    if (!log) return forked_child();
    Part part;
    part.total = log->total;
    part.clears = log->clears;
    const std::uint64_t oldest = log->total - log->entries.size();
    for (std::uint64_t i = since < oldest ? oldest : since; i < log->total; ++i) {
      part.entries.push_back(log->entries[log->entries.size() < tuning::kTimesKept ? i : i % tuning::kTimesKept]);
    }
    return part;
  }

  Status clear() {
    const auto log = log_.lock();
    if (!log) return forked_child();
    log->entries = {};  // with its memory
    log->total = 0;
    ++log->clears;
    return Status();
  }

 private:
  struct Log {
    std::vector<T> entries;  // a ring once it is full
    std::uint64_t total = 0;
    std::uint64_t clears = 0;
  };
  Guarded<Log> log_;
};

// One execution, in milliseconds since the session was made.
struct Execution {
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
