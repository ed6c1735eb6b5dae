// What an ONNX Runtime session says of its model: inputs, outputs, gears.
#pragma once

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

// Refuses a model with an input or output that is no tensor of numbers. `source` is read again only when a shape is in doubt.
Result<device::ModelInfo> describe(const Api& api, OrtSession* session, const device::ModelSource& source);

}  // namespace ais::ort
