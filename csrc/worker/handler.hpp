// What a worker does with a task, without Python.
#pragma once

#include "base/status.hpp"
#include "shm/frame.hpp"
#include "shm/port.hpp"

namespace ais::worker {

class Handler {
 public:
  virtual ~Handler() = default;

  // Reads task.feeds, in place, and writes the outputs with `out`. A failure fails this task only. Where `out` had no room
  // (out->full()) the status does not matter: the task is run again with more. One thread at a time.
  virtual Status run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) = 0;
};

// Outputs are copies of the feeds, in mode 1 there are none; task.option is how many microseconds of work to simulate. For
// tests and measurements.
class EchoHandler : public Handler {
 public:
  Status run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) override;
};

}  // namespace ais::worker
