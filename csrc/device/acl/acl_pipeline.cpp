// Runs under way on three streams, so that the link to the device, the device, and the link back work at the same time.
//
//   in:       copy 0 | copy 1 | copy 2 | ...
//   execute:           run 0  | run 1  | ...      waits for `copied_in` of its run
//   out:                        copy 0 | ...      waits for `executed` of its run
//
// A run has a lane: datasets, device memory, pinned host memory, events. Feeds are copied into pinned memory by the host,
// because only from there can the device copy by itself; results are read where the device put them. Lanes are used in turn. A
// run that fails makes its streams drop what came after it; the runs that follow are then started again, so each fails by
// itself.
#include <cstring>
#include <utility>

#include "device/acl/acl_model.hpp"

namespace ais::acl {
namespace {

// Pinned and device memory for one tensor. Grows, and is kept.
struct Staging {
  device::Buffer host;
  device::Buffer device;
  std::size_t bytes = 0;  // in use now
};

struct Lane {
  std::unique_ptr<Slot> slot;
  std::vector<Staging> inputs;
  std::vector<Staging> outputs;
  std::vector<TensorView> views;  // of the inputs, on the device
  aclrtEvent begun = nullptr;     // copying in
  aclrtEvent copied_in = nullptr;
  aclrtEvent starting = nullptr;  // executing
  aclrtEvent executed = nullptr;
  aclrtEvent copied_out = nullptr;
  std::vector<Shape> shapes;  // of the outputs
  bool executing = false;     // counts as in flight in the model
  std::uint64_t cancels = 0;
  Status failure;  // it could not be started again
};

class Lanes final : public Resident {
 public:
  Lanes(AclContext* context, std::shared_ptr<LoadedModel> model)
      : context_(*context), api_(context->api()), model_(std::move(model)) {}
  ~Lanes() override = default;

  Status create(std::size_t depth);
  void release() override;
  std::size_t depth() const { return lanes_.size(); }
  Status submit(const std::vector<TensorView>& inputs);
  Status wait(std::vector<device::Output>* outputs, device::Pipeline::Times* times);

 private:
  Lane& lane(std::uint64_t run) { return lanes_[run % lanes_.size()]; }
  Status fit(std::size_t bytes, Staging* staging);
  Status start(Lane* lane);
  Status start_copy_in(Lane* lane);
  Status start_execute(Lane* lane);
  Status start_copy_out(Lane* lane);
  Status finish(Lane* lane);
  Status drain();
  void start_again();
  Status times_of(const Lane& lane, device::Pipeline::Times* times) const;
  Status elapsed(aclrtEvent from, aclrtEvent to, std::int64_t* ns) const;

  AclContext& context_;
  const Api& api_;
  const std::shared_ptr<LoadedModel> model_;
  aclrtStream in_ = nullptr;
  aclrtStream execute_ = nullptr;  // the model's
  aclrtStream out_ = nullptr;
  std::vector<Lane> lanes_;
  std::uint64_t submitted_ = 0;
  std::uint64_t waited_ = 0;
};

Status Lanes::create(std::size_t depth) {
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &in_));
  AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &out_));
  {
    const std::lock_guard<std::mutex> guard(model_->lock());
    AIS_TRY(model_->execute_async(nullptr, &execute_));
  }
  lanes_.resize(depth);
  for (Lane& lane : lanes_) {
    AIS_ASSIGN(lane.slot, model_->make_slot());
    lane.inputs.resize(model_->layout().info.inputs.size());
    lane.outputs.resize(model_->layout().info.outputs.size());
    for (aclrtEvent* event : {&lane.begun, &lane.copied_in, &lane.starting, &lane.executed, &lane.copied_out}) {
      AIS_TRY(ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine));
    }
  }
  return Status();
}

void Lanes::release() {
  // The first may have failed for the work, or by itself; a stream must not be destroyed while it works.
  static_cast<void>(drain().ok() || drain().ok());
  for (Lane& lane : lanes_) {
    if (std::exchange(lane.executing, false)) model_->async_done();
    for (aclrtEvent event : {lane.begun, lane.copied_in, lane.starting, lane.executed, lane.copied_out}) {
      if (event != nullptr) ACL_RELEASE(api_, aclrtDestroyEvent, event);
    }
  }
  lanes_.clear();
  for (aclrtStream* stream : {&in_, &out_}) {
    if (*stream != nullptr) ACL_RELEASE(api_, aclrtDestroyStream, *stream);
    *stream = nullptr;
  }
}

Status Lanes::fit(std::size_t bytes, Staging* staging) {
  if (bytes > staging->device.bytes || staging->device.data == nullptr) {
    AIS_ASSIGN(device::Buffer device, context_.allocate(bytes));
    AIS_ASSIGN(staging->host, context_.allocate_pinned(bytes));
    staging->device = std::move(device);  // both or neither
  }
  staging->bytes = bytes;
  return Status();
}

Status Lanes::submit(const std::vector<TensorView>& inputs) {
  if (submitted_ - waited_ >= lanes_.size())
    return Status(Code::kInvalidArgument, "all runs of the pipeline are under way; wait for one first");
  Lane& free = lane(submitted_);
  free.cancels = model_->cancels();
  free.views = inputs;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    AIS_TRY(fit(inputs[i].bytes, &free.inputs[i]));
    if (inputs[i].bytes != 0) std::memcpy(free.inputs[i].host.data.get(), inputs[i].data, inputs[i].bytes);
    free.views[i].data = free.inputs[i].device.data.get();
  }
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
  AIS_TRY(start_copy_in(lane));
  AIS_TRY(start_execute(lane));
  return start_copy_out(lane);
}

