// Copies: what the addresses are, whether that may be copied, and the copy itself.
#pragma once

#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {

// A copy of `height` rows of `width` bytes whose two sides were looked up and found in order. A plain copy has one row.
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

// Checks arguments, addresses, ranges and direction. A count of 0, or equal addresses, come out as a copy of nothing.
aclError plan_copy(const Scope& scope, const CopyRequest& request, Copy* out);
aclError plan_copy_2d(const Scope& scope, const CopyRequest& first_row, std::size_t dst_pitch, std::size_t src_pitch,
                      std::size_t height, Copy* out);

// Copies now, taking as long as the device's bandwidth makes it.
TaskResult run_copy(const Copy& copy, std::int64_t ready_ns);

// A failure that is carried out of a task: the code, and the text that fail() left in this thread.
TaskResult task_failure(aclError code);

// Memory that was freed while a task used it, in words; "" when `range` is in order.
std::string freed_under_task(const Range& range);

}  // namespace ais::emulator
