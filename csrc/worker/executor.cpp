// The queues, and the loop between them.
#include "worker/executor.hpp"

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <utility>

#include "base/pinning.hpp"
#include "base/tuning.hpp"
#include "worker/answer.hpp"

namespace ais::worker {
namespace {

class FrameSink final : public session::OutputSink {
 public:
  explicit FrameSink(shm::FrameWriter* out) : out_(out) {}
  void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) override {
    return out_->reserve_checked(index, desc.dtype, shape.data(), shape.size(), bytes);
  }

 private:
  shm::FrameWriter* const out_;
};

session::ShapeRule rule_of(const shm::PortTask& task) { return {static_cast<session::Mode>(task.mode), false}; }

}  // namespace

Executor::Executor(std::shared_ptr<session::Session> session, shm::Port* port) : session_(std::move(session)), port_(port) {
  auto pipeline = session::SessionPipeline::open(session_);
  // Without a pipeline, jobs are executed one by one. If the session cannot run at all, its first job fails.
  if (pipeline.ok() && pipeline.value()->depth() > 1) pipeline_ = pipeline.take();
  if (pipeline_ != nullptr) most_waiting_ = 2;
}

void Executor::submit(JobPtr job) {
  std::unique_lock<std::mutex> lock(lock_);
  changed_.wait(lock, [this] { return waiting_.size() < most_waiting_ || finished_; });
  waiting_.push_back(std::move(job));
  changed_.notify_all();
}

void Executor::end() {
  const std::lock_guard<std::mutex> lock(lock_);
  ended_ = true;
  changed_.notify_all();
}

void Executor::cancel(std::uint64_t seq) {
  const std::lock_guard<std::mutex> lock(lock_);
  if (std::find(running_.begin(), running_.end(), seq) != running_.end()) static_cast<void>(session_->cancel());
}

Executor::JobPtr Executor::next_done() {
  std::unique_lock<std::mutex> lock(lock_);
  changed_.wait(lock, [this] { return !done_.empty() || finished_; });
  if (done_.empty()) return nullptr;
  JobPtr job = std::move(done_.front());
  done_.pop_front();
  changed_.notify_all();
  return job;
}

std::vector<Executor::JobPtr> Executor::take_spent() {
  const std::lock_guard<std::mutex> lock(lock_);
  return std::exchange(spent_, {});
}

// Returns the next job; null if there is none and `wait` is false, or no more jobs come.
Executor::JobPtr Executor::pop(bool wait, const std::function<void()>& idle) {
  std::unique_lock<std::mutex> lock(lock_);
  if (wait && waiting_.empty() && !ended_) {
    lock.unlock();
    idle();
    lock.lock();
    changed_.wait(lock, [this] { return !waiting_.empty() || ended_; });
  }
  if (waiting_.empty()) return nullptr;
  JobPtr job = std::move(waiting_.front());
  waiting_.pop_front();
  changed_.notify_all();
  return job;
}

void Executor::start(JobPtr job) {
  StartedJob started;
  {
    const std::lock_guard<std::mutex> lock(lock_);
    running_.push_back(job->task.seq);
  }
  if (job->sink == nullptr) started.slot = std::make_unique<FrameSink>(&job->task.writer);
  session::OutputSink* const sink = job->sink != nullptr ? job->sink : started.slot.get();
  if (pipeline_ != nullptr) started.status = pipeline_->submit(job->feeds, rule_of(job->task), sink);
  started.job = std::move(job);
  under_way_.push_back(std::move(started));
}

// Queues a job whose outputs are not in the slot. Blocks while too many wait, to limit their memory.
void Executor::hand_on(JobPtr job) {
  std::unique_lock<std::mutex> lock(lock_);
  if (job->answered) {
    spent_.push_back(std::move(job));
    return;
  }
  changed_.wait(lock, [this] { return done_.size() < tuning::kMostDone; });
  done_.push_back(std::move(job));
  changed_.notify_all();
}

Status Executor::finish_oldest() {
  StartedJob oldest = std::move(under_way_.front());
  under_way_.pop_front();
  Job& job = *oldest.job;
  Status status = std::move(oldest.status);
  session::RunTimes run;
  try {
    session::OutputSink* const sink = job.sink != nullptr ? job.sink : oldest.slot.get();
    if (status.ok()) {
      status = pipeline_ != nullptr ? pipeline_->finish(&run) : session_->run(job.feeds, rule_of(job.task), sink, &run);
    }
  } catch (const std::bad_alloc&) {  // the task fails
    status = Status(Code::kOutOfMemory, "the worker's memory ran out");
  }
  {
    const std::lock_guard<std::mutex> lock(lock_);
    running_.pop_front();
  }
  if (status.code() == Code::kDeviceLost) return status;  // without an answer: the process exits, and its tasks run elsewhere
  job.times.copy_in_ns += run.staged_ns - run.start_ns;
  job.times.execute_ns += run.executed_ns - run.staged_ns;
  job.times.copy_out_ns += run.delivered_ns - run.executed_ns;
  if (!run.copy_in_known) job.times.unknown |= shm::kCopyInUnknown;
  if (!run.execute_known) job.times.unknown |= shm::kExecuteUnknown;
  if (!run.copy_out_known) job.times.unknown |= shm::kCopyOutUnknown;
  session_->print_notices();
  if (!status.ok() || job.sink == nullptr) {
    AIS_TRY(answer(port_, &job.task, status, job.times));
    job.answered = true;
  }
  hand_on(std::move(oldest.job));
  look_around();
  return Status();
}

Status Executor::run(const std::function<void()>& idle) {
  const std::size_t depth = pipeline_ != nullptr ? pipeline_->depth() : 1;
  Status status;
  while (status.ok()) {
    if (under_way_.size() == depth) {
      status = finish_oldest();
      continue;
    }
    JobPtr job = pop(under_way_.empty(), idle);
    if (job != nullptr) {
      start(std::move(job));
    } else if (!under_way_.empty()) {
      status = finish_oldest();
    } else {
      break;
    }
  }
  pipeline_.reset();
  const std::lock_guard<std::mutex> lock(lock_);
  finished_ = true;
  changed_.notify_all();
  return status;
}

}  // namespace ais::worker
