// Whether a long wait must end, because of Ctrl-C. This applies to waits in the interpreter's main thread.
//
// The check may run the interpreter's signal handlers in the middle of a run, while locks are held. So a call that waits this
// way returns an error if such a handler enters it.
#pragma once

#include <cstdint>

#include "base/status.hpp"

namespace ais {

// Runs pending signal handlers in the calling thread. Returns true if one raised.
using InterruptCheck = bool (*)();

// Call this once, before the first wait. Without a check nothing is interrupted.
void set_interrupt_check(InterruptCheck check);
bool interrupted();

// Returns Execution if the caller is a signal handler that runs inside interrupted().
Status check_not_in_handler();
bool in_handler();

// Makes a computation in the calling thread stoppable from another thread. While a StopPoint exists in the thread whose signals
// are watched (bind/signal_watch.hpp), the watching thread calls `stop(what)` when a signal arrives. In any other thread a
// StopPoint does nothing.
class StopPoint {
 public:
  StopPoint(void (*stop)(void*), void* what);
  ~StopPoint();  // `stop` is not called afterwards
  StopPoint(const StopPoint&) = delete;
  StopPoint& operator=(const StopPoint&) = delete;

 private:
  bool watched_;
};

// Returns whether signals of the calling thread are watched now.
bool is_watched();
void set_watched(bool watched);

// Reports a signal. Stops the computation at the StopPoint once it has run for `grace_ns`. Does nothing if this computation
// ends before; later computations are not affected.
void stop_what_runs(std::int64_t grace_ns);

}  // namespace ais
