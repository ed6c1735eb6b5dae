// Replies: too large, failed, or done.
#include "worker/answer.hpp"

namespace ais::worker {

Status answer(shm::Port* port, shm::PortTask* task, const Status& run, const shm::StageTimes& times) {
  if (task->writer.full()) return port->too_large(task, task->writer.needed());
  const Status refused = task->writer.refused();  // a copy, because the writer writes the failure
  if (!refused.ok()) return port->fail(task, refused.code(), refused.message(), 0, times);
  if (!run.ok()) return port->fail(task, run.code(), run.message(), run.vendor_code(), times);
  Status finished = port->finish(task, shm::Kind::kTensors, times);
  if (finished.ok() || finished.code() != Code::kOutOfMemory) return finished;
  if (task->writer.full()) return port->too_large(task, task->writer.needed());
  return port->fail(task, Code::kExecution, "the model left an output out", 0, times);
}

}  // namespace ais::worker
