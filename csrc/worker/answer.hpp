// Turns the result of a task into a reply to the parent. No other code does this.
#pragma once

#include "base/status.hpp"
#include "shm/port.hpp"

namespace ais::worker {

// Publishes the outputs in task->writer, or the failure `run`. If this call fails, the lane cannot be used any more.
Status answer(shm::Port* port, shm::PortTask* task, const Status& run, const shm::StageTimes& times);

}  // namespace ais::worker
