// The shapes a caller sets before running, in the words of the API: "image:1,3,224,224;info:1,2".
//
// A setting is one shape an input, -1 where it leaves a dimension to the feeds. It stays until the next one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::session {

// All but shape_setting check the model's gears where it has some. FeedMismatch or InvalidArgument say what does not fit.
Result<std::vector<Shape>> batch_setting(const device::ModelInfo& info, std::int64_t batch);
Result<std::vector<Shape>> image_setting(const device::ModelInfo& info, std::int64_t height, std::int64_t width);
// Gears of dims, and shapes of a dynamic model: `text` names every input once, in any order.
Result<std::vector<Shape>> dims_setting(const device::ModelInfo& info, const std::string& text);
Result<std::vector<Shape>> shape_setting(const device::ModelInfo& info, const std::string& text);

}  // namespace ais::session
