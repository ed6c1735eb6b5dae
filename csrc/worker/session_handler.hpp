// Runs a model on tasks: feeds are read from their slot, outputs of known shape are written by the device into theirs.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "session/pipeline.hpp"
#include "session/session.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

// Where the runtime overlaps the copies of one task with the execution of another, several are under way at once.
class SessionHandler : public Handler {
 public:
  explicit SessionHandler(std::shared_ptr<session::Session> session);
  std::size_t depth() const override { return pipeline_ == nullptr ? 1 : pipeline_->depth(); }
  void start(shm::Task* task) override;
  Status finish(shm::RunTimes* times) override;

 private:
  class SlotSink : public session::OutputSink {
   public:
    explicit SlotSink(shm::FrameWriter* out) : out_(out) {}
    void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) override {
      return out_->reserve(index, desc.dtype, shape.data(), shape.size(), bytes);
    }

   private:
    shm::FrameWriter* out_;
  };
  struct Started {
    shm::Task* task;
    std::unique_ptr<SlotSink> sink;
    Status status;  // it did not start
  };

  Status submit(const shm::Task& task, SlotSink* sink);

  const std::shared_ptr<session::Session> session_;
  std::unique_ptr<session::Pipeline> pipeline_;  // null: one task after the other, executed by finish()
  std::vector<session::Feed> feeds_;             // kept for its memory
  std::deque<Started> started_;
};

}  // namespace ais::worker
