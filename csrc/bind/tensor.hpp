// The Python object around a session::Tensor.
#pragma once

#include <utility>

#include "bind/bind.hpp"
#include "session/tensor.hpp"

namespace ais::bind {

// The tensor changes under the GIL alone. A buffer that was exported keeps the memory alive by itself.
struct PyTensor {
  session::Tensor tensor;
};

// Moves a copy, which shares the memory, without the GIL, and puts it in place of the tensor: whoever reads meanwhile sees the
// whole old one, and of two threads that move it the last one's place stands.
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
