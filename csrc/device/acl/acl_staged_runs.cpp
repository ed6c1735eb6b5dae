// The steps of a run, and the handling of failures.
#include "device/acl/acl_staged_runs.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ais::acl {

Status StagedRuns::create(std::size_t depth) {
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &in_));
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &out_));
  {
    const std::lock_guard<std::mutex> guard(model_->lock());
    AIS_TRY(model_->execute_async(nullptr, 0, &execute_));
  }
  staged_runs_.resize(depth);
  for (StagedRun& staged_run : staged_runs_) {
    AIS_ASSIGN(staged_run.datasets, model_->make_datasets());
    staged_run.inputs.resize(model_->layout().info.inputs.size());
    staged_run.outputs.resize(model_->layout().info.outputs.size());
    // A stream may wait only for events of a certain kind. Events of aclrtCreateEvent also have a time, and can be recorded
    // repeatedly; those of aclrtCreateEventWithFlag would need a reset before. NPUs have few such events, so only the necessary
    // ones are made.
    for (aclrtEvent* event : {&staged_run.copied_in, &staged_run.executed}) AIS_TRY(ACL_CALL(api_, aclrtCreateEvent, event));
    for (aclrtEvent* event : {&staged_run.begun, &staged_run.starting, &staged_run.leaving, &staged_run.copied_out}) {
      AIS_TRY(ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine));
    }
  }
  return Status();
}

// Ends runs that are not waited for, and that may never end by themselves. They are dropped if there is no other work on the
// model's stream, or if all of it must stop; otherwise this waits for them.
void StagedRuns::drop_unwanted() {
  if (waited_ == submitted_) return;
  const std::unique_lock<std::mutex> no_new_run(model_->lock(), std::try_to_lock);
  const auto mine =
      std::count_if(staged_runs_.begin(), staged_runs_.end(), [](const StagedRun& staged_run) { return staged_run.executing; });
  const bool stopped = !model_->cancelled_since(staged_run(waited_).cancels).ok();
  if (stopped || (no_new_run.owns_lock() && model_->in_flight() == mine)) abort();
}

void StagedRuns::release() {
  drop_unwanted();
  // The first call may have failed because of the work or for another reason. A stream must not be destroyed while it works.
  static_cast<void>(drain().ok() || drain().ok());
  for (StagedRun& staged_run : staged_runs_) {
    for (aclrtEvent* event : staged_run.events()) {
      if (*event != nullptr) ACL_RELEASE(api_, aclrtDestroyEvent, *event);
    }
  }
  staged_runs_.clear();
  for (aclrtStream* stream : {&in_, &out_}) {
    if (*stream != nullptr) ACL_RELEASE(api_, aclrtDestroyStream, *stream);
    *stream = nullptr;
  }
}

Status StagedRuns::fit_device(std::size_t bytes, device::Buffer* buffer) {
  if (bytes > buffer->bytes || buffer->data == nullptr) {
    AIS_ASSIGN(*buffer, context_.allocate(bytes));
  }
  return Status();
}

Status StagedRuns::fit_host(std::size_t bytes, device::Buffer* buffer) {
  if (bytes > buffer->bytes || buffer->data == nullptr) {
    AIS_ASSIGN(*buffer, context_.allocate_pinned(bytes));
  }
  return Status();
}

Status StagedRuns::take_inputs(const std::vector<TensorView>& inputs, StagedRun* staged_run) {
  staged_run->views = inputs;
  staged_run->sources.assign(inputs.size(), nullptr);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const TensorView& input = inputs[i];
    AIS_TRY(fit_device(input.bytes, &staged_run->inputs[i].device));
    staged_run->views[i].data = staged_run->inputs[i].device.data.get();
    staged_run->sources[i] = input.data;
    if (staged_run->landing != nullptr && context_.is_registered(input.data, input.bytes)) continue;
    AIS_TRY(fit_host(input.bytes, &staged_run->inputs[i].host));
    staged_run->sources[i] = staged_run->inputs[i].host.data.get();
    if (input.bytes != 0) std::memcpy(staged_run->inputs[i].host.data.get(), input.data, input.bytes);
  }
  return Status();
}

