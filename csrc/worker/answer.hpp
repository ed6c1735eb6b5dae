// What a run becomes for the parent. The only place that turns what came of a task into a reply.
#pragma once

#include "base/status.hpp"
#include "shm/port.hpp"

namespace ais::worker {

// Publishes the outputs that task->writer holds, or the failure `run`. A failure of this call means that the lane cannot be
// used any more.
Status answer(shm::Port* port, shm::Task* task, const Status& run, const shm::RunTimes& times);

}  // namespace ais::worker
