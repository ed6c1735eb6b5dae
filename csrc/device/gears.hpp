// Gears: the shapes for which a model was compiled, as text and as numbers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::device {

// Metadata keys of an ONNX model that declare gears. The values have the syntax of ATC's options with these names.
constexpr const char* kGearKeys[] = {"ais_bench.dynamic_batch_size", "ais_bench.dynamic_image_size", "ais_bench.dynamic_dims"};

// Parses "1,2,4" for batches, "224,224;448,448" for image sizes, "1,16;2,32" for dims. Returns ModelLoad if values do not fit
// the inputs.
Result<Gears> parse_gears(const std::map<std::string, std::string>& declared, const std::vector<TensorDesc>& inputs);

// Returns the values of `shapes` (one for each input, in the same order) for the dynamic dimensions of the inputs, in the form
// of Gears::values. FeedMismatch if the shapes have different batches or image sizes.
Result<Shape> gear_of(GearKind kind, const std::vector<TensorDesc>& inputs, const std::vector<Shape>& shapes);

// Sets `bytes` of every dynamic input to the size in its largest gear.
void set_largest_sizes(const Gears& gears, std::vector<TensorDesc>* inputs);

// Returns the error for inputs that need a gear which the model does not have.
Status no_such_gear(const Gears& gears, const Shape& wanted);

// Returns "1; 2; 4" or "224,224; 448,448", for messages.
std::string gears_text(const Gears& gears);

// Returns the mode for the kind: "dymbatch", "dymhw" or "dymdims".
const char* gear_mode(GearKind kind);

}  // namespace ais::device
