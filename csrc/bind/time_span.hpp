// The time of one execution as Python sees it.
#pragma once

#include "bind/bind.hpp"

namespace ais::bind {

// A float, end - start, that is also the pair of both.
py::object time_span(double start_ms, double end_ms);

}  // namespace ais::bind
