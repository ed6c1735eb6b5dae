// Copies: looks up the addresses, checks whether the copy is allowed, and makes it.
#pragma once

#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {

// A checked copy of `height` rows of `width` bytes. A plain copy has one row.
struct Copy {
  Range dst;
  Range src;
  std::size_t dst_pitch = 0;
  std::size_t src_pitch = 0;
  std::size_t width = 0;
  std::size_t height = 1;
  int device = 0;
  bool pageable = false;  // one side is host memory that is neither pinned nor registered
  bool host_only = false;
};

struct CopyRequest {
  void* dst;
  std::size_t dst_max;
  const void* src;
  std::size_t count;
  aclrtMemcpyKind kind;
};

// Checks arguments, addresses, ranges and direction. A count of 0, or equal addresses, give a copy of no bytes.
aclError plan_copy(const Scope& scope, const CopyRequest& request, Copy* out);
aclError plan_copy_2d(const Scope& scope, const CopyRequest& first_row, std::size_t dst_pitch, std::size_t src_pitch,
                      std::size_t height, Copy* out);

// Copies now, in the time that follows from the device's bandwidth.
TaskResult run_copy(const Copy& copy, std::int64_t ready_ns);

// Returns a task's failure: the code, and the text that fail() stored for this thread.
TaskResult task_failure(aclError code);

// Returns an error text if the memory of `range` was freed while a task used it; otherwise "".
std::string freed_under_task(const Range& range);

}  // namespace ais::emulator
