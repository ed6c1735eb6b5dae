// The process for Python: its parent, ignored signals, interrupts, child processes; and clocks and waits that a program cannot
// replace, unlike those of Python's modules.
#include "base/process.hpp"

#include <poll.h>
#include <pybind11/stl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/child.hpp"
#include "base/interrupt.hpp"
#include "base/pinning.hpp"
#include "bind/bind.hpp"

namespace ais::bind {
namespace {

// Python runs signal handlers only in its main thread. Other threads must not check, because they might wait for the GIL of an
// interpreter that shuts down. The exception of a handler stays set until the call has ended.
bool signal_handler_raised() {
  if (syscall(SYS_gettid) != getpid()) return false;
  const Gil gil;
  return PyErr_CheckSignals() != 0;
}

// Waits until one of the descriptors has one of its events, or for the given seconds. Returns the descriptors and their events.
std::vector<std::pair<int, int>> poll_descriptors(const std::vector<std::pair<int, int>>& wanted,
                                                  std::optional<double> seconds) {
  std::vector<pollfd> entries;
  for (const auto& [fd, events] : wanted) entries.push_back({fd, static_cast<short>(events), 0});
  // Rounded up, because a wake-up before the time would be useless.
  const double ms = seconds ? std::clamp(*seconds * 1e3 + 0.999, 0.0, 1e9) : -1;
  int count = 0;
  int number = 0;
  {
    const NoGil unlocked;
    count = poll(entries.data(), entries.size(), static_cast<int>(ms));
    number = errno;
  }
  if (count < 0 && number != EINTR) {
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
    throw py::error_already_set();
  }
  if (count < 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
  std::vector<std::pair<int, int>> ready;
  for (const pollfd& entry : entries) {
    if (count > 0 && entry.revents != 0) ready.emplace_back(entry.fd, entry.revents);
  }
  return ready;
}

std::unique_ptr<Child> spawn(const std::vector<std::string>& argv, int in, int out, int err, const std::vector<int>& keep) {
  // Hold the GIL: the child uses this process's memory until exec, so no other thread may fork meanwhile.
  return value_or_raise(Child::spawn(argv, in, out, err, keep));
}

std::pair<std::optional<int>, std::optional<int>> reap(Child& child) {
  Ending ending;
  {
    const NoGil unlocked;
    ending = child.reap();
  }
  const auto known = [](int value) { return value < 0 ? std::nullopt : std::optional<int>(value); };
  return {known(ending.signal), known(ending.exit_code)};
}

}  // namespace

void register_process(py::module_& module) {
  set_interrupt_check(&signal_handler_raised);
  module.def("die_with_parent", &die_with_parent, py::arg("parent"));
  module.def("ignore_interrupts", &ignore_interrupts);
  module.def("pin", &pin, py::arg("cpus"), py::arg("yields"));
  module.def("look_around", &look_around);
  module.def("is_pinned", &is_pinned);
  module.def("monotonic_ns", &monotonic_ns);
  module.def("poll", &poll_descriptors, py::arg("wanted"), py::arg("seconds"));
  py::class_<Child>(module, "Child")
      .def(py::init(&spawn), py::arg("argv"), py::arg("stdin"), py::arg("stdout"), py::arg("stderr"), py::arg("keep"))
      .def_property_readonly("pid", &Child::pid)
      .def_property_readonly("watch_fd", &Child::watch_fd)
      .def("kill", &Child::kill, py::arg("signal"))
      .def("reap", &reap)
      .def("close", &Child::close);
}

}  // namespace ais::bind
