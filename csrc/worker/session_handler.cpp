// Between a slot and a session.
#include "worker/session_handler.hpp"

#include <cstdio>
#include <string>

namespace ais::worker {
namespace {

class SlotSink : public session::OutputSink {
 public:
  explicit SlotSink(shm::FrameWriter* out) : out_(out) {}
  void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) override {
    return out_->reserve(index, desc.dtype, shape.data(), shape.size(), bytes);
  }

 private:
  shm::FrameWriter* out_;
};

}  // namespace

Status SessionHandler::run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) {
  if (task.mode > static_cast<std::uint16_t>(session::Mode::kShape)) {
    return Status(Code::kInvalidArgument, "there is no mode number " + std::to_string(task.mode));
  }
  feeds_.resize(task.feeds.size());
  for (std::size_t i = 0; i < task.feeds.size(); ++i) feeds_[i].view = task.feeds[i];
  SlotSink sink(out);
  session::RunTimes run;
  AIS_TRY(session_->run(feeds_, {static_cast<session::Mode>(task.mode), false}, &sink, &run));
  if (session_->has_kind_warnings()) {  // once an input: what a worker writes, the parent logs
    for (const std::string& text : session_->take_kind_warnings()) std::fprintf(stderr, "FeedWarning: %s\n", text.c_str());
  }
  *times = {run.staged_ns - run.start_ns, run.executed_ns - run.staged_ns, run.delivered_ns - run.executed_ns};
  return Status();
}

}  // namespace ais::worker
