// The functions that open the runtimes. A new runtime adds a line here and one to the table in device.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_ort(const std::vector<std::string>& libraries);
Result<std::unique_ptr<Runtime>> open_acl(const std::vector<std::string>& libraries);

// Returns whether ONNX Runtime's sessions have an option of this name. Other options may be a provider's. Opens nothing.
bool is_ort_option(const std::string& name);

}  // namespace ais::device
