// Computes the emulator's models with ONNX Runtime, through the project's driver (csrc/device/ort).
#pragma once

#include <memory>
#include <string>

#include "base/status.hpp"
#include "device/device.hpp"

namespace ais::emulator {

// Loads ONNX bytes. The first call opens the library; Unavailable lists every path that was tried.
Result<std::shared_ptr<device::Model>> load_graph(const std::string& onnx);

}  // namespace ais::emulator