Status StagedRuns::submit(const std::vector<TensorView>& inputs, device::Landing* landing) {
  if (submitted_ - waited_ >= staged_runs_.size())
    return Status(Code::kInvalidArgument, "all runs of the pipeline are under way; wait for one first");
  StagedRun& free = staged_run(submitted_);
  free.cancels = model_->cancels();
  free.landing = landing;
  free.targets.assign(free.outputs.size(), nullptr);
  AIS_TRY(take_inputs(inputs, &free));
  if (Status status = start(&free); !status.ok()) {
    // The started part must not continue, because the next run uses the same memory.
    static_cast<void>(drain());
    start_again();
    return std::move(status).with_context("device " + std::to_string(context_.device_id()));
  }
  ++submitted_;
  return Status();
}

Status StagedRuns::start(StagedRun* staged_run) {
  staged_run->failure = Status();
  staged_run->in_turn = staged_run->guessed = staged_run->leaving_started = false;
  AIS_TRY(start_copy_in(staged_run));
  Status status = start_execute(staged_run);
  if (staged_run->guessed && LoadedModel::worth_another(status)) {
    const std::lock_guard<std::mutex> guard(model_->lock());
    model_->forget_sizes();
    staged_run->in_turn = true;
    status = Status();
  }
  AIS_TRY(std::move(status));
  if (staged_run->in_turn) run_in_turn(staged_run);
  return predictable_ ? start_copy_out(staged_run) : Status();
}

Status StagedRuns::start_copy_in(StagedRun* staged_run) {
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, staged_run->begun, in_));
  for (std::size_t i = 0; i < staged_run->views.size(); ++i) {
    const TensorView& view = staged_run->views[i];
    if (view.bytes == 0) continue;
    AIS_TRY(ACL_CALL(api_, aclrtMemcpyAsync, view.data, view.bytes, staged_run->sources[i], view.bytes, kHostToDevice, in_));
  }
  return ACL_CALL(api_, aclrtRecordEvent, staged_run->copied_in, in_);
}

// Allocates memory for every output; returns false if a size is unknown.
Result<bool> StagedRuns::place_outputs(StagedRun* staged_run) {
  const Layout& layout = model_->layout();
  staged_run->results.assign(staged_run->outputs.size(), {});
  for (std::size_t i = 0; i < staged_run->outputs.size(); ++i) {
    device::Output& result = staged_run->results[i];
    const LoadedModel::Room room = model_->room_for(i);
    if (room.bytes == 0 && !predictable_) return false;
    Status status = fit_device(room.bytes, &staged_run->outputs[i].device);
    if (status.code() == Code::kOutOfMemory && room.guessed) return false;
    AIS_TRY(std::move(status));
    staged_run->guessed = staged_run->guessed || room.guessed;
    result.data = staged_run->outputs[i].device.data.get();
    result.capacity = room.bytes;
    AIS_TRY(staged_run->datasets->out.point(i, result.data, room.bytes));
    if (!predictable_) continue;
    result.shape = model_->output_shapes(*staged_run->datasets)[i];
    std::size_t elements = 0;
    static_cast<void>(count_elements(result.shape, &elements));
    result.bytes = packed_bytes(layout.info.outputs[i].dtype, elements);
  }
  return true;
}

Status StagedRuns::start_execute(StagedRun* staged_run) {
  const std::lock_guard<std::mutex> guard(model_->lock());
  AIS_TRY(model_->prepare(staged_run->views, staged_run->datasets.get()));
  AIS_ASSIGN(const bool placed, place_outputs(staged_run));
  staged_run->in_turn = !placed;
  if (!placed) return Status();
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, execute_, staged_run->copied_in));
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, staged_run->starting, execute_));
  AIS_TRY(model_->execute_async(staged_run->datasets.get(), staged_run->cancels, &execute_));
  staged_run->executing = true;
  return ACL_CALL(api_, aclrtRecordEvent, staged_run->executed, execute_);
}

// Makes the whole run except the copies out, after all earlier work has ended.
void StagedRuns::run_in_turn(StagedRun* staged_run) {
  const auto run = [&]() -> Status {
    AIS_TRY(await(staged_run->copied_in, *staged_run));
    AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, staged_run->starting, execute_));
    staged_run->results.assign(staged_run->outputs.size(), {});
    AIS_TRY(model_->run(staged_run->views, &staged_run->results));
    return ACL_CALL(api_, aclrtRecordEvent, staged_run->executed, execute_);
  };
  staged_run->in_turn = true;
  staged_run->guessed = false;
  staged_run->failure = run();
}

