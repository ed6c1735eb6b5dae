// Do these inputs fit this model, and which shapes do they have?
//
// The rule of this API: an input's bytes are read as the model's element type and shape, whatever array they came in; only the
// byte size is compared. Where the model leaves dimensions open they are taken from the array's shape, or, when the array has
// another rank, from its byte size.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"
#include "device/device.hpp"

namespace ais::session {

// The API's five words for how a model's shapes vary.
enum class Mode { kStatic, kBatch, kImageSize, kDims, kShape };
Result<Mode> parse_mode(std::string_view text);
const char* mode_name(Mode mode);

// An input's exact shape when `view` is fed where `desc` is declared. FeedMismatch names the input, both byte sizes and both
// shapes.
Result<Shape> fit(const device::TensorDesc& desc, const TensorView& view);

// All inputs at once: the number of feeds, every fit, and the gears. `pattern` stands in for the shapes of info.inputs when the
// caller has set some (see setting.hpp); nullptr otherwise.
Result<std::vector<Shape>> fit_all(const device::ModelInfo& info, Mode mode, const std::vector<Shape>* pattern,
                                   const std::vector<TensorView>& feeds);

// True when the element types have one size but are of different kinds (integer, float...): probably a mistake.
bool kind_differs(DType wanted, DType given);

}  // namespace ais::session
