// Describes a loaded model, and maps the description to AscendCL's.
#pragma once

#include <cstdint>
#include <vector>

#include "device/acl/acl_api.hpp"
#include "device/device.hpp"

namespace ais::acl {

// The parameter input of a picture with dynamic AIPP.
struct AippInput {
  std::size_t index = 0;  // in AscendCL's inputs
  std::size_t bytes = 0;
  std::size_t picture = 0;  // in info.inputs
  std::int64_t batch = -1;  // pictures in a run, as the model declares; -1: the first axis of the feed
};

struct Layout {
  device::ModelInfo info;         // without the special inputs
  std::size_t inputs = 0;         // number of AscendCL's inputs, with special ones
  std::vector<std::size_t> data;  // for each of info.inputs its index in AscendCL's inputs
  bool has_gear_input = false;
  std::size_t gear_index = 0;  // in AscendCL's inputs
  std::size_t gear_bytes = 0;
  std::vector<aclmdlIODims> gear_dims;  // for dims gears: the dims that select the gear of the same index
  std::vector<AippInput> aipp;
  bool open_shapes = false;  // inputs vary without gears, so every run sets their shapes
  // The outputs' shapes for each gear (one entry without gears). The model fills them in, because it must select a gear to
  // learn them.
  std::vector<std::vector<Shape>> outputs;
  std::vector<std::size_t> output_bytes;  // as declared: of the largest gear; 0: known only after a run
};

// Errors: Unsupported names a tensor of an unsupported type; ModelLoad describes a contradiction.
Result<Layout> describe(const AclApi& api, aclmdlDesc* desc, std::uint32_t model_id);

// Returns the dims of one input or output as a shape.
Shape shape_of(const aclmdlIODims& dims);

}  // namespace ais::acl
