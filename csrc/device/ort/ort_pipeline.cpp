// A ring of runs, and the threads that run them.
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

using Side = DeviceMemory::Side;

Status forked_child() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from; make a new InferSession in this process");
}

// One run: its memory, its status and its times. From submit to wait it belongs to the thread that runs it.
struct OrtRun {
  // An input or output. The buffers are used again by later runs.
  struct Transfer {
    DeviceMemory::Location host{nullptr, Side::kHost};  // null for an output that will use `staging`
    device::Buffer staging;
    device::Buffer on_device;
  };
  std::vector<TensorView> inputs;
  std::vector<device::Output> outputs;
  std::vector<device::Buffer> staging;  // if there is no device memory: copies of inputs, and outputs without a landing
  std::vector<Transfer> in;
  std::vector<Transfer> out;
  // Frees the buffers of a run for which there was not enough memory, so that smaller runs have it.
  void free_buffers() {
    in.clear();
    out.clear();
  }
  Status status;
  device::Pipeline::DeviceTimes times;
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

  std::size_t depth() const override { return state_->runs.size(); }

  Status submit(const std::vector<TensorView>& inputs, device::Landing* landing) override {
    if (generation_ != fork_generation()) return forked_child();
    OrtRun& staged = state_->runs[next_];
    staged.inputs = inputs;
    staged.staging.clear();
    staged.done = false;
    if (memory_ != nullptr) {
      Status status = stage_inputs(landing != nullptr, &staged);
      if (status.ok()) status = place_on_device(landing, &staged);
      if (!status.ok()) {
        staged.free_buffers();
        return status;
      }
    } else {
      if (landing == nullptr) AIS_TRY(copy_inputs(&staged));
      AIS_TRY(place_outputs(landing, &staged));
    }
    next_ = (next_ + 1) % depth();
    const std::lock_guard<std::mutex> guard(state_->lock);
    state_->queue.push_back(&staged);
    state_->changed.notify_all();
    return Status();
  }

  Status wait(std::vector<device::Output>* outputs, DeviceTimes* times) override {
    if (generation_ != fork_generation()) return forked_child();
    OrtRun& staged = state_->runs[oldest_];
    std::unique_lock<std::mutex> held(state_->lock);
    while (!state_->changed.wait_for(held, tuning::kStopLookEvery, [&] { return staged.done; })) {
      held.unlock();
      if (interrupted()) static_cast<void>(model_->cancel());
      held.lock();
    }
    held.unlock();
    oldest_ = (oldest_ + 1) % depth();
    *times = staged.times;
    *outputs = staged.outputs;  // the run keeps its memory until it is used again
    if (staged.status.code() == Code::kOutOfMemory) staged.free_buffers();
    return std::exchange(staged.status, Status());
  }

 private:
  struct State {
    explicit State(std::size_t depth) : runs(depth) {}
    std::vector<OrtRun> runs;
    std::vector<std::thread> threads;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<OrtRun*> queue;  // guarded by lock, as what follows and OrtRun::done
    bool ending = false;
  };

