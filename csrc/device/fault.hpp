// Decides whether a device or a task caused a failure.
#pragma once

#include "base/status.hpp"

namespace ais::device {

// Returns whether a run failed because of its device, so that it may succeed on another device. AscendCL's number decides:
// 2xxxxx means missing resources, 5xxxxx an internal or hardware error. ONNX Runtime's numbers are small: a failure on one part
// of a CPU occurs on every other part, too, and 11 is the failure of an execution provider, which may be caused by its device.
inline bool is_fault(const Status& status) {
  const std::int64_t group = status.vendor_code() / 100'000;
  return group == 2 || group == 5 || status.vendor_code() == 11;
}

}  // namespace ais::device
