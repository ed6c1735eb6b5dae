// Waits for a device by polling, with pauses between the queries.
//
// AscendCL's waits with a time-out cannot be used for this: for CANN a wait that times out is an error, with an ERROR line and
// a snapshot of the stream. So a wait polls whether the work has ended. The first pause lasts until shortly before the work
// usually ends; later pauses are a small part of the time waited. So a wait needs few queries, and notices the end one or two
// percent late.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/process.hpp"
#include "base/status.hpp"
#include "base/tuning.hpp"

namespace ais::acl {

// The usual time of one kind of wait. Any thread.
class Pace {
 public:
  // Calls `ended()`, a Result<bool>, until it is true or fails. Between the queries it calls `unwanted(look)`, a Status whose
  // failure ends the wait; `look`: also check for signals. `relaxed`: the end may be noticed later, because other work is
  // queued.
  template <typename Ended, typename Unwanted>
  Status wait(bool relaxed, Ended ended, Unwanted unwanted) {
    const std::int64_t begin = monotonic_ns();
    std::int64_t looked = begin;
    for (int pauses = 0;; ++pauses) {
      AIS_ASSIGN(const bool done, ended());
      const std::int64_t now = monotonic_ns();
      if (done) {
        learn(relaxed, now - begin, pauses);
        return Status();
      }
      const bool woken = !pause(next(relaxed, now - begin, pauses));
      const bool look = woken || monotonic_ns() - looked >= tuning::kAclSignalLookNs;
      if (look) looked = monotonic_ns();
      AIS_TRY(unwanted(look));
    }
  }

 private:
  // Returns the next pause in nanoseconds.
  std::int64_t next(bool relaxed, std::int64_t waited, int pauses) const;
  void learn(bool relaxed, std::int64_t waited, int pauses);
  // Returns false if a signal ended the pause.
  static bool pause(std::int64_t ns);

  std::atomic<std::int64_t> usual_ns_[2] = {0, 0};  // of hurried waits, and of relaxed ones
};

}  // namespace ais::acl
