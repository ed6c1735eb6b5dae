// Common code of the bindings of shared memory.
#pragma once

#include <memory>
#include <optional>

#include "bind/bind.hpp"
#include "shm/bell.hpp"
#include "shm/slots.hpp"

namespace ais::bind {

// Returns a deadline of CLOCK_MONOTONIC for a time in seconds; None: no deadline.
std::int64_t deadline_after(const std::optional<double>& timeout_s);

// Returns a capsule as the base of arrays over shared memory. Its content is destroyed with the last array.
template <typename T>
py::capsule keep_alive(T value) {
  return py::capsule(new T(std::move(value)), [](void* held) { delete static_cast<T*>(held); });
}

}  // namespace ais::bind
