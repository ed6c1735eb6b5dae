// The loop itself. The only place that turns what a handler did into a reply.
#include "worker/serve.hpp"

namespace ais::worker {
namespace {

Status answer(shm::Port* port, shm::Task* task, const Status& run, const shm::RunTimes& times) {
  // Twice what was asked for: outputs whose size depends on the data may need more the next time.
  if (task->writer.full()) return port->too_large(task, 2 * task->writer.needed());
  if (!run.ok()) return port->fail(task, run.code(), run.message(), run.vendor_code(), times);
  Status finished = port->finish(task, shm::Kind::kTensors, times);
  if (finished.ok() || finished.code() != Code::kOutOfMemory) return finished;
  if (task->writer.full()) return port->too_large(task, 2 * task->writer.needed());
  return port->fail(task, Code::kExecution, "the model left an output out", 0, times);
}

}  // namespace

Result<Stopped> serve(shm::Port* port, Handler* handler, shm::Task* task, std::uint64_t* served) {
  while (true) {
    AIS_ASSIGN(const shm::Next next, port->next(shm::kNoDeadline, task));
    if (next == shm::Next::kClosed) return Stopped::kClosed;
    if (next != shm::Next::kTask) return Stopped::kInterrupted;
    if (task->kind != shm::Kind::kTensors) return Stopped::kObject;
    shm::RunTimes times;
    const Status run = handler->run(*task, &task->writer, &times);
    if (run.code() == Code::kDeviceLost) return run;  // unanswered: the process ends, and the task runs elsewhere
    AIS_TRY(answer(port, task, run, times));
    ++*served;
  }
}

}  // namespace ais::worker