// Returns the target of a result: the landing if the device can write to it, otherwise pinned memory.
Result<void*> StagedRuns::target_of(const StagedRun& staged_run, std::size_t output, device::Buffer* host) {
  const device::Output& result = staged_run.results[output];
  void* room = staged_run.landing == nullptr ? nullptr : staged_run.landing->room(output, result.shape, result.bytes);
  if (room != nullptr && context_.is_registered(room, result.bytes)) return room;
  AIS_TRY(fit_host(result.bytes, host));
  return host->data.get();
}

Status StagedRuns::start_copy_out(StagedRun* staged_run) {
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, out_, staged_run->executed));
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, staged_run->leaving, out_));
  for (std::size_t i = 0; i < staged_run->results.size(); ++i) {
    const device::Output& result = staged_run->results[i];
    if (staged_run->targets[i] == nullptr) {
      AIS_ASSIGN(staged_run->targets[i], target_of(*staged_run, i, &staged_run->outputs[i].host));
    }
    if (result.bytes == 0) continue;
    AIS_TRY(
        ACL_CALL(api_, aclrtMemcpyAsync, staged_run->targets[i], result.bytes, result.data, result.bytes, kDeviceToHost, out_));
  }
  return ACL_CALL(api_, aclrtRecordEvent, staged_run->copied_out, out_);
}

// Waits for all work on the three streams. Returns the first failure in the order of the work, which is closest to the cause.
Status StagedRuns::drain() {
  Status first;
  for (aclrtStream stream : {in_, execute_, out_}) {
    if (stream == nullptr) continue;
    Status status = ACL_CALL(api_, aclrtSynchronizeStream, stream);
    if (first.ok()) first = std::move(status);
  }
  for (StagedRun& staged_run : staged_runs_) {
    if (std::exchange(staged_run.executing, false)) model_->async_done();
  }
  return first;
}

// Starts every run in progress again, from its feeds on the host, because the streams dropped the work.
void StagedRuns::start_again() {
  for (std::uint64_t run = waited_; run < submitted_; ++run) {
    StagedRun& again = staged_run(run);
    again.leaving_started = false;  // the results of a synchronous run still exist
    if (!again.failure.ok() || again.in_turn) continue;
    Status status = model_->cancelled_since(again.cancels);
    if (status.ok()) status = start(&again);
    if (!status.ok()) again.failure = std::move(status);
  }
}

Status StagedRuns::wait_for(StagedRun* staged_run) {
  AIS_TRY(std::move(staged_run->failure));
  if (!predictable_ && !staged_run->leaving_started) {
    if (!staged_run->in_turn) AIS_TRY(await(staged_run->executed, *staged_run));
    AIS_TRY(start_leaving(staged_run));
  }
  return await(staged_run->copied_out, *staged_run);
}

// Starts the copies out of results whose sizes are known now. The run has ended.
Status StagedRuns::start_leaving(StagedRun* staged_run) {
  if (!staged_run->in_turn) {
    const std::lock_guard<std::mutex> guard(model_->lock());
    AIS_TRY(model_->describe_results(*staged_run->datasets, &staged_run->results));
  }
  AIS_TRY(start_copy_out(staged_run));
  staged_run->leaving_started = true;
  return Status();
}

// The same for other runs that have ended, so that the link works while the caller uses its results. After a failure this is
// tried again, and the error is returned, when the caller waits for the run.
void StagedRuns::start_leaving_early() {
  for (std::uint64_t run = waited_; !predictable_ && run < submitted_; ++run) {
    StagedRun& next = staged_run(run);
    if (next.leaving_started) continue;
    if (!next.failure.ok() || (!next.in_turn && !has_ended_well(next)) || !start_leaving(&next).ok()) return;
  }
}

// Does not wait. A failed run has no shapes.
bool StagedRuns::has_ended_well(const StagedRun& staged_run) const {
  int reached = 0;
  return api_.aclrtQueryEventStatus(staged_run.executed, &reached) == 0 && reached == kEventReached &&
         api_.aclrtSynchronizeEvent(staged_run.executed) == 0;
}

