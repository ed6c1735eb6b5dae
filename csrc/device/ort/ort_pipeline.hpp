// Several runs of a model at once, each in its own thread.
//
// On a device with its own memory (ort_memory.hpp) a thread copies in, executes and copies out, so the copies of a run overlap
// the executions of others. Each place in the ring keeps memory on the device for one run. Other providers copy as a part of a
// run, on its stream if they have several. Providers that execute one run at a time lose nothing.
//
// Ownership: the caller owns inputs and landings until wait() of the run. A place in the ring owns its buffers on the device
// and its staging memory on the host. From submit() to wait() only its thread uses them. It never calls the landing: submit()
// asks the landing for room if the shape is known. Other outputs go to staging memory, and the caller copies them.
//
// ONNX Runtime has no events, so the times are measured by the host. They include waiting for other runs.
#pragma once

#include <memory>

#include "device/device.hpp"
#include "device/ort/ort_memory.hpp"

namespace ais::ort {

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<device::Device> device,
                                                        std::shared_ptr<DeviceMemory> memory, std::size_t depth);

}  // namespace ais::ort
