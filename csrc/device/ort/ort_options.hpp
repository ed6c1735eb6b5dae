// The options of an ONNX Runtime session, from names and texts to calls.
#pragma once

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

// Besides what callers may set, two options of the library's own: "prepare", a path that the optimised model is written to when
// it is loaded, with its weights as kernels want them in the file "weights" beside it; and "prepared", the path of such a
// model, which is loaded instead of the source.
constexpr const char* kPrepare = "prepare";
constexpr const char* kPrepared = "prepared";

// Checks every name and value; the caller releases the result with ReleaseSessionOptions.
// The session runs on device `id` of the provider that they name, or on the processor.
Result<OrtSessionOptions*> make_session_options(const Api& api, const device::Options& options, int id);

// A decimal number in [low, high], or InvalidArgument that names the option.
Result<int> option_int(const device::Options& options, const std::string& name, int fallback, int low, int high);

}  // namespace ais::ort
