// Common declarations of csrc/bind: the register_* function of each file, exceptions from a Status, and the GIL.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <utility>

#include "base/status.hpp"

namespace ais::bind {

namespace py = pybind11;

// Throws the exception of ais_bench.errors for the status; returns if it is Ok. Needs the GIL.
void raise_if_error(const Status& status);

// Throws the exception that a signal handler raised during a call without the GIL (base/interrupt.hpp).
inline void raise_if_interrupted() {
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

template <typename T>
T value_or_raise(Result<T> result) {
  if (!result.ok()) raise_if_error(result.status());
  return result.take();
}

// Releases the GIL for a scope. pybind11's class would abort the process if a daemon thread reacquires the GIL while the
// interpreter shuts down: up to 3.13 CPython then ends the thread by unwinding its stack, and a destructor does not permit
// this. Here the thread blocks until the process exits, as in CPython from 3.14 on.
class NoGil {
 public:
  NoGil() : state_(PyEval_SaveThread()), outer_(std::exchange(innermost_, this)) {}
  ~NoGil() {
    innermost_ = outer_;
    take_back();
  }
  NoGil(const NoGil&) = delete;
  NoGil& operator=(const NoGil&) = delete;

 private:
  friend class Gil;
  void take_back() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      while (true) pause();
    }
  }
  PyThreadState* state_;
  NoGil* outer_;
  static inline thread_local NoGil* innermost_ = nullptr;  // of this thread
};

// Acquires the GIL for a scope, inside a NoGil of the same thread or without one. pybind11's class would use the thread's
// state, which no longer exists while the interpreter shuts down.
class Gil {
 public:
  Gil() : released_(std::exchange(NoGil::innermost_, nullptr)) {
    if (released_ != nullptr) released_->take_back();
  }
  ~Gil() {
    if (released_ != nullptr) released_->state_ = PyEval_SaveThread();
    NoGil::innermost_ = released_;
  }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  NoGil* released_;
};

// Runs Python code from C++. Here, too, a daemon thread must not be unwound through C++ frames if the interpreter shuts down.
template <typename Call>
auto in_python(const Call& call) {
  try {
    return call();
  } catch (abi::__forced_unwind&) {
    while (true) pause();
  }
}

void register_arrays(py::module_& module);
void register_errors(py::module_& module);
void register_process(py::module_& module);
void register_runtimes(py::module_& module);
void register_session(py::module_& module);
void register_tensor(py::module_& module);
void register_simulator(py::module_& module);
void register_scheduler(py::module_& module);
void register_pool(py::module_& module);
void register_time_span(py::module_& module);
void register_shm_bell(py::module_& module);
void register_shm_lane(py::module_& module);
void register_shm_channel(py::module_& module);

}  // namespace ais::bind
