// What a loaded model is: our description of it, and where things stand in AscendCL's.
#pragma once

#include <cstdint>
#include <vector>

#include "device/acl/acl_api.hpp"
#include "device/device.hpp"

namespace ais::acl {

// The parameter input of a picture that is preprocessed on the device with settings made at run time.
struct AippInput {
  std::size_t index = 0;  // in AscendCL's inputs
  std::size_t bytes = 0;
  std::size_t picture = 0;  // in info.inputs
  std::int64_t batch = -1;  // pictures in a run, as the model declares them; -1: the first axis that a run is fed
};

struct Layout {
  device::ModelInfo info;         // without the special inputs
  std::size_t inputs = 0;         // AscendCL's, special ones included
  std::vector<std::size_t> data;  // for each of info.inputs its index in AscendCL's
  bool has_gear_input = false;
  std::size_t gear_index = 0;  // in AscendCL's inputs
  std::size_t gear_bytes = 0;
  std::vector<aclmdlIODims> gear_dims;  // of dims gears: what chooses the gear of the same index
  std::vector<AippInput> aipp;
  bool open_shapes = false;  // inputs vary without gears: every run sets their shapes
  // One a gear (or one, where there are none): the outputs' shapes. Filled in by the model, which has to choose gears to learn
  // them.
  std::vector<std::vector<Shape>> outputs;
  std::vector<std::size_t> output_bytes;  // as declared: of the largest gear; 0 where only a run can tell
};

// Unsupported names a tensor of a type that cannot be fed; ModelLoad says what contradicts itself.
Result<Layout> describe(const Api& api, aclmdlDesc* desc, std::uint32_t model_id);

// The dims of one input or output as a shape.
Shape shape_of(const aclmdlIODims& dims);

}  // namespace ais::acl
