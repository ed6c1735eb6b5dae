// Whom this process lives with.
#include "base/process.hpp"

#include "bind/bind.hpp"

namespace ais::bind {

void register_process(py::module_& module) { module.def("die_with_parent", &die_with_parent, py::arg("parent")); }

}  // namespace ais::bind
