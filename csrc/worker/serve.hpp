// The worker's steady state: wait, run, publish. No Python, no allocation for a task of a size that was seen before.
#pragma once

#include <cstdint>

#include "base/status.hpp"
#include "shm/port.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

enum class Stopped { kClosed, kInterrupted, kObject };

// Serves tasks until the lane is closed and drained, a signal handler ran in this thread, or `task` holds a Python object,
// which the caller handles and answers; call again to go on after the latter two. `served` counts up. A failure means that the
// lane, or (DeviceLost) the device, can not be used any more.
Result<Stopped> serve(shm::Port* port, Handler* handler, shm::Task* task, std::uint64_t* served);

}  // namespace ais::worker
