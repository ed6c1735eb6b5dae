// The worker's steady state: wait, run, publish. No Python, no allocation for a task of a size that was seen before.
#pragma once

#include <cstdint>

#include "base/status.hpp"
#include "shm/port.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

enum class Stopped { kClosed, kInterrupted };

// Serves tasks until the lane is closed and drained, or a signal handler ran in this thread (call again to go on). `served`
// counts up. A failure means that the lane can not be used any more.
Result<Stopped> serve(shm::Port* port, Handler* handler, std::uint64_t* served);

}  // namespace ais::worker
