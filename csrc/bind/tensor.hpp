// The Python object of a session::Tensor.
#pragma once

#include <utility>

#include "bind/bind.hpp"
#include "session/tensor.hpp"

namespace ais::bind {

// The tensor changes only with the GIL held. An exported buffer keeps its memory alive.
struct PyTensor {
  session::Tensor tensor;
};

// Moves a copy, which shares the memory, without the GIL, and then replaces the tensor by it. A concurrent reader sees the old
// tensor. If two threads move the tensor, the last one decides where it is.
template <typename Move>
void move(PyTensor* self, Move how) {
  session::Tensor moved = self->tensor;
  Status status;
  {
    const NoGil nogil;
    status = how(&moved);
  }
  raise_if_error(status);
  self->tensor = std::move(moved);
}

}  // namespace ais::bind
