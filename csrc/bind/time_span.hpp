// The time of one execution, for Python.
#pragma once

#include "bind/bind.hpp"

namespace ais::bind {

// Returns a float, end - start, that is also the pair (start, end).
py::object time_span(double start_ms, double end_ms);

}  // namespace ais::bind
