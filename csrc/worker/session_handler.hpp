// Runs a model on tasks. Feeds are read from their slot, and the device writes outputs of known shape into the result slot.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "session/pipeline.hpp"
#include "session/session.hpp"
#include "worker/handler.hpp"
#include "worker/slot_registry.hpp"

namespace ais::worker {

// If the runtime overlaps the copies of one task with the execution of another, several tasks are in progress at once.
class SessionHandler : public Handler {
 public:
  explicit SessionHandler(std::shared_ptr<session::Session> session);
  std::size_t depth() const override { return pipeline_ == nullptr ? 1 : pipeline_->depth(); }
  void start(shm::PortTask* task) override;
  Status finish(shm::StageTimes* times) override;
  void cancel(std::uint64_t seq) override;
  void leave() override { slots_.unregister_all(); }
  // Called in the serving thread when the device stops registering slots of the arena: Device::host_memory() has the reason.
  void when_slots_are_refused(std::function<void()> tell) { slots_.when_refused(std::move(tell)); }

 private:
  // If the processors share no cache, a small output of a device that reads host memory is computed in the worker's private
  // memory and copied at the end: the slot's cache lines are in the cache of the parent's processor, and a kernel would fetch
  // them one by one.
  struct Bounce {
    void* slot = nullptr;  // null: this output is written directly into the slot
    std::size_t bytes = 0;
    std::vector<std::uint64_t> memory;  // kept from task to task
  };
  class SlotSink : public session::OutputSink {
   public:
    SlotSink(shm::FrameWriter* out, std::vector<Bounce>* bounces, SlotRegistry* slots, SlotRegistry::User user)
        : out_(out), bounces_(bounces), slots_(slots), user_(std::move(user)) {}
    ~SlotSink() override {
      if (slots_ != nullptr) slots_->end(user_);
    }
    void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) override;

   private:
    shm::FrameWriter* out_;
    std::vector<Bounce>* bounces_;  // null: none
    SlotRegistry* slots_;           // null: nothing is registered
    SlotRegistry::User user_;
  };
  struct StartedTask {
    shm::PortTask* task;
    std::unique_ptr<SlotSink> sink;
    Status status;  // an error: it did not start
  };

  Status submit(const shm::PortTask& task, SlotSink* sink);

  const std::shared_ptr<session::Session> session_;
  std::vector<session::Feed> feeds_;  // kept for its memory
  SlotRegistry slots_;                // used by a pipeline, whose device copies while the host does other things
  std::uint64_t tasks_ = 0;
  std::deque<StartedTask> started_;
  std::mutex lock_;
  std::deque<std::uint64_t> running_;  // the numbers of started tasks; guarded by lock_
  std::vector<Bounce> bounces_;        // one for each output; used if one task runs at a time
  // Null: finish() executes the tasks one by one. Declared last, so destroyed first, because its runs use the other members.
  std::unique_ptr<session::SessionPipeline> pipeline_;
};

}  // namespace ais::worker
