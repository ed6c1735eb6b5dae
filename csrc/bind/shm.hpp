// What the two halves of the transport's binding share.
#pragma once

#include <memory>
#include <optional>

#include "bind/bind.hpp"
#include "shm/bell.hpp"
#include "shm/slots.hpp"

namespace ais::bind {

// Seconds from Python to a deadline of CLOCK_MONOTONIC; None is no deadline.
std::int64_t deadline_after(const std::optional<double>& timeout_s);

// A capsule for the base of arrays over shared memory; what it holds goes with the last array.
template <typename T>
py::capsule keep_alive(T value) {
  return py::capsule(new T(std::move(value)), [](void* held) { delete static_cast<T*>(held); });
}

}  // namespace ais::bind
