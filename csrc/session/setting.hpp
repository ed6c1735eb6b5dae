// Parses the shapes that a caller sets before a run, in the syntax of the API: "image:1,3,224,224;info:1,2".
//
// A setting has one shape for each input; a dimension of -1 is taken from the feeds. It is valid until the next setting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::session {

// All functions except shape_setting check the model's gears, if it has gears. Errors: FeedMismatch, InvalidArgument.
Result<std::vector<Shape>> batch_setting(const device::ModelInfo& info, std::int64_t batch);
Result<std::vector<Shape>> image_setting(const device::ModelInfo& info, std::int64_t height, std::int64_t width);
// For gears of dims, and shapes of a dynamic model: `text` names every input once, in any order.
Result<std::vector<Shape>> dims_setting(const device::ModelInfo& info, const std::string& text);
Result<std::vector<Shape>> shape_setting(const device::ModelInfo& info, const std::string& text);

}  // namespace ais::session
