// Execution providers of ONNX Runtime, which run sessions on other devices than the processor.
//
// A provider is either built in (ONNX Runtime loads a library beside its own when the provider is appended), or a plugin: a
// library that is registered with the environment and offers a list of devices. Options:
//
//   "provider"           the name in ONNX Runtime, "CUDAExecutionProvider"; if missing: the processor
//   "provider_library"   the file of a plugin; if missing: the provider is built in
//   "provider:KEY"       an option of the provider
//   "fallback"           "cpu": nodes that the provider does not support run on the processor; "error": then loading fails
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

// Returns the name of the provider in `options`, "" for the processor.
std::string provider_of(const device::Options& options);

// Returns the providers that are built into the library.
Result<std::vector<std::string>> built_in_providers(const OrtApi& api);

// Returns the names of the provider's devices. It opens none of them, but may load the driver's library, so a process that
// forks later must not call it.
Result<std::vector<std::string>> provider_devices(const OrtApi& api, const device::Options& options);

// Adds the provider of `options`, with its device `id`, to the options of a session.
Status append_provider(const OrtApi& api, const device::Options& options, int id, OrtSessionOptions* out);

// Returns device `id` of a plugin; null for a built-in provider, the processor, and a device that does not exist.
const OrtEpDevice* plugin_device(const OrtApi& api, const device::Options& options, int id);

// Returns whether the device has its own memory, so that copies and executions can overlap.
bool has_own_memory(const OrtApi& api, const device::Options& options, int id);

// Returns which nodes of the session run on the processor.
Result<device::Placement> read_placement(const OrtApi& api, const OrtSession* session, const std::string& provider);

}  // namespace ais::ort
