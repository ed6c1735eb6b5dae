// Runs tasks from slots on a session.
#include "worker/session_handler.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "base/tuning.hpp"
#include "shm/copy.hpp"

namespace ais::worker {

void* SessionHandler::SlotSink::reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape,
                                        std::size_t bytes) {
  void* slot = out_->reserve_checked(index, desc.dtype, shape.data(), shape.size(), bytes);
  if (slots_ != nullptr && slot != nullptr) slots_->use(&user_, slot, bytes);
  if (bounces_ == nullptr) return slot;
  Bounce& bounce = (*bounces_)[index];
  bounce.slot = bytes < tuning::kBounceFrom || bytes > tuning::kBounceUpTo ? nullptr : slot;
  if (bounce.slot == nullptr) return slot;
  bounce.bytes = bytes;
  if (bounce.memory.size() * sizeof(std::uint64_t) < bytes) bounce.memory.resize(bytes / sizeof(std::uint64_t) + 1);
  return bounce.memory.data();
}

SessionHandler::SessionHandler(std::shared_ptr<session::Session> session)
    : session_(std::move(session)), slots_(session_->device().get()), bounces_(session_->info().outputs.size()) {
  auto pipeline = session::SessionPipeline::open(session_);
  // Without a pipeline, tasks are executed one by one. If the session cannot run at all, its first task fails.
  if (pipeline.ok() && pipeline.value()->depth() > 1) pipeline_ = pipeline.take();
}

Status SessionHandler::submit(const shm::PortTask& task, SlotSink* sink) {
  if (task.mode > static_cast<std::uint16_t>(session::Mode::kShape)) {
    return Status(Code::kInvalidArgument, "unknown mode number " + std::to_string(task.mode));
  }
  const device::ModelInfo& info = session_->info();  // a frame has the model's inputs, and nothing for its constants
  if (task.feeds.size() != info.inputs.size()) return session::wrong_count(info, task.feeds.size());
  feeds_.resize(task.feeds.size());
  for (std::size_t i = 0; i < task.feeds.size(); ++i) feeds_[i].view = task.feeds[i];
  return pipeline_ == nullptr ? Status()
                              : pipeline_->submit(feeds_, {static_cast<session::Mode>(task.mode), false}, sink, true);
}

void SessionHandler::start(shm::PortTask* task) {
  const bool bounces = pipeline_ == nullptr && session_->device()->host_visible() && !shm::plain_copies();
  SlotRegistry::User user{++tasks_, task->punched, {}};
  for (const TensorView& feed : task->feeds) {
    if (pipeline_ != nullptr) slots_.use(&user, feed.data, feed.bytes);
  }
  auto sink = std::make_unique<SlotSink>(&task->writer, bounces ? &bounces_ : nullptr, pipeline_ != nullptr ? &slots_ : nullptr,
                                         std::move(user));
  for (Bounce& bounce : bounces_) bounce.slot = nullptr;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    running_.push_back(task->seq);
  }
  Status status = submit(*task, sink.get());
  started_.push_back({task, std::move(sink), std::move(status)});
}

// A run that has not begun does not notice this, so the caller repeats the request.
void SessionHandler::cancel(std::uint64_t seq) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (std::find(running_.begin(), running_.end(), seq) != running_.end()) static_cast<void>(session_->cancel());
}

Status SessionHandler::finish(shm::StageTimes* times) {
  const StartedTask oldest = std::move(started_.front());
  started_.pop_front();
  struct Ended {
    ~Ended() {
      const std::lock_guard<std::mutex> guard(handler->lock_);
      handler->running_.pop_front();
    }
    SessionHandler* handler;
  } const ended{this};
  AIS_TRY(oldest.status);
  session::RunTimes run;
  const Status status = pipeline_ != nullptr ? pipeline_->finish(&run)
                                             : session_->run(feeds_, {static_cast<session::Mode>(oldest.task->mode), false},
                                                             oldest.sink.get(), &run);
  session_->print_notices();
  AIS_TRY(status);
  for (const Bounce& bounce : bounces_) {
    if (bounce.slot != nullptr) shm::copy_across(bounce.slot, bounce.memory.data(), bounce.bytes);
  }
  *times = {run.staged_ns - run.start_ns, run.executed_ns - run.staged_ns, run.delivered_ns - run.executed_ns, 0, 0, 0};
  if (!run.copy_in_known) times->unknown |= shm::kCopyInUnknown;
  if (!run.execute_known) times->unknown |= shm::kExecuteUnknown;
  if (!run.copy_out_known) times->unknown |= shm::kCopyOutUnknown;
  return Status();
}

}  // namespace ais::worker
