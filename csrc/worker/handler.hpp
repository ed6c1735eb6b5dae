// Runs the tasks of a worker without Python.
#pragma once

#include <cstdint>

#include "base/status.hpp"
#include "shm/frame.hpp"
#include "shm/port.hpp"

namespace ais::worker {

// One thread at a time.
class Handler {
 public:
  virtual ~Handler() = default;

  // How many tasks can be in progress.
  virtual std::size_t depth() const { return 1; }

  // Begins a task with its feeds in place. `task` must not move until it is finished. It cannot fail: finish reports errors.
  virtual void start(shm::PortTask* task) = 0;
  // Ends the oldest task: its outputs are written with task->writer. A failure fails this task only. If the writer had no room
  // (full()), the status does not matter: the task runs again with more room.
  virtual Status finish(shm::StageTimes* times) = 0;
  // Ends the task with this number soon, if it is in progress. Any thread may call it. Other tasks may end with it, as
  // Cancelled.
  virtual void cancel(std::uint64_t /*seq*/) {}
  // Called after the last task, when none is in progress: the arena's addresses are invalid afterwards.
  virtual void leave() {}
};

// For handlers that run one task after the other.
class PlainHandler : public Handler {
 public:
  virtual Status run(const shm::PortTask& task, shm::FrameWriter* out, shm::StageTimes* times) = 0;
  void start(shm::PortTask* task) final { task_ = task; }
  Status finish(shm::StageTimes* times) final { return run(*task_, &task_->writer, times); }

 private:
  shm::PortTask* task_ = nullptr;
};

// Outputs are copies of the feeds; in mode 1 there are no outputs. task.option is the number of microseconds of simulated work.
// For tests and measurements.
class EchoHandler : public PlainHandler {
 public:
  Status run(const shm::PortTask& task, shm::FrameWriter* out, shm::StageTimes* times) override;
};

}  // namespace ais::worker