// Makes the streams drop all work. If the NPU cannot do this, or the call fails, the work ends by itself.
void StagedRuns::abort() {
  for (aclrtStream stream : {execute_, in_, out_}) context_.abort(stream);
}

// Waits for an event of the run, or until the run must stop.
Status StagedRuns::await(aclrtEvent event, const StagedRun& staged_run) {
  const auto ended = [&]() -> Result<bool> {
    int reached = 0;
    AIS_TRY(ACL_CALL(api_, aclrtQueryEventStatus, event, &reached));
    return reached == kEventReached;
  };
  const auto unwanted = [&](bool look) {
    if (look && context_.wait_interrupted()) static_cast<void>(model_->cancel());
    return model_->cancelled_since(staged_run.cancels);
  };
  Status status = pace_.wait(submitted_ > waited_ + 1, ended, unwanted);
  if (status.code() == Code::kCancelled) {
    abort();
    return model_->stopped();
  }
  AIS_TRY(std::move(status));
  return ACL_CALL(api_, aclrtSynchronizeEvent, event);  // the result of the run
}

Status StagedRuns::finish(StagedRun* staged_run) {
  if (staged_run->in_turn && !staged_run->failure.ok()) return std::move(staged_run->failure);  // it affected no other run
  Status status = wait_for(staged_run);
  if (status.ok()) {
    if (std::exchange(staged_run->executing, false)) model_->async_done();
    return status;
  }
  Status cause = drain();
  if (!cause.ok()) status = std::move(cause);
  if (Status stopped = model_->cancelled_since(staged_run->cancels); !stopped.ok()) status = std::move(stopped);
  if (staged_run->guessed && LoadedModel::worth_another(status)) {
    {
      const std::lock_guard<std::mutex> guard(model_->lock());
      model_->forget_sizes();
    }
    staged_run->leaving_started = false;
    status = start_copy_in(staged_run);  // the error may be from this step
    if (status.ok()) run_in_turn(staged_run);
    if (status.ok()) status = wait_for(staged_run);
  }
  start_again();
  return std::move(status).with_context("device " + std::to_string(context_.device_id()));
}

Status StagedRuns::wait(std::vector<device::Output>* outputs, device::Pipeline::DeviceTimes* times) {
  if (waited_ == submitted_) return Status(Code::kInvalidArgument, "no run of the pipeline is under way");
  StagedRun& oldest = staged_run(waited_++);
  AIS_TRY(finish(&oldest));
  AIS_TRY(model_->cancelled_since(oldest.cancels));
  *times = times_of(oldest);
  outputs->clear();
  for (std::size_t i = 0; i < oldest.results.size(); ++i) {
    const device::Output& result = oldest.results[i];
    outputs->push_back({oldest.targets[i], result.bytes, result.bytes, result.shape, oldest.outputs[i].host.data});
  }
  oldest.results.clear();  // frees memory that the library allocated
  start_leaving_early();
  return Status();
}

// Returns the time between two recordings on one stream. It can be queried only after the host has synchronised with both;
// waits of streams do not count. Both are reached by now, so this does not wait.
Result<std::int64_t> StagedRuns::elapsed(aclrtEvent from, aclrtEvent to) const {
  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, from));
  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, to));
  float ms = 0;
  AIS_TRY(ACL_CALL(api_, aclrtEventElapsedTime, &ms, from, to));
  return static_cast<std::int64_t>(static_cast<double>(ms) * 1e6);
}

// A time that cannot be queried is left out; the result is still valid.
device::Pipeline::DeviceTimes StagedRuns::times_of(const StagedRun& staged_run) const {
  device::Pipeline::DeviceTimes times;
  const auto take = [&](aclrtEvent from, aclrtEvent to, std::int64_t* ns) {
    const Result<std::int64_t> took = elapsed(from, to);
    *ns = took.ok() ? took.value() : device::kUnknownTime;
    if (!took.ok() && times.why_unknown.empty()) times.why_unknown = took.status().message();
  };
  take(staged_run.begun, staged_run.copied_in, &times.copy_in_ns);
  take(staged_run.starting, staged_run.executed, &times.execute_ns);
  take(staged_run.leaving, staged_run.copied_out, &times.copy_out_ns);
  return times;
}

}  // namespace ais::acl
