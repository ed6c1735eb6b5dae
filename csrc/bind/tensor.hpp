// The Python object around a session::Tensor.
#pragma once

#include "session/tensor.hpp"

namespace ais::bind {

struct PyTensor {
  session::Tensor tensor;
};

}  // namespace ais::bind
