// Execution providers: what makes a session of ONNX Runtime run elsewhere than on the processor.
//
// A provider is built into the library (its own shared library beside it is loaded when it is appended), or a plugin library
// that is registered with the environment and offers a list of devices. Options that concern it:
//
//   "provider"           its name in ONNX Runtime, "CUDAExecutionProvider"; none: the processor
//   "provider_library"   the file of a plugin; none: it is built in
//   "provider:KEY"       an option of its own
//   "fallback"           "cpu": nodes that it does not take run on the processor; "error": such a model does not load
#pragma once

#include <string>
#include <vector>

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

constexpr const char* kProvider = "provider";
constexpr const char* kProviderLibrary = "provider_library";
constexpr const char* kProviderPrefix = "provider:";
constexpr const char* kFallback = "fallback";

// The provider's name of `options`, "" for the processor.
std::string provider_of(const device::Options& options);

// The providers that are built into the library.
Result<std::vector<std::string>> built_in_providers(const Api& api);

// What the devices of the provider are called. Opens none of them, but may load the driver's library: not for a process that
// later forks.
Result<std::vector<std::string>> provider_devices(const Api& api, const device::Options& options);

// Has a session with these options run on device `id` of the provider.
Status append_provider(const Api& api, const device::Options& options, int id, OrtSessionOptions* out);

// Device `id` of a plugin; null for a built-in provider, the processor, and a device that does not exist.
const OrtEpDevice* plugin_device(const Api& api, const device::Options& options, int id);

// Whether the device has memory of its own, so that a run copies in and out, and copies and executions can overlap.
bool has_own_memory(const Api& api, const device::Options& options, int id);

// Which nodes of the session the provider did not take.
Result<device::Placement> read_placement(const Api& api, const OrtSession* session, const std::string& provider);

}  // namespace ais::ort
