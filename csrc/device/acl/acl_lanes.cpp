// The steps of a run, and what happens when one fails.
#include "device/acl/acl_lanes.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ais::acl {

Status Lanes::create(std::size_t depth) {
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &in_));
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &out_));
  {
    const std::lock_guard<std::mutex> guard(model_->lock());
    AIS_TRY(model_->execute_async(nullptr, 0, &execute_));
  }
  lanes_.resize(depth);
  for (Lane& lane : lanes_) {
    AIS_ASSIGN(lane.slot, model_->make_slot());
    lane.inputs.resize(model_->layout().info.inputs.size());
    lane.outputs.resize(model_->layout().info.outputs.size());
    // A stream may wait only for events that were made for it. Those of aclrtCreateEvent carry a time, too, and can be recorded
    // again and again; those of aclrtCreateEventWithFlag would need a reset in between. NPUs have few of them, so there are as
    // many as have to be.
    for (aclrtEvent* event : {&lane.copied_in, &lane.executed}) AIS_TRY(ACL_CALL(api_, aclrtCreateEvent, event));
    for (aclrtEvent* event : {&lane.begun, &lane.starting, &lane.leaving, &lane.copied_out}) {
      AIS_TRY(ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine));
    }
  }
  return Status();
}

// Nobody waits for what is under way, and it may never end by itself. It is dropped where nobody else has work on the model's
// stream, or all of that was asked to stop; else it is waited for.
void Lanes::drop_unwanted() {
  if (waited_ == submitted_) return;
  const std::unique_lock<std::mutex> nobody_starts(model_->lock(), std::try_to_lock);
  const auto mine = std::count_if(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.executing; });
  const bool stopped = !model_->cancelled_since(lane(waited_).cancels).ok();
  if (stopped || (nobody_starts.owns_lock() && model_->in_flight() == mine)) abort();
}

void Lanes::release() {
  drop_unwanted();
  // The first may have failed for the work, or by itself; a stream must not be destroyed while it works.
  static_cast<void>(drain().ok() || drain().ok());
  for (Lane& lane : lanes_) {
    for (aclrtEvent* event : lane.events()) {
      if (*event != nullptr) ACL_RELEASE(api_, aclrtDestroyEvent, *event);
    }
  }
  lanes_.clear();
  for (aclrtStream* stream : {&in_, &out_}) {
    if (*stream != nullptr) ACL_RELEASE(api_, aclrtDestroyStream, *stream);
    *stream = nullptr;
  }
}

Status Lanes::fit_device(std::size_t bytes, device::Buffer* buffer) {
  if (bytes > buffer->bytes || buffer->data == nullptr) {
    AIS_ASSIGN(*buffer, context_.allocate(bytes));
  }
  return Status();
}

Status Lanes::fit_host(std::size_t bytes, device::Buffer* buffer) {
  if (bytes > buffer->bytes || buffer->data == nullptr) {
    AIS_ASSIGN(*buffer, context_.allocate_pinned(bytes));
  }
  return Status();
}

Status Lanes::take_inputs(const std::vector<TensorView>& inputs, Lane* lane) {
  lane->views = inputs;
  lane->sources.assign(inputs.size(), nullptr);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const TensorView& input = inputs[i];
    AIS_TRY(fit_device(input.bytes, &lane->inputs[i].device));
    lane->views[i].data = lane->inputs[i].device.data.get();
    lane->sources[i] = input.data;
    if (lane->landing != nullptr && context_.is_registered(input.data, input.bytes)) continue;
    AIS_TRY(fit_host(input.bytes, &lane->inputs[i].host));
    lane->sources[i] = lane->inputs[i].host.data.get();
    if (input.bytes != 0) std::memcpy(lane->inputs[i].host.data.get(), input.data, input.bytes);
  }
  return Status();
}

