// The pool's records, which Python declares and reads, and which native code writes when a reply arrives.
//
// They are classes with __slots__. Such a field is a pointer at a fixed offset of the object, which Python's own descriptor of
// the field names; through it a field costs a load instead of a call. The classes are ais_bench.pool's Task, Waiter,
// ReadyWorker and Account, which say what the fields mean. All of it needs the GIL, and the dispatcher's lock.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "shm/stats.hpp"

namespace ais::bind {

namespace py = pybind11;

// One field of a class with __slots__.
class Slot {
 public:
  // Throws TypeError for what is no such field.
  Slot(py::handle type, const char* name);

  py::handle get(py::handle object) const { return *place(object); }
  bool is_true(py::handle object) const { return *place(object) == Py_True; }
  void set(py::handle object, py::object value) const {
    PyObject* const old = *place(object);
    *place(object) = value.release().ptr();
    Py_XDECREF(old);  // last, because it may run code that looks at the field
  }
  // Of a field that holds an int.
  std::int64_t number(py::handle object) const;
  void add(py::handle object, std::int64_t more) const;

 private:
  PyObject** place(py::handle object) const {
    return reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object.ptr()) + offset_);
  }
  Py_ssize_t offset_;
};

// When a task ran and how long its stages took.
struct Details {
  std::int64_t picked_ns = 0;
  std::int64_t done_ns = 0;
  shm::TaskTimes times;
};

class Records {
 public:
  Records(py::handle task, py::handle waiter, py::handle worker, py::handle account);

  // What the task says about itself.
  int mode(py::handle task) const { return static_cast<int>(number(task_.mode, task)); }
  int kind(py::handle task) const { return static_cast<int>(number(task_.kind, task)); }
  std::uint64_t option(py::handle task) const { return static_cast<std::uint64_t>(number(task_.option, task)); }

  // Its worker has it now.
  void book_sent(py::handle task) const;

  // The worker has answered one of its tasks.
  // `lost`: the error that says that its device is lost, or null.
  void book_answer(py::handle worker, std::int64_t cost_ns, py::object lost) const;

  // The worker's device failed with the task, which goes to `faulted` with its feeds and the error, unless it is done.
  void book_fault(py::handle task, py::handle worker, py::object feeds, py::object error, py::handle faulted) const;

  // The task is done, unless it was already. One with a future goes to `resolved`; a waiter that is asleep to `sleepers`.
  void finish(py::handle task, py::handle worker, py::handle account, py::object outputs, py::object error, int kind,
              const Details& details, py::handle resolved, py::handle sleepers) const;

 private:
  static void check(py::handle object, py::handle type);
  std::int64_t number(const Slot& field, py::handle task) const;

  struct Types {
    py::object task, waiter, worker, account;
  } types_;
  struct {
    Slot done, outputs, error, feeds, answer_kind, end_to_end_ns, worker, ran_on, waiter, future, mode, kind, option, sent,
        taken, detailed, details;
  } task_;
  struct {
    Slot finished, asleep;
  } waiter_;
  struct {
    Slot device, load, answered, alone, cost_ns, lost, faults;
  } worker_;
  struct {
    Slot outstanding, futures;
  } account_;
};

}  // namespace ais::bind
