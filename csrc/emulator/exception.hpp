// Device exceptions: the information for the program's callback about an execution that failed on the device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

struct Model;
struct TensorDesc;

struct Exception {
  std::uint32_t task = 0;
  std::uint32_t stream = 0;
  std::uint32_t thread = 0;
  std::uint32_t device = 0;
  std::uint32_t code = 0;
  // The answer of aclmdlCreateAndGetOpDesc: the whole model takes the place of the failed operator.
  std::string op_name;
  std::vector<std::shared_ptr<TensorDesc>> inputs;
  std::vector<std::shared_ptr<TensorDesc>> outputs;
};

void set_exception_callback(aclrtExceptionInfoCallback callback);

// Calls the callback in this thread. The exception can be queried only while the callback runs.
void raise_exception(Exception exception);

// Returns the present exception, or nullptr for any other pointer.
const Exception* exception_of(const aclrtExceptionInfo* info);
// The same, by the numbers that the callback has read from it.
const Exception* exception_at(std::uint32_t device, std::uint32_t stream, std::uint32_t task);

}  // namespace ais::emulator
