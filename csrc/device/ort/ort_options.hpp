// The options of an ONNX Runtime session, from names and texts to calls.
#pragma once

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

// Checks every name and value; the caller releases the result with ReleaseSessionOptions.
Result<OrtSessionOptions*> make_session_options(const Api& api, const device::Options& options);

// A decimal number in [low, high], or InvalidArgument that names the option.
Result<int> option_int(const device::Options& options, const std::string& name, int fallback, int low, int high);

}  // namespace ais::ort
