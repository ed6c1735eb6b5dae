// How each runtime is opened. A new runtime adds its line here and in the table of device.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_ort(const std::vector<std::string>& libraries);
Result<std::unique_ptr<Runtime>> open_acl(const std::vector<std::string>& libraries);

}  // namespace ais::device
