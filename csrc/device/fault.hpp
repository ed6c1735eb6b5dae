// Whose failure it was.
#pragma once

#include "base/status.hpp"

namespace ais::device {

// Whether a run failed for its device, and not for what was asked of it, so that another device may well do it. AscendCL's
// numbers tell: 2xxxxx is a lack of resources, 5xxxxx internal or of the hardware. ONNX Runtime's are small: what fails on one
// share of a CPU fails on every other, and 11 is the failure of an execution provider, whose device it may be.
inline bool is_fault(const Status& status) {
  const std::int64_t group = status.vendor_code() / 100'000;
  return group == 2 || group == 5 || status.vendor_code() == 11;
}

}  // namespace ais::device
