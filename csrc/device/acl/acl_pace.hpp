// Waiting for a device by asking it, with pauses in between.
//
// AscendCL's waits with a time-out are no way to look around now and then: to CANN a wait that runs out is an error, for which
// it writes an ERROR line and takes a snapshot of the stream. So a wait asks whether the work has ended, again and again. The
// first pause lasts until shortly before the work usually ends, later ones are a small part of the time waited, so a wait
// costs few questions, and its end is noticed late by a percent or two.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/process.hpp"
#include "base/status.hpp"
#include "base/tuning.hpp"

namespace ais::acl {

// Of one kind of wait: how long it usually takes. Any thread.
class Pace {
 public:
  // Asks `ended()`, a Result<bool>, until it says true or fails. In between it asks `unwanted(look)`, a Status whose failure
  // ends the wait; `look` where it is time to look for signals as well. With `relaxed` nobody loses by an end that is noticed
  // late, for other work is queued behind this one.
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
  // Nanoseconds.
  std::int64_t next(bool relaxed, std::int64_t waited, int pauses) const;
  void learn(bool relaxed, std::int64_t waited, int pauses);
  // False when a signal ended it.
  static bool pause(std::int64_t ns);

  std::atomic<std::int64_t> usual_ns_[2] = {0, 0};  // of hurried waits, and of relaxed ones
};

}  // namespace ais::acl