Status Lanes::submit(const std::vector<TensorView>& inputs, device::Landing* landing) {
  if (submitted_ - waited_ >= lanes_.size())
    return Status(Code::kInvalidArgument, "all runs of the pipeline are under way; wait for one first");
  Lane& free = lane(submitted_);
  free.cancels = model_->cancels();
  free.landing = landing;
  free.targets.assign(free.outputs.size(), nullptr);
  AIS_TRY(take_inputs(inputs, &free));
  if (Status status = start(&free); !status.ok()) {
    // What was started of it must not go on over memory that the next run uses.
    static_cast<void>(drain());
    start_again();
    return std::move(status).with_context("device " + std::to_string(context_.device_id()));
  }
  ++submitted_;
  return Status();
}

Status Lanes::start(Lane* lane) {
  lane->failure = Status();
  lane->in_turn = lane->guessed = lane->leaving_started = false;
  AIS_TRY(start_copy_in(lane));
  Status status = start_execute(lane);
  if (lane->guessed && LoadedModel::worth_another(status)) {
    const std::lock_guard<std::mutex> guard(model_->lock());
    model_->forget_sizes();
    lane->in_turn = true;
    status = Status();
  }
  AIS_TRY(std::move(status));
  if (lane->in_turn) run_in_turn(lane);
  return predictable_ ? start_copy_out(lane) : Status();
}

Status Lanes::start_copy_in(Lane* lane) {
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->begun, in_));
  for (std::size_t i = 0; i < lane->views.size(); ++i) {
    const TensorView& view = lane->views[i];
    if (view.bytes == 0) continue;
    AIS_TRY(ACL_CALL(api_, aclrtMemcpyAsync, view.data, view.bytes, lane->sources[i], view.bytes, kHostToDevice, in_));
  }
  return ACL_CALL(api_, aclrtRecordEvent, lane->copied_in, in_);
}

// Memory for every output; false where nobody knows how much.
Result<bool> Lanes::place_outputs(Lane* lane) {
  const Layout& layout = model_->layout();
  lane->results.assign(lane->outputs.size(), {});
  for (std::size_t i = 0; i < lane->outputs.size(); ++i) {
    device::Output& result = lane->results[i];
    const LoadedModel::Room room = model_->room_for(i);
    if (room.bytes == 0 && !predictable_) return false;
    Status status = fit_device(room.bytes, &lane->outputs[i].device);
    if (status.code() == Code::kOutOfMemory && room.guessed) return false;
    AIS_TRY(std::move(status));
    lane->guessed = lane->guessed || room.guessed;
    result.data = lane->outputs[i].device.data.get();
    result.capacity = room.bytes;
    AIS_TRY(lane->slot->out.point(i, result.data, room.bytes));
    if (!predictable_) continue;
    result.shape = model_->output_shapes(*lane->slot)[i];
    std::size_t elements = 0;
    static_cast<void>(count_elements(result.shape, &elements));
    result.bytes = packed_bytes(layout.info.outputs[i].dtype, elements);
  }
  return true;
}

Status Lanes::start_execute(Lane* lane) {
  const std::lock_guard<std::mutex> guard(model_->lock());
  AIS_TRY(model_->prepare(lane->views, lane->slot.get()));
  AIS_ASSIGN(const bool placed, place_outputs(lane));
  lane->in_turn = !placed;
  if (!placed) return Status();
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, execute_, lane->copied_in));
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->starting, execute_));
  AIS_TRY(model_->execute_async(lane->slot.get(), lane->cancels, &execute_));
  lane->executing = true;
  return ACL_CALL(api_, aclrtRecordEvent, lane->executed, execute_);
}

// The whole run but the copies out, with everything before it ended.
void Lanes::run_in_turn(Lane* lane) {
  const auto run = [&]() -> Status {
    AIS_TRY(await(lane->copied_in, *lane));
    AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->starting, execute_));
    lane->results.assign(lane->outputs.size(), {});
    AIS_TRY(model_->run(lane->views, &lane->results));
    return ACL_CALL(api_, aclrtRecordEvent, lane->executed, execute_);
  };
  lane->in_turn = true;
  lane->guessed = false;
  lane->failure = run();
}

