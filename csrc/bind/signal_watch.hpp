// Signals that come while the interpreter's main thread computes in a library that knows nothing of them.
//
// Python's C handler only notes a signal; the handler written in Python runs when the main thread is back in the interpreter. A
// run of a model on a CPU may keep it away for minutes. While runs go on, a handler in front of Python's counts the signals,
// and a thread that sees the count grow ends the run (base/interrupt.hpp). Whoever ran it then lets the handlers run, and gives
// up or, if none raised, runs again, in another thread.
//
// The thread ends, and the handlers go back, a moment after the last run.
#pragma once

namespace ais::bind {

// Does nothing but in the main thread, and inside another one.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  bool active_ = false;
};

}  // namespace ais::bind
