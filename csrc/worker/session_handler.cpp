// Between a slot and a session.
#include "worker/session_handler.hpp"

#include <cstdio>
#include <string>
#include <utility>

namespace ais::worker {

SessionHandler::SessionHandler(std::shared_ptr<session::Session> session) : session_(std::move(session)) {
  auto pipeline = session::Pipeline::open(session_);
  // Without one, tasks are executed in turn; a session that cannot run at all says so at its first task.
  if (pipeline.ok() && pipeline.value()->depth() > 1) pipeline_ = pipeline.take();
}

Status SessionHandler::submit(const shm::Task& task, SlotSink* sink) {
  if (task.mode > static_cast<std::uint16_t>(session::Mode::kShape)) {
    return Status(Code::kInvalidArgument, "there is no mode number " + std::to_string(task.mode));
  }
  feeds_.resize(task.feeds.size());
  for (std::size_t i = 0; i < task.feeds.size(); ++i) feeds_[i].view = task.feeds[i];
  return pipeline_ == nullptr ? Status() : pipeline_->submit(feeds_, {static_cast<session::Mode>(task.mode), false}, sink);
}

void SessionHandler::start(shm::Task* task) {
  auto sink = std::make_unique<SlotSink>(&task->writer);
  Status status = submit(*task, sink.get());
  started_.push_back({task, std::move(sink), std::move(status)});
}

Status SessionHandler::finish(shm::RunTimes* times) {
  const Started oldest = std::move(started_.front());
  started_.pop_front();
  AIS_TRY(oldest.status);
  session::RunTimes run;
  AIS_TRY(pipeline_ != nullptr
              ? pipeline_->finish(&run)
              : session_->run(feeds_, {static_cast<session::Mode>(oldest.task->mode), false}, oldest.sink.get(), &run));
  if (session_->has_kind_warnings()) {  // once an input: what a worker writes, the parent logs
    for (const std::string& text : session_->take_kind_warnings()) std::fprintf(stderr, "FeedWarning: %s\n", text.c_str());
  }
  *times = {run.staged_ns - run.start_ns, run.executed_ns - run.staged_ns, run.delivered_ns - run.executed_ns};
  return Status();
}

}  // namespace ais::worker