// Where a result goes: straight to the landing if the device can write there, else into pinned memory.
Result<void*> Lanes::target_of(const Lane& lane, std::size_t output, device::Buffer* staged) {
  const device::Output& result = lane.results[output];
  void* room = lane.landing == nullptr ? nullptr : lane.landing->room(output, result.shape, result.bytes);
  if (room != nullptr && context_.is_registered(room, result.bytes)) return room;
  AIS_TRY(fit_host(result.bytes, staged));
  return staged->data.get();
}

Status Lanes::start_copy_out(Lane* lane) {
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, out_, lane->executed));
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->leaving, out_));
  for (std::size_t i = 0; i < lane->results.size(); ++i) {
    const device::Output& result = lane->results[i];
    if (lane->targets[i] == nullptr) {
      AIS_ASSIGN(lane->targets[i], target_of(*lane, i, &lane->outputs[i].host));
    }
    if (result.bytes == 0) continue;
    AIS_TRY(ACL_CALL(api_, aclrtMemcpyAsync, lane->targets[i], result.bytes, result.data, result.bytes, kDeviceToHost, out_));
  }
  return ACL_CALL(api_, aclrtRecordEvent, lane->copied_out, out_);
}

// Waits for everything on the three streams. A failure is the first in the order of the work, which names the cause best.
Status Lanes::drain() {
  Status first;
  for (aclrtStream stream : {in_, execute_, out_}) {
    if (stream == nullptr) continue;
    Status status = ACL_CALL(api_, aclrtSynchronizeStream, stream);
    if (first.ok()) first = std::move(status);
  }
  for (Lane& lane : lanes_) {
    if (std::exchange(lane.executing, false)) model_->async_done();
  }
  return first;
}

// Starts every run that is under way once more, from its feeds on the host: their streams dropped them.
void Lanes::start_again() {
  for (std::uint64_t run = waited_; run < submitted_; ++run) {
    Lane& again = lane(run);
    again.leaving_started = false;  // of a run in turn the results are still there
    if (!again.failure.ok() || again.in_turn) continue;
    Status status = model_->cancelled_since(again.cancels);
    if (status.ok()) status = start(&again);
    if (!status.ok()) again.failure = std::move(status);
  }
}

Status Lanes::wait_for(Lane* lane) {
  AIS_TRY(std::move(lane->failure));
  if (!predictable_ && !lane->leaving_started) {
    if (!lane->in_turn) AIS_TRY(await(lane->executed, *lane));
    AIS_TRY(start_leaving(lane));
  }
  return await(lane->copied_out, *lane);
}

// The copies out of results whose sizes the run had to tell. It has ended.
Status Lanes::start_leaving(Lane* lane) {
  if (!lane->in_turn) {
    const std::lock_guard<std::mutex> guard(model_->lock());
    AIS_TRY(model_->describe_results(*lane->slot, &lane->results));
  }
  AIS_TRY(start_copy_out(lane));
  lane->leaving_started = true;
  return Status();
}

// The same for runs that have ended meanwhile: the link works while the caller deals with what it got. What fails here is tried
// again, and told, when the run is waited for.
void Lanes::start_leaving_early() {
  for (std::uint64_t run = waited_; !predictable_ && run < submitted_; ++run) {
    Lane& next = lane(run);
    if (next.leaving_started) continue;
    if (!next.failure.ok() || (!next.in_turn && !has_ended_well(next)) || !start_leaving(&next).ok()) return;
  }
}

// Without waiting. A run that failed has no shapes to ask for.
bool Lanes::has_ended_well(const Lane& lane) const {
  int reached = 0;
  return api_.aclrtQueryEventStatus(lane.executed, &reached) == 0 && reached == kEventReached &&
         api_.aclrtSynchronizeEvent(lane.executed) == 0;
}

