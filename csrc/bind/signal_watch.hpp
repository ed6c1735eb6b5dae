// Handles signals that arrive while the interpreter's main thread runs a model.
//
// Python's C handler only records a signal. The Python handler runs when the main thread is back in the interpreter, and a run
// on a CPU may take minutes. So during runs another handler, installed before Python's, counts the signals. A thread sees the
// count grow and ends the run (base/interrupt.hpp). The caller of the run then lets Python's handlers run. If one raises, the
// call fails; if none does, the model runs again in another thread.
//
// Shortly after the last run the thread ends, and the former handlers are installed again.
#pragma once

namespace ais::bind {

// Has an effect only in the main thread, and not inside another SignalWatch.
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
