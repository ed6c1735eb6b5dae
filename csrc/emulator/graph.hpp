// Models of the emulator are computed by ONNX Runtime, through the project's own driver of it (csrc/device/ort).
#pragma once

#include <memory>
#include <string>

#include "base/status.hpp"
#include "device/device.hpp"

namespace ais::emulator {

// Loads ONNX bytes; the library is opened with the first. Unavailable lists every path tried.
Result<std::shared_ptr<device::Model>> load_graph(const std::string& onnx);

}  // namespace ais::emulator
