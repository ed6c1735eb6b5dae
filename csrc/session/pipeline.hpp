// Many runs of one session, several of them at once if the runtime can overlap them.
//
// Results come in the order of submission. If a run cannot overlap (a runtime or model without pipelines, loop > 1, feeds on a
// device, memory too small for several runs), it runs when it is submitted, and its result waits here for its turn.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "session/session.hpp"

namespace ais::session {

class SessionPipeline {
 public:
  static Result<std::unique_ptr<SessionPipeline>> open(std::shared_ptr<Session> session);
  ~SessionPipeline();
  SessionPipeline(const SessionPipeline&) = delete;
  SessionPipeline& operator=(const SessionPipeline&) = delete;

  // Return how many runs can be in progress, and how many are. One thread at a time.
  std::size_t depth() const { return runs_ != nullptr ? runs_->depth() : 1; }
  std::size_t under_way() const { return pending_.size(); }

  // Starts a run. Fewer than depth() runs may be in progress. The feeds are free when it returns; `sink` is used until finish()
  // of this run. With `lasting`, the feeds and the memory that the sink reserves stay valid until then, so that a device with
  // which they are registered (Device::register_host) copies directly from and to them. On a failure nothing was started.
  Status submit(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink, bool lasting = false);
  // Waits for the oldest run and delivers its outputs. `times` may be null; the device measures them.
  Status finish(RunTimes* times);

 private:
  // Gives the sink's memory to the device during the run.
  class SinkLanding final : public device::Landing {
   public:
    SinkLanding(OutputSink* sink, const device::ModelInfo& info) : sink_(sink), info_(info), rooms_(info.outputs.size()) {}
    void* room(std::size_t index, const Shape& shape, std::size_t bytes) override {
      if (!rooms_[index]) rooms_[index] = sink_->reserve(index, info_.outputs[index], shape, bytes);
      return *rooms_[index];
    }

   private:
    OutputSink* const sink_;
    const device::ModelInfo& info_;
    std::vector<std::optional<void*>> rooms_;  // set for the outputs for which the device asked
  };
  struct Pending {
    std::unique_ptr<SinkLanding> landing;  // null: it ran when it was submitted, with this status and these times
    Status status;
    RunTimes times;
  };

  SessionPipeline(std::shared_ptr<Session> session, std::shared_ptr<device::Model> model,
                  std::unique_ptr<device::Pipeline> runs)
      : session_(std::move(session)), model_(std::move(model)), runs_(std::move(runs)) {}

  bool overlaps(const std::vector<Feed>& feeds) const;
  Status run_now(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink);
  Status deliver(Pending* run);

  const std::shared_ptr<Session> session_;
  const std::shared_ptr<device::Model> model_;
  std::unique_ptr<device::Pipeline> runs_;  // null: nothing overlaps
  std::deque<Pending> pending_;
};

}  // namespace ais::session
