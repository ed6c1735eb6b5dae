// Describes the model of an ONNX Runtime session: inputs, outputs, gears.
#pragma once

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

// Refuses a model with an input or output that is not a tensor of numbers. `source` is read again only if a shape is in doubt.
Result<device::ModelInfo> describe(const OrtApi& api, OrtSession* session, const device::ModelSource& source);

}  // namespace ais::ort
