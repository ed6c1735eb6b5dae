// How each runtime is opened. A new runtime adds its line here and in the table of device.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_ort(const std::vector<std::string>& libraries);
Result<std::unique_ptr<Runtime>> open_acl(const std::vector<std::string>& libraries);

// Whether an option of this name is for ONNX Runtime's session, so that another one may be for a provider. Opens nothing.
bool is_ort_option(const std::string& name);

}  // namespace ais::device
