// Submits runs and delivers their outputs.
#include "session/pipeline.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"

namespace ais::session {

Result<std::unique_ptr<SessionPipeline>> SessionPipeline::open(std::shared_ptr<Session> session) {
  AIS_ASSIGN(std::shared_ptr<device::Model> model, session->model());
  std::unique_ptr<device::Pipeline> runs = session->take_pipeline();
  if (runs == nullptr) {
    auto made = model->pipeline(tuning::kPipelineDepth);
    // If there is no memory for several runs, there may be enough for one.
    if (!made.ok() && made.status().code() != Code::kOutOfMemory) return made.take_status();
    if (made.ok()) runs = made.take();
  }
  return std::unique_ptr<SessionPipeline>(new SessionPipeline(std::move(session), std::move(model), std::move(runs)));
}

SessionPipeline::~SessionPipeline() {
  if (runs_ != nullptr && pending_.empty()) session_->keep_pipeline(std::move(runs_));
}

bool SessionPipeline::overlaps(const std::vector<Feed>& feeds) const {
  return runs_ != nullptr && session_->loop() == 1 &&
         std::all_of(feeds.begin(), feeds.end(), [](const Feed& feed) { return feed.device == nullptr; });
}

Status SessionPipeline::run_now(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink) {
  Pending done;
  done.status = session_->run(feeds, rule, sink, &done.times);
  pending_.push_back(std::move(done));
  return Status();
}

Status SessionPipeline::submit(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink, bool lasting) {
  if (!overlaps(feeds)) return run_now(feeds, rule, sink);
  if (session_->closed()) return session_->model().take_status();
  std::vector<TensorView> inputs;
  AIS_TRY(session_->fit_feeds(feeds, rule, &inputs));
  Pending run;
  run.landing = std::make_unique<SinkLanding>(sink, session_->info());
  Status status = runs_->submit(inputs, lasting ? run.landing.get() : nullptr);
  if (status.code() == Code::kOutOfMemory) return run_now(feeds, rule, sink);
  AIS_TRY(status);
  pending_.push_back(std::move(run));
  return Status();
}

Status SessionPipeline::finish(RunTimes* times) {
  if (pending_.empty()) return Status(Code::kInvalidArgument, "no run is under way");
  Pending run = std::move(pending_.front());
  pending_.pop_front();
  if (run.landing != nullptr) run.status = deliver(&run);
  if (times != nullptr) *times = run.times;
  return std::move(run.status);
}

Status SessionPipeline::deliver(Pending* run) {
  std::vector<device::Output> outputs;
  device::Pipeline::DeviceTimes took;
  AIS_TRY(runs_->wait(&outputs, &took));
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::Output& output = outputs[i];
    void* to = run->landing->room(i, output.shape, output.bytes);
    if (to == nullptr) return no_room(session_->info().outputs[i], output.bytes);
    if (output.bytes != 0 && to != output.data) std::memcpy(to, output.data, output.bytes);
  }
  const auto known = [](std::int64_t ns) { return ns == device::kUnknownTime ? 0 : ns; };
  RunTimes& times = run->times;
  times.delivered_ns = monotonic_ns();
  times.executed_ns = times.delivered_ns - known(took.copy_out_ns);
  times.staged_ns = times.executed_ns - known(took.execute_ns);
  times.start_ns = times.staged_ns - known(took.copy_in_ns);
  times.copy_in_known = took.copy_in_ns != device::kUnknownTime;
  times.execute_known = took.execute_ns != device::kUnknownTime;
  times.copy_out_known = took.copy_out_ns != device::kUnknownTime;
  session_->note_run(times, took.why_unknown);
  return Status();
}

}  // namespace ais::session
