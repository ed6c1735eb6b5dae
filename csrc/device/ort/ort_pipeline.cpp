// Lanes in a ring, and the threads that run them.
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

// One run: what it is over, and how it went. Between submit and wait it belongs to the thread that runs it.
struct Lane {
  std::vector<TensorView> inputs;
  std::vector<device::Output> outputs;
  std::vector<device::Buffer> staging;  // copies of the inputs, and memory of outputs that nobody else has a place for
  Status status;
  std::int64_t took_ns = 0;
  bool done = false;
};

class OrtPipeline final : public device::Pipeline {
 public:
  OrtPipeline(std::shared_ptr<device::Model> model, std::shared_ptr<device::Device> device, std::size_t depth)
      : model_(std::move(model)), device_(std::move(device)), generation_(fork_generation()), state_(new State(depth)) {}

  // False: no thread can be had.
  bool start(std::size_t depth) {
    try {
      for (std::size_t i = 0; i < depth; ++i) state_->threads.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      return !state_->threads.empty();
    }
    return true;
  }

  ~OrtPipeline() override {
    if (generation_ != fork_generation()) return;  // the threads are the parent's, and so is what they work on
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
    if (generation_ != fork_generation()) return Status(Code::kForkedChild, "this session belongs to the parent process");
    Lane& lane = state_->lanes[next_];
    lane.inputs = inputs;
    lane.staging.clear();
    lane.done = false;
    if (landing == nullptr) AIS_TRY(copy_inputs(&lane));
    AIS_TRY(place_outputs(landing, &lane));
    next_ = (next_ + 1) % depth();
    const std::lock_guard<std::mutex> guard(state_->lock);
    state_->queue.push_back(&lane);
    state_->changed.notify_all();
    return Status();
  }

  Status wait(std::vector<device::Output>* outputs, Times* times) override {
    if (generation_ != fork_generation()) return Status(Code::kForkedChild, "this session belongs to the parent process");
    Lane& lane = state_->lanes[oldest_];
    std::unique_lock<std::mutex> held(state_->lock);
    while (!state_->changed.wait_for(held, tuning::kStopLookEvery, [&] { return lane.done; })) {
      held.unlock();
      if (interrupted()) static_cast<void>(model_->cancel());
      held.lock();
    }
    held.unlock();
    oldest_ = (oldest_ + 1) % depth();
    *times = Times();
    times->execute_ns = lane.took_ns;
    *outputs = lane.outputs;  // the lane keeps its memory until it is used again
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

  // What has a known shape goes to the landing's memory; the rest comes from the runtime.
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
      const std::int64_t began = monotonic_ns();
      lane->status = model_->execute(lane->inputs, &lane->outputs);
      lane->took_ns = monotonic_ns() - began;
      held.lock();
      lane->done = true;
      state.changed.notify_all();
    }
  }

  const std::shared_ptr<device::Model> model_;
  const std::shared_ptr<device::Device> device_;
  const std::uint64_t generation_;
  State* const state_;      // leaked in a forked child
  std::size_t next_ = 0;    // the lane of the next submit
  std::size_t oldest_ = 0;  // and of the next wait
};

}  // namespace

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<device::Device> device, std::size_t depth) {
  auto pipeline = std::make_unique<OrtPipeline>(std::move(model), std::move(device), depth);
  if (!pipeline->start(depth)) return std::unique_ptr<device::Pipeline>();
  return std::unique_ptr<device::Pipeline>(std::move(pipeline));
}

}  // namespace ais::ort
