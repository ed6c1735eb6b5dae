// The loop itself.
#include "worker/serve.hpp"

#include <new>
#include <utility>
#include <vector>

#include "base/pinning.hpp"
#include "worker/answer.hpp"

namespace ais::worker {
namespace {

// The tasks in progress, in a ring of as many Tasks as the handler can run.
class TasksInProgress {
 public:
  TasksInProgress(shm::Port* port, Handler* handler, std::uint64_t* served)
      : port_(port), handler_(handler), served_(served), tasks_(handler->depth()) {}

  bool empty() const { return started_ == finished_; }
  bool full() const { return started_ - finished_ == tasks_.size(); }
  // Returns the place for the next task. Must not be called while the ring is full.
  shm::PortTask* room() { return &tasks_[started_ % tasks_.size()]; }
  void start() {
    handler_->start(room());
    ++started_;
  }
  Status finish_one() {
    shm::StageTimes times;
    Status run;
    try {
      run = handler_->finish(&times);
    } catch (const std::bad_alloc&) {  // the task fails
      run = Status(Code::kOutOfMemory, "the worker's memory ran out");
    }
    if (run.code() == Code::kDeviceLost) return run;  // without an answer: the process exits, and its tasks run elsewhere
    AIS_TRY(answer(port_, &tasks_[finished_++ % tasks_.size()], run, times));
    ++*served_;
    look_around();
    return Status();
  }
  Status finish_all() {
    while (!empty()) AIS_TRY(finish_one());
    return Status();
  }

 private:
  shm::Port* const port_;
  Handler* const handler_;
  std::uint64_t* const served_;
  std::vector<shm::PortTask> tasks_;
  std::uint64_t started_ = 0;
  std::uint64_t finished_ = 0;
};

}  // namespace

Result<Stopped> serve(shm::Port* port, Handler* handler, shm::PortTask* task, std::uint64_t* served) {
  TasksInProgress runs(port, handler, served);
  while (true) {
    if (runs.full()) AIS_TRY(runs.finish_one());
    // With tasks in progress, do not wait for another one.
    AIS_ASSIGN(const shm::Next next, port->next(runs.empty() ? shm::kNoDeadline : shm::kNoWait, runs.room()));
    if (next == shm::Next::kTask && runs.room()->kind == shm::Kind::kTensors) {
      runs.start();
    } else if (next == shm::Next::kTimeout) {
      AIS_TRY(runs.finish_one());
    } else {
      if (next == shm::Next::kTask) *task = std::move(*runs.room());
      AIS_TRY(runs.finish_all());
      if (next == shm::Next::kTask) return Stopped::kObject;
      if (next == shm::Next::kInterrupted) return Stopped::kInterrupted;
      handler->leave();
      return Stopped::kClosed;
    }
  }
}

}  // namespace ais::worker
