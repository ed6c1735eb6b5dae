// Several runs of a model under way at once, each in a thread of its own.
//
// On a device with memory of its own (ort_memory.hpp) a thread copies in, executes and copies out, so that the copies of a run
// overlap the execution of others. Each lane has memory of the device for one run, and keeps it. Other providers copy as a part
// of a run, on streams of that run if they have several. Providers that take one run at a time lose nothing.
//
// Who owns which memory: the caller owns inputs and landings until wait() of the run. A lane owns its buffers on the device and
// its staging memory on the host. From submit() to wait() only the lane's thread touches them, and it never touches the landing
// itself: its memory is asked for in submit() if the shape is known. Other outputs land in staging memory, and the caller
// copies.
//
// ONNX Runtime has no events, so the times are the host's: a copy or an execution may have waited for others.
#pragma once

#include <memory>

#include "device/device.hpp"
#include "device/ort/ort_memory.hpp"

namespace ais::ort {

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<device::Device> device,
                                                        std::shared_ptr<DeviceMemory> memory, std::size_t depth);

}  // namespace ais::ort
