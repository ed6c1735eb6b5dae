// A ring of lanes, and the threads that run them.
#include "device/ort/ort_pipeline.hpp"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/interrupt.hpp"
#include "base/process.hpp"
#include "base/tuning.hpp"

namespace ais::ort {
namespace {

using Place = DeviceMemory::Place;

Status forked_child() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from; make a new InferSession in this process");
}

// One run: its memory, its status and its times. From submit to wait it belongs to the thread that runs it.
struct Lane {
  // An input or output. The buffers are used again by later runs.
  struct Transfer {
    DeviceMemory::Span host{nullptr, Place::kHost};  // null for an output that will use `staging`
    device::Buffer staging;
    device::Buffer on_device;
  };
  std::vector<TensorView> inputs;
  std::vector<device::Output> outputs;
  std::vector<device::Buffer> staging;  // if there is no device memory: copies of inputs, and outputs without a landing
  std::vector<Transfer> in;
  std::vector<Transfer> out;
  // Frees the buffers of a run for which there was not enough memory, so that smaller runs have it.
  void give_back() {
    in.clear();
    out.clear();
  }
  Status status;
  device::Pipeline::Times times;
  bool done = false;
};

class OrtPipeline final : public device::Pipeline {
 public:
  OrtPipeline(std::shared_ptr<device::Model> model, std::shared_ptr<device::Device> device,
              std::shared_ptr<DeviceMemory> memory, std::size_t depth)
      : model_(std::move(model)),
        device_(std::move(device)),
        memory_(std::move(memory)),
        generation_(fork_generation()),
        state_(new State(depth)) {}

  // Returns false if no thread could be started.
  bool start(std::size_t depth) {
    try {
      for (std::size_t i = 0; i < depth; ++i) state_->threads.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      return !state_->threads.empty();
    }
    return true;
  }

  ~OrtPipeline() override {
    if (generation_ != fork_generation()) return;  // the threads and their memory belong to the parent
    {
      const std::lock_guard<std::mutex> guard(state_->lock);
      state_->ending = true;
      state_->changed.notify_all();
    }
    for (std::thread& thread : state_->threads) thread.join();
    delete state_;
  }
  OrtPipeline(const OrtPipeline&) = delete;
  OrtPipeline& operator=(const OrtPipeline&) = delete;

  std::size_t depth() const override { return state_->lanes.size(); }

  Status submit(const std::vector<TensorView>& inputs, device::Landing* landing) override {
    if (generation_ != fork_generation()) return forked_child();
    Lane& lane = state_->lanes[next_];
    lane.inputs = inputs;
    lane.staging.clear();
    lane.done = false;
    if (memory_ != nullptr) {
      Status status = stage_inputs(landing != nullptr, &lane);
      if (status.ok()) status = place_on_device(landing, &lane);
      if (!status.ok()) {
        lane.give_back();
        return status;
      }
    } else {
      if (landing == nullptr) AIS_TRY(copy_inputs(&lane));
      AIS_TRY(place_outputs(landing, &lane));
    }
    next_ = (next_ + 1) % depth();
    const std::lock_guard<std::mutex> guard(state_->lock);
    state_->queue.push_back(&lane);
    state_->changed.notify_all();
    return Status();
  }

  Status wait(std::vector<device::Output>* outputs, Times* times) override {
    if (generation_ != fork_generation()) return forked_child();
    Lane& lane = state_->lanes[oldest_];
    std::unique_lock<std::mutex> held(state_->lock);
    while (!state_->changed.wait_for(held, tuning::kStopLookEvery, [&] { return lane.done; })) {
      held.unlock();
      if (interrupted()) static_cast<void>(model_->cancel());
      held.lock();
    }
    held.unlock();
    oldest_ = (oldest_ + 1) % depth();
    *times = lane.times;
    *outputs = lane.outputs;  // the lane keeps its memory until it is used again
    if (lane.status.code() == Code::kOutOfMemory) lane.give_back();
    return std::exchange(lane.status, Status());
  }

 private:
  struct State {
    explicit State(std::size_t depth) : lanes(depth) {}
    std::vector<Lane> lanes;
    std::vector<std::thread> threads;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<Lane*> queue;  // guarded by lock, as what follows and Lane::done
    bool ending = false;
  };

  Status copy_inputs(Lane* lane) {
    for (TensorView& input : lane->inputs) {
      if (input.absent()) continue;
      AIS_ASSIGN(device::Buffer copy, device_->allocate(input.bytes));
      AIS_TRY(device_->copy_on_device(copy.data.get(), input.data, input.bytes));
      input.data = copy.data.get();
      lane->staging.push_back(std::move(copy));
    }
    return Status();
  }

  Status fit_device(std::size_t bytes, device::Buffer* buffer) {
    if (buffer->data != nullptr && buffer->bytes >= bytes) return Status();
    *buffer = device::Buffer();  // free it before the next one is allocated
    AIS_ASSIGN(*buffer, device_->allocate(bytes));
    return Status();
  }
  Status fit_staging(std::size_t bytes, device::Buffer* buffer) {
    if (buffer->data != nullptr && buffer->bytes >= bytes) return Status();
    AIS_ASSIGN(*buffer, memory_->allocate_staging(bytes));
    return Status();
  }

