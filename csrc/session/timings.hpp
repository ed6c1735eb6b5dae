// Logs of times: executions of each session, copies of the process.
//
// A log keeps the newest kTimesKept entries (base/tuning.hpp), so that the memory of a process that serves for months does not
// grow. `total` counts all entries.
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

// Returns the error of a session's calls in a forked child.
inline Status forked_child() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from; make a new InferSession here");
}

template <typename T>
class TimeLog {
 public:
  // Drops the entry if there is no memory, because a time is not worth an error, and timers end in destructors.
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

  struct LogPart {
    std::vector<T> entries;
    std::uint64_t total = 0;   // number of entries since the last clear
    std::uint64_t clears = 0;  // number of clears: if it has changed, a reader must drop its entries
  };
  // Returns the kept entries from number `since` on (0: the first after a clear). ForkedChild in a forked child.
  Result<LogPart> read(std::uint64_t since) const {
    const auto log = log_.lock();
    if (!log) return forked_child();
    LogPart part;
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

// Copies between host and device of all sessions of the process, in milliseconds, with one entry for each transfer. On a device
// that reads host memory the entry is the time to pass the memory, including a copy if one was necessary.
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

// The same for transfers that follow each other: the end of one is the start of the next.
class CopyLaps {
 public:
  CopyLaps(TimeLog<float>* log, std::int64_t start_ns) : log_(log), last_ns_(start_ns) {}
  // Adds the time of a transfer that ends now.
  void add() {
    const std::int64_t now_ns = monotonic_ns();
    log_->add(static_cast<float>(static_cast<double>(now_ns - last_ns_) * 1e-6));
    last_ns_ = now_ns;
  }
  // Returns when the last transfer ended.
  std::int64_t last_ns() const { return last_ns_; }

 private:
  TimeLog<float>* log_;
  std::int64_t last_ns_;
};

}  // namespace ais::session
