// Which runtime and which device a Python call means.
#pragma once

#include <memory>
#include <string>

#include "device/device.hpp"

namespace ais::bind {

// Opens it at the first call, from the paths that ais_bench.libraries gives. Needs the GIL.
Result<device::Runtime*> find_runtime(const std::string& name);

// The same; raises where there is none.
device::Runtime* runtime_named(const std::string& name);

// A device of the runtime that the newest session of this process uses; of "ort" when there was none.
std::shared_ptr<device::Device> open_current_device(int device_id);
void set_current_runtime(const std::string& name);

// Closes every session and releases what the opened runtimes hold.
void finalize_runtimes();

}  // namespace ais::bind
