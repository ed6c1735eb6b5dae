// The Python object around a session::Tensor.
#pragma once

#include <memory>
#include <vector>

#include "session/tensor.hpp"

namespace ais::bind {

struct PyTensor {
  session::Tensor tensor;
  // Host memory that buffers were exported over. A buffer keeps this object alive, not the memory, and moving the tensor to a
  // device would free that under an array.
  std::vector<std::shared_ptr<void>> exported = {};
};

}  // namespace ais::bind
