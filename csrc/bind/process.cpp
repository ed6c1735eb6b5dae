// Whom this process lives with, what it does not hear, and who interrupts it.
#include "base/process.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "base/interrupt.hpp"
#include "bind/bind.hpp"

namespace ais::bind {
namespace {

// Python runs signal handlers in its main thread alone. Other threads must not even ask: they might want the GIL of an
// interpreter that is shutting down. What a handler raised stays set until the call has ended.
bool signal_handler_raised() {
  if (syscall(SYS_gettid) != getpid()) return false;
  const Gil gil;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

void register_process(py::module_& module) {
  set_interrupt_check(&signal_handler_raised);
  module.def("die_with_parent", &die_with_parent, py::arg("parent"));
  module.def("ignore_interrupts", &ignore_interrupts);
}

}  // namespace ais::bind
