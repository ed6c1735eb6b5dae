// Gears: the shapes a model was built for, as text and as numbers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "device/device.hpp"

namespace ais::device {

// Metadata keys of an ONNX model that declare gears; the values have the syntax of ATC's options of the same names.
constexpr const char* kGearKeys[] = {"ais_bench.dynamic_batch_size", "ais_bench.dynamic_image_size", "ais_bench.dynamic_dims"};

// "1,2,4" for batches, "224,224;448,448" for image sizes, "1,16;2,32" for dims. Declared values that do not fit the inputs are
// ModelLoad.
Result<Gears> parse_gears(const std::map<std::string, std::string>& declared, const std::vector<TensorDesc>& inputs);

// The values that `shapes` (one an input, same order) puts in the dynamic dimensions of the inputs, in the form of
// Gears::values. FeedMismatch when the shapes do not agree with each other on a batch or an image size.
Result<Shape> gear_of(GearKind kind, const std::vector<TensorDesc>& inputs, const std::vector<Shape>& shapes);

// Sets `bytes` of every dynamic input to what its largest gear needs.
void set_largest_sizes(const Gears& gears, std::vector<TensorDesc>* inputs);

// The error of inputs that need a gear which the model does not have.
Status no_such_gear(const Gears& gears, const Shape& wanted);

// "1; 2; 4" or "224,224; 448,448": for messages.
std::string gears_text(const Gears& gears);

// "dymbatch", "dymhw" or "dymdims": the mode that goes with the kind.
const char* gear_mode(GearKind kind);

}  // namespace ais::device