  // Allocates memory on the device for each input, and decides what is copied there. An input that stays valid is copied
  // directly if it is registered, or if the provider has no page-locked memory. Other inputs go through staging memory.
  Status stage_inputs(bool stay, Lane* lane) {
    lane->in.resize(lane->inputs.size());
    for (std::size_t i = 0; i < lane->inputs.size(); ++i) {
      TensorView& input = lane->inputs[i];
      Lane::Transfer& transfer = lane->in[i];
      if (input.absent()) continue;
      transfer.host = {input.data, Place::kHost};
      if (!stay || (memory_->has_staging() && !memory_->is_registered(input.data, input.bytes))) {
        AIS_TRY(fit_staging(input.bytes, &transfer.staging));
        if (input.bytes != 0) std::memcpy(transfer.staging.data.get(), input.data, input.bytes);
        transfer.host = {transfer.staging.data.get(), memory_->staging_place()};
      }
      AIS_TRY(fit_device(input.bytes, &transfer.on_device));
      input.data = transfer.on_device.data.get();
    }
    return Status();
  }

  // Allocates memory on the device for each output of known shape, and takes room on the host from the landing.
  Status place_on_device(device::Landing* landing, Lane* lane) {
    const std::vector<device::TensorDesc>& descs = model_->info().outputs;
    lane->outputs.assign(descs.size(), device::Output());
    lane->out.resize(descs.size());
    for (std::size_t i = 0; i < descs.size(); ++i) {
      lane->out[i].host = {nullptr, Place::kHost};
      std::size_t elements = 0;
      if (descs[i].open() || !count_elements(descs[i].shape, &elements)) continue;
      device::Output& output = lane->outputs[i];
      output.shape = descs[i].shape;
      output.capacity = packed_bytes(descs[i].dtype, elements);
      AIS_TRY(fit_device(output.capacity, &lane->out[i].on_device));
      output.data = lane->out[i].on_device.data.get();
      if (landing == nullptr) continue;
      void* const room = landing->room(i, output.shape, output.capacity);
      if (!memory_->has_staging() || memory_->is_registered(room, output.capacity)) lane->out[i].host.data = room;
    }
    return Status();
  }

  Status copy_in(Lane* lane) {
    for (std::size_t i = 0; i < lane->inputs.size(); ++i) {
      const TensorView& input = lane->inputs[i];
      if (input.absent()) continue;
      AIS_TRY(memory_->copy({input.data, Place::kDevice}, lane->in[i].host, input.bytes));
    }
    return Status();
  }

  // Moves the outputs to host memory. An output with another shape than declared may not fit its room, so it goes to staging.
  Status copy_out(Lane* lane) {
    for (std::size_t i = 0; i < lane->outputs.size(); ++i) {
      device::Output& output = lane->outputs[i];
      Lane::Transfer& transfer = lane->out[i];
      if (transfer.host.data == nullptr || output.data != transfer.on_device.data.get()) {
        AIS_TRY(fit_staging(output.bytes, &transfer.staging));
        transfer.host = {transfer.staging.data.get(), memory_->staging_place()};
      }
      AIS_TRY(memory_->copy(transfer.host, {output.data, Place::kDevice}, output.bytes));
      output.data = transfer.host.data;
      output.owner.reset();  // frees what the runtime allocated on the device
    }
    return Status();
  }

  Status run(Lane* lane) {
    lane->times = Times();
    const std::int64_t began = monotonic_ns();
    if (memory_ != nullptr) AIS_TRY(copy_in(lane));
    const std::int64_t copied = monotonic_ns();
    AIS_TRY(model_->execute(lane->inputs, &lane->outputs));
    const std::int64_t executed = monotonic_ns();
    if (memory_ != nullptr) AIS_TRY(copy_out(lane));
    lane->times = {copied - began, executed - copied, monotonic_ns() - executed, ""};
    return Status();
  }

  // Outputs of known shape are written to the landing's memory. The runtime allocates the others.
  Status place_outputs(device::Landing* landing, Lane* lane) {
    const std::vector<device::TensorDesc>& descs = model_->info().outputs;
    lane->outputs.assign(descs.size(), device::Output());
    for (std::size_t i = 0; i < descs.size(); ++i) {
      std::size_t elements = 0;
      if (descs[i].open() || !count_elements(descs[i].shape, &elements)) continue;
      device::Output& output = lane->outputs[i];
      output.shape = descs[i].shape;
      output.capacity = packed_bytes(descs[i].dtype, elements);
      if (landing != nullptr) output.data = landing->room(i, output.shape, output.capacity);
      if (output.data != nullptr) continue;
      AIS_ASSIGN(device::Buffer buffer, device_->allocate(output.capacity));
      output.data = buffer.data.get();
      lane->staging.push_back(std::move(buffer));
    }
    return Status();
  }

  void serve() {
    State& state = *state_;
    std::unique_lock<std::mutex> held(state.lock);
    while (true) {
      state.changed.wait(held, [&] { return state.ending || !state.queue.empty(); });
      if (state.queue.empty()) return;
      Lane* const lane = state.queue.front();
      state.queue.pop_front();
      held.unlock();
      Status status = run(lane);
      if (!status.ok() && memory_ != nullptr) {
        status = std::move(status).with_context("device " + std::to_string(device_->id()) + " of " + device_->provider());
      }
      lane->status = std::move(status);
      held.lock();
      lane->done = true;
      state.changed.notify_all();
    }
  }

  const std::shared_ptr<device::Model> model_;
  const std::shared_ptr<device::Device> device_;
  const std::shared_ptr<DeviceMemory> memory_;  // null: the provider copies as a part of a run
  const std::uint64_t generation_;
  State* const state_;      // leaked in a forked child
  std::size_t next_ = 0;    // the lane of the next submit
  std::size_t oldest_ = 0;  // and of the next wait
};

}  // namespace

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<device::Device> device,
                                                        std::shared_ptr<DeviceMemory> memory, std::size_t depth) {
  auto pipeline = std::make_unique<OrtPipeline>(std::move(model), std::move(device), std::move(memory), depth);
  if (!pipeline->start(depth)) return std::unique_ptr<device::Pipeline>();
  return std::unique_ptr<device::Pipeline>(std::move(pipeline));
}

}  // namespace ais::ort