// Makes the streams drop everything. Where an NPU cannot do that, or it fails, the work ends by itself.
void Lanes::abort() {
  for (aclrtStream stream : {execute_, in_, out_}) context_.abort(stream);
}

// Waits for an event of the lane, or to be asked to stop.
Status Lanes::await(aclrtEvent event, const Lane& lane) {
  const auto ended = [&]() -> Result<bool> {
    int reached = 0;
    AIS_TRY(ACL_CALL(api_, aclrtQueryEventStatus, event, &reached));
    return reached == kEventReached;
  };
  const auto unwanted = [&](bool look) {
    if (look && context_.wait_interrupted()) static_cast<void>(model_->cancel());
    return model_->cancelled_since(lane.cancels);
  };
  Status status = pace_.wait(submitted_ > waited_ + 1, ended, unwanted);
  if (status.code() == Code::kCancelled) {
    abort();
    return model_->stopped();
  }
  AIS_TRY(std::move(status));
  return ACL_CALL(api_, aclrtSynchronizeEvent, event);  // how it ended
}

Status Lanes::finish(Lane* lane) {
  if (lane->in_turn && !lane->failure.ok()) return std::move(lane->failure);  // it touched no other
  Status status = wait_for(lane);
  if (status.ok()) {
    if (std::exchange(lane->executing, false)) model_->async_done();
    return status;
  }
  Status cause = drain();
  if (!cause.ok()) status = std::move(cause);
  if (Status stopped = model_->cancelled_since(lane->cancels); !stopped.ok()) status = std::move(stopped);
  if (lane->guessed && LoadedModel::worth_another(status)) {
    {
      const std::lock_guard<std::mutex> guard(model_->lock());
      model_->forget_sizes();
    }
    lane->leaving_started = false;
    status = start_copy_in(lane);  // it may have failed there
    if (status.ok()) run_in_turn(lane);
    if (status.ok()) status = wait_for(lane);
  }
  start_again();
  return std::move(status).with_context("device " + std::to_string(context_.device_id()));
}

Status Lanes::wait(std::vector<device::Output>* outputs, device::Pipeline::Times* times) {
  if (waited_ == submitted_) return Status(Code::kInvalidArgument, "no run of the pipeline is under way");
  Lane& oldest = lane(waited_++);
  AIS_TRY(finish(&oldest));
  AIS_TRY(model_->cancelled_since(oldest.cancels));
  *times = times_of(oldest);
  outputs->clear();
  for (std::size_t i = 0; i < oldest.results.size(); ++i) {
    const device::Output& result = oldest.results[i];
    outputs->push_back({oldest.targets[i], result.bytes, result.bytes, result.shape, oldest.outputs[i].host.data});
  }
  oldest.results.clear();  // what the library allocated
  start_leaving_early();
  return Status();
}

// Of two recordings on one stream. Their times can be asked for only when the host has dealt with both, which no stream's wait
// for them does. They are reached by now, so this waits for nothing.
Result<std::int64_t> Lanes::elapsed(aclrtEvent from, aclrtEvent to) const {
  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, from));
  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, to));
  float ms = 0;
  AIS_TRY(ACL_CALL(api_, aclrtEventElapsedTime, &ms, from, to));
  return static_cast<std::int64_t>(static_cast<double>(ms) * 1e6);
}

// The result is there, so a time that cannot be had costs only the time.
device::Pipeline::Times Lanes::times_of(const Lane& lane) const {
  device::Pipeline::Times times;
  const auto take = [&](aclrtEvent from, aclrtEvent to, std::int64_t* ns) {
    const Result<std::int64_t> took = elapsed(from, to);
    *ns = took.ok() ? took.value() : device::kUnknownTime;
    if (!took.ok() && times.why_unknown.empty()) times.why_unknown = took.status().message();
  };
  take(lane.begun, lane.copied_in, &times.copy_in_ns);
  take(lane.starting, lane.executed, &times.execute_ns);
  take(lane.leaving, lane.copied_out, &times.copy_out_ns);
  return times;
}

}  // namespace ais::acl
