// Whom this process lives with, and what it does not hear.
#include "base/process.hpp"

#include "bind/bind.hpp"

namespace ais::bind {

void register_process(py::module_& module) {
  module.def("die_with_parent", &die_with_parent, py::arg("parent"));
  module.def("ignore_interrupts", &ignore_interrupts);
}

}  // namespace ais::bind
