// Whether the caller of a long wait wants it to end: Ctrl-C, for a wait that the interpreter's main thread makes.
//
// The check may run the interpreter's signal handlers, and it is made in the middle of a run, with locks held. So what waits in
// this way refuses to be entered by such a handler.
#pragma once

#include <cstdint>

#include "base/status.hpp"

namespace ais {

// Asks in the calling thread; true when a signal handler raised.
using InterruptCheck = bool (*)();

// Set once, before anybody waits. Without one nothing is ever interrupted.
void set_interrupt_check(InterruptCheck check);
bool interrupted();

// Execution where the caller is a signal handler that runs inside interrupted().
Status check_not_in_handler();
bool in_handler();

// A computation that cannot be waited for in pieces: it runs in the calling thread until it has ended, or until somebody ends
// it from another thread. Between the two, in the one thread whose signals are watched (bind/signal_watch.hpp), `stop(what)` is
// called when a signal comes, from the thread that watches. In every other thread a StopPoint does nothing.
class StopPoint {
 public:
  StopPoint(void (*stop)(void*), void* what);
  ~StopPoint();  // `stop` is not called any more
  StopPoint(const StopPoint&) = delete;
  StopPoint& operator=(const StopPoint&) = delete;

 private:
  bool watched_;
};

// Whether signals of the calling thread are watched now.
bool is_watched();
void set_watched(bool watched);

// A signal came. Ends what is at its StopPoint as soon as it has been there for `grace_ns`; what ends by itself until then, and
// what comes after it, is left alone.
void stop_what_runs(std::int64_t grace_ns);

}  // namespace ais
