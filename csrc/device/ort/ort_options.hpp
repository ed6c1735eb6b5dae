// Converts the options of an ONNX Runtime session from names and texts to calls.
#pragma once

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

// Two options are internal. "prepare": a path to which the optimised model is written when it is loaded, with its weights in
// the kernels' layout in the file "weights" beside it. "prepared": the path of such a model, which is loaded instead of the
// source.
constexpr const char* kPrepare = "prepare";
constexpr const char* kPrepared = "prepared";

// Checks every name and value; the caller releases the result with ReleaseSessionOptions.
// The session runs on device `id` of the provider in the options, or on the processor.
Result<OrtSessionOptions*> make_session_options(const OrtApi& api, const device::Options& options, int id);

// Returns a decimal number in [low, high]; otherwise InvalidArgument names the option.
Result<int> option_int(const device::Options& options, const std::string& name, int fallback, int low, int high);

}  // namespace ais::ort
