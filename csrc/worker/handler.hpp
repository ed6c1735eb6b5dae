// What a worker does with a task, without Python.
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

  // How many tasks can be under way.
  virtual std::size_t depth() const { return 1; }

  // Begins a task, from its feeds where they lie. `task` stays where it is until it is finished. Cannot fail: finish tells.
  virtual void start(shm::Task* task) = 0;
  // Ends the oldest task: its outputs are written with task->writer. A failure fails this task only. Where the writer had no
  // room (full()) the status does not matter: the task is run again with more.
  virtual Status finish(shm::RunTimes* times) = 0;
  // Has the task with this number end soon, if it is under way. Any thread. Others may end with it, as Cancelled.
  virtual void cancel(std::uint64_t /*seq*/) {}
  // No task comes any more, and none is under way: the arena's addresses mean nothing after it.
  virtual void leave() {}
};

// For handlers that do one task after the other.
class PlainHandler : public Handler {
 public:
  virtual Status run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) = 0;
  void start(shm::Task* task) final { task_ = task; }
  Status finish(shm::RunTimes* times) final { return run(*task_, &task_->writer, times); }

 private:
  shm::Task* task_ = nullptr;
};

// Outputs are copies of the feeds, in mode 1 there are none; task.option is how many microseconds of work to simulate. For
// tests and measurements.
class EchoHandler : public PlainHandler {
 public:
  Status run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) override;
};

}  // namespace ais::worker