Status Lanes::start_copy_in(Lane* lane) {
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->begun, in_));
  for (const Staging& input : lane->inputs) {
    if (input.bytes == 0) continue;
    AIS_TRY(ACL_CALL(api_, aclrtMemcpyAsync, input.device.data.get(), input.bytes, input.host.data.get(), input.bytes,
                     kHostToDevice, in_));
  }
  return ACL_CALL(api_, aclrtRecordEvent, lane->copied_in, in_);
}

Status Lanes::start_execute(Lane* lane) {
  const std::lock_guard<std::mutex> guard(model_->lock());
  AIS_TRY(model_->prepare(lane->views, lane->slot.get()));
  lane->shapes = model_->output_shapes(*lane->slot);
  const Layout& layout = model_->layout();
  for (std::size_t i = 0; i < lane->outputs.size(); ++i) {
    AIS_TRY(fit(layout.output_bytes[i], &lane->outputs[i]));
    AIS_TRY(lane->slot->out.point(i, lane->outputs[i].device.data.get(), layout.output_bytes[i]));
    std::size_t elements = 0;
    static_cast<void>(count_elements(lane->shapes[i], &elements));
    lane->outputs[i].bytes = packed_bytes(layout.info.outputs[i].dtype, elements);
  }
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, execute_, lane->copied_in));
  AIS_TRY(ACL_CALL(api_, aclrtRecordEvent, lane->starting, execute_));
  AIS_TRY(model_->execute_async(lane->slot.get(), &execute_));
  lane->executing = true;
  return ACL_CALL(api_, aclrtRecordEvent, lane->executed, execute_);
}

Status Lanes::start_copy_out(Lane* lane) {
  AIS_TRY(ACL_CALL(api_, aclrtStreamWaitEvent, out_, lane->executed));
  for (const Staging& output : lane->outputs) {
    if (output.bytes == 0) continue;
    AIS_TRY(ACL_CALL(api_, aclrtMemcpyAsync, output.host.data.get(), output.bytes, output.device.data.get(), output.bytes,
                     kDeviceToHost, out_));
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

// Starts every run that is under way once more, from its feeds in pinned memory: their streams dropped them.
void Lanes::start_again() {
  for (std::uint64_t run = waited_; run < submitted_; ++run) {
    Lane& again = lane(run);
    if (again.failure.ok()) again.failure = start(&again);
  }
}

Status Lanes::finish(Lane* lane) {
  Status status = std::move(lane->failure);
  if (status.ok()) status = ACL_CALL(api_, aclrtSynchronizeEvent, lane->copied_out);
  if (status.ok()) {
    if (std::exchange(lane->executing, false)) model_->async_done();
    return status;
  }
  Status cause = drain();
  start_again();
  return (cause.ok() ? std::move(status) : std::move(cause)).with_context("device " + std::to_string(context_.device_id()));
}

Status Lanes::wait(std::vector<device::Output>* outputs, device::Pipeline::Times* times) {
  if (waited_ == submitted_) return Status(Code::kInvalidArgument, "no run of the pipeline is under way");
  Lane& oldest = lane(waited_++);
  AIS_TRY(finish(&oldest));
  AIS_TRY(model_->cancelled_since(oldest.cancels));
  AIS_TRY(times_of(oldest, times));
  outputs->clear();
  for (std::size_t i = 0; i < oldest.outputs.size(); ++i) {
    const Staging& staged = oldest.outputs[i];
    outputs->push_back({staged.host.data.get(), staged.bytes, staged.bytes, oldest.shapes[i], staged.host.data});
  }
  return Status();
}

Status Lanes::elapsed(aclrtEvent from, aclrtEvent to, std::int64_t* ns) const {
  float ms = 0;
  AIS_TRY(ACL_CALL(api_, aclrtEventElapsedTime, &ms, from, to));
  *ns = static_cast<std::int64_t>(static_cast<double>(ms) * 1e6);
  return Status();
}

Status Lanes::times_of(const Lane& lane, device::Pipeline::Times* times) const {
  AIS_TRY(elapsed(lane.begun, lane.copied_in, &times->copy_in_ns));
  AIS_TRY(elapsed(lane.starting, lane.executed, &times->execute_ns));
  return elapsed(lane.executed, lane.copied_out, &times->copy_out_ns);
}

class AclPipeline final : public device::Pipeline {
 public:
  AclPipeline(std::shared_ptr<AclContext> context, std::shared_ptr<device::Model> model, std::shared_ptr<Lanes> lanes)
      : context_(std::move(context)), model_(std::move(model)), lanes_(std::move(lanes)), depth_(lanes_->depth()) {}
  ~AclPipeline() override { context_->remove(lanes_); }
  AclPipeline(const AclPipeline&) = delete;
  AclPipeline& operator=(const AclPipeline&) = delete;

  std::size_t depth() const override { return depth_; }
  Status submit(const std::vector<TensorView>& inputs) override {
    AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
    return lanes_->submit(inputs);
  }
  Status wait(std::vector<device::Output>* outputs, Times* times) override {
    AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
    return lanes_->wait(outputs, times);
  }

 private:
  const std::shared_ptr<AclContext> context_;
  const std::shared_ptr<device::Model> model_;  // unloaded after the pipeline
  const std::shared_ptr<Lanes> lanes_;
  const std::size_t depth_;
};

}  // namespace

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<AclContext> context,
                                                        std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<LoadedModel> loaded, std::size_t depth) {
  auto lanes = std::make_shared<Lanes>(context.get(), std::move(loaded));
  if (Status status = lanes->create(depth); !status.ok()) {
    lanes->release();
    return status;
  }
  context->add(lanes);
  return std::unique_ptr<device::Pipeline>(
      std::make_unique<AclPipeline>(std::move(context), std::move(model), std::move(lanes)));
}

}  // namespace ais::acl
