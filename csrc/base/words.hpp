// Texts for messages about names: the nearest known name, and lists of names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ais {

// Returns "; did you mean 'NAME'?" with the known name that is closest to `name`; "" if more than a third of the letters
// differ.
std::string nearest(std::string_view name, const std::vector<std::string>& known);

// "'a', 'b', 'c'"
std::string quoted_list(const std::vector<std::string>& names);

// "device 0", "devices 0 and 1", "devices 0 to 7"; "no devices" for none.
std::string device_range(int count);

}  // namespace ais
