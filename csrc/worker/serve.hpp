// The worker's steady state: wait, run, publish. It uses no Python, and allocates nothing for a task of a known size.
#pragma once

#include <cstdint>

#include "base/status.hpp"
#include "shm/port.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

enum class Stopped { kClosed, kInterrupted, kObject };

// Serves tasks until the lane is closed and drained, a signal handler ran in this thread, or `task` holds a Python object. In
// the last case the caller handles and answers the task. In the last two cases call it again to continue. `served` counts
// tasks. After a failure the lane, or (DeviceLost) the device, cannot be used any more.
Result<Stopped> serve(shm::Port* port, Handler* handler, shm::PortTask* task, std::uint64_t* served);

}  // namespace ais::worker
