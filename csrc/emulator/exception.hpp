// Device exceptions: what the program's callback is told when an execution fails on the device.
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
  // What aclmdlCreateAndGetOpDesc answers: the whole model stands for the operator that failed.
  std::string op_name;
  std::vector<std::shared_ptr<TensorDesc>> inputs;
  std::vector<std::shared_ptr<TensorDesc>> outputs;
};

void set_exception_callback(aclrtExceptionInfoCallback callback);

// Tells the callback, in this thread, and only while it runs the exception can be asked about.
void raise_exception(Exception exception);

// The exception being told, or nullptr for any other pointer.
const Exception* exception_of(const aclrtExceptionInfo* info);
// The same by what the callback read from it.
const Exception* exception_at(std::uint32_t device, std::uint32_t stream, std::uint32_t task);

}  // namespace ais::emulator
