// Words for messages about names: the nearest of those that exist, and lists of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ais {

// "; did you mean 'NAME'?" for the known name that is closest to `name`, if at most a third of its letters differ; else "".
std::string nearest(std::string_view name, const std::vector<std::string>& known);

// "'a', 'b', 'c'"
std::string quoted_list(const std::vector<std::string>& names);

// "device 0", "devices 0 and 1", "devices 0 to 7"; "no devices" for none.
std::string device_range(int count);

}  // namespace ais
