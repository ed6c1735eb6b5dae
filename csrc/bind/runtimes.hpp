// Finds the runtime and the device of a Python call.
#pragma once

#include <memory>
#include <string>

#include "device/device.hpp"

namespace ais::bind {

// Returns the runtime. The first call opens its library, from the paths of ais_bench.libraries. Needs the GIL.
Result<device::Runtime*> find_runtime(const std::string& name);

// The same, but raises on an error.
device::Runtime* runtime_named(const std::string& name);

// Opens a device of the runtime, and of the provider, of this process's newest session; of "ort" if there was no session.
std::shared_ptr<device::Device> open_current_device(int device_id);
void set_current_runtime(const std::string& name, const device::Options& options);

// Closes all sessions, and releases all resources of the opened runtimes.
void finalize_runtimes();

}  // namespace ais::bind