  Status copy_inputs(OrtRun* staged) {
    for (TensorView& input : staged->inputs) {
      if (input.absent()) continue;
      AIS_ASSIGN(device::Buffer copy, device_->allocate(input.bytes));
      AIS_TRY(device_->copy_on_device(copy.data.get(), input.data, input.bytes));
      input.data = copy.data.get();
      staged->staging.push_back(std::move(copy));
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
  Status stage_inputs(bool stay, OrtRun* staged) {
    staged->in.resize(staged->inputs.size());
    for (std::size_t i = 0; i < staged->inputs.size(); ++i) {
      TensorView& input = staged->inputs[i];
      OrtRun::Transfer& transfer = staged->in[i];
      if (input.absent()) continue;
      transfer.host = {input.data, Side::kHost};
      if (!stay || (memory_->has_staging() && !memory_->is_registered(input.data, input.bytes))) {
        AIS_TRY(fit_staging(input.bytes, &transfer.staging));
        if (input.bytes != 0) std::memcpy(transfer.staging.data.get(), input.data, input.bytes);
        transfer.host = {transfer.staging.data.get(), memory_->staging_side()};
      }
      AIS_TRY(fit_device(input.bytes, &transfer.on_device));
      input.data = transfer.on_device.data.get();
    }
    return Status();
  }

  // Allocates memory on the device for each output of known shape, and takes room on the host from the landing.
  Status place_on_device(device::Landing* landing, OrtRun* staged) {
    const std::vector<device::TensorDesc>& descs = model_->info().outputs;
    staged->outputs.assign(descs.size(), device::Output());
    staged->out.resize(descs.size());
    for (std::size_t i = 0; i < descs.size(); ++i) {
      staged->out[i].host = {nullptr, Side::kHost};
      std::size_t elements = 0;
      if (descs[i].open() || !count_elements(descs[i].shape, &elements)) continue;
      device::Output& output = staged->outputs[i];
      output.shape = descs[i].shape;
      output.capacity = packed_bytes(descs[i].dtype, elements);
      AIS_TRY(fit_device(output.capacity, &staged->out[i].on_device));
      output.data = staged->out[i].on_device.data.get();
      if (landing == nullptr) continue;
      void* const room = landing->room(i, output.shape, output.capacity);
      if (!memory_->has_staging() || memory_->is_registered(room, output.capacity)) staged->out[i].host.data = room;
    }
    return Status();
  }

  Status copy_in(OrtRun* staged) {
    for (std::size_t i = 0; i < staged->inputs.size(); ++i) {
      const TensorView& input = staged->inputs[i];
      if (input.absent()) continue;
      AIS_TRY(memory_->copy({input.data, Side::kDevice}, staged->in[i].host, input.bytes));
    }
    return Status();
  }

  // Moves the outputs to host memory. An output with another shape than declared may not fit its room, so it goes to staging.
  Status copy_out(OrtRun* staged) {
    for (std::size_t i = 0; i < staged->outputs.size(); ++i) {
      device::Output& output = staged->outputs[i];
      OrtRun::Transfer& transfer = staged->out[i];
      if (transfer.host.data == nullptr || output.data != transfer.on_device.data.get()) {
        AIS_TRY(fit_staging(output.bytes, &transfer.staging));
        transfer.host = {transfer.staging.data.get(), memory_->staging_side()};
      }
      AIS_TRY(memory_->copy(transfer.host, {output.data, Side::kDevice}, output.bytes));
      output.data = transfer.host.data;
      output.owner.reset();  // frees what the runtime allocated on the device
    }
    return Status();
  }

  Status run(OrtRun* staged) {
    staged->times = DeviceTimes();
    const std::int64_t began = monotonic_ns();
    if (memory_ != nullptr) AIS_TRY(copy_in(staged));
    const std::int64_t copied = monotonic_ns();
    AIS_TRY(model_->execute(staged->inputs, &staged->outputs));
    const std::int64_t executed = monotonic_ns();
    if (memory_ != nullptr) AIS_TRY(copy_out(staged));
    staged->times = {copied - began, executed - copied, monotonic_ns() - executed, ""};
    return Status();
  }

  // Outputs of known shape are written to the landing's memory. The runtime allocates the others.
  Status place_outputs(device::Landing* landing, OrtRun* staged) {
    const std::vector<device::TensorDesc>& descs = model_->info().outputs;
    staged->outputs.assign(descs.size(), device::Output());
    for (std::size_t i = 0; i < descs.size(); ++i) {
      std::size_t elements = 0;
      if (descs[i].open() || !count_elements(descs[i].shape, &elements)) continue;
      device::Output& output = staged->outputs[i];
      output.shape = descs[i].shape;
      output.capacity = packed_bytes(descs[i].dtype, elements);
      if (landing != nullptr) output.data = landing->room(i, output.shape, output.capacity);
      if (output.data != nullptr) continue;
      AIS_ASSIGN(device::Buffer buffer, device_->allocate(output.capacity));
      output.data = buffer.data.get();
      staged->staging.push_back(std::move(buffer));
    }
    return Status();
  }

  void serve() {
    State& state = *state_;
    std::unique_lock<std::mutex> held(state.lock);
    while (true) {
      state.changed.wait(held, [&] { return state.ending || !state.queue.empty(); });
      if (state.queue.empty()) return;
      OrtRun* const staged = state.queue.front();
      state.queue.pop_front();
      held.unlock();
      Status status = run(staged);
      if (!status.ok() && memory_ != nullptr) {
        status = std::move(status).with_context("device " + std::to_string(device_->id()) + " of " + device_->provider());
      }
      staged->status = std::move(status);
      held.lock();
      staged->done = true;
      state.changed.notify_all();
    }
  }

  const std::shared_ptr<device::Model> model_;
  const std::shared_ptr<device::Device> device_;
  const std::shared_ptr<DeviceMemory> memory_;  // null: the provider copies as a part of a run
  const std::uint64_t generation_;
  State* const state_;      // leaked in a forked child
  std::size_t next_ = 0;    // the run of the next submit
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
