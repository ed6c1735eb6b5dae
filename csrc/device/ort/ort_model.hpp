// A model loaded by ONNX Runtime, and its runs.
//
// Memory: inputs, and outputs of known shape, are OrtValues over the caller's memory, so the runtime copies nothing. The
// runtime allocates other outputs; they are returned with an owner that releases them. On a device with its own memory
// (ort_memory.hpp), inputs and outputs are bound there (IoBinding). The runtime allocates outputs of unknown shape on the
// device, in the same run.
//
// Unwritten outputs: ONNX Runtime does not write a bound output that is also an input of the graph, so such outputs are never
// bound. The first run of a model checks whether the other outputs were written, with a pattern in their memory. An output that
// was not written is never bound again.
//
// Threads: runs may be concurrent. The other state of a run (its options, the arrays of values) is a RunState; a run takes a
// free one, and cancel() reaches those in use. There is only lock_, which is held for a few instructions and never during a
// run.
//
// Signals: in the thread whose signals are watched, a signal ends the run (base/interrupt.hpp). If no handler raises an
// exception, the run is repeated in another thread, while this thread checks for signals.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"
#include "device/ort/ort_memory.hpp"

namespace ais::ort {

struct RunState {
  OrtRunOptions* options = nullptr;
  OrtIoBinding* binding = nullptr;  // on a device with its own memory; empty between runs
  std::vector<const char*> names;   // of the given inputs
  std::vector<OrtValue*> inputs;
  std::vector<OrtValue*> outputs;  // before a run: the bound ones; after it: all, until they are handed out
  std::vector<OrtValue*> bound;    // for each output, the value over the caller's memory, or null
  // Guarded by OrtModel::lock_:
  bool taken = false;
  bool running = false;
  bool cancelled = false;    // by cancel()
  bool terminating = false;  // the flag of the options is set
};

class OrtModel final : public device::Model, public std::enable_shared_from_this<OrtModel> {
 public:
  static Result<std::shared_ptr<device::Model>> load(const OrtApi& api, std::shared_ptr<device::Device> device,
                                                     std::shared_ptr<DeviceMemory> memory, const device::ModelSource& source,
                                                     const device::Options& options);
  ~OrtModel() override;
  OrtModel(const OrtModel&) = delete;
  OrtModel& operator=(const OrtModel&) = delete;

  const device::ModelInfo& info() const override { return info_; }
  Status execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) override;
  Result<std::unique_ptr<device::Binding>> bind(const std::vector<TensorView>& inputs,
                                                std::vector<device::Output> outputs) override;
  Result<std::unique_ptr<device::Pipeline>> pipeline(std::size_t depth) override;
  std::string cancel() override;

 private:
  friend class OrtBinding;

  OrtModel(const OrtApi& api, std::shared_ptr<device::Device> device, std::shared_ptr<DeviceMemory> memory, OrtSession* session,
           device::ModelInfo info, bool overlaps);

  // A state in use. Its destructor gives the state back without allocating memory.
  class StateInUse {
   public:
    StateInUse(std::shared_ptr<OrtModel> model, RunState* state) : model_(std::move(model)), state_(state) {}
    StateInUse(StateInUse&& other) noexcept : model_(std::move(other.model_)), state_(std::exchange(other.state_, nullptr)) {}
    StateInUse& operator=(StateInUse&&) = delete;
    ~StateInUse() {
      if (state_ != nullptr && !model_->inherited()) model_->give_back(state_);
    }
    RunState* operator->() const { return state_; }
    RunState* get() const { return state_; }
    OrtModel& model() const { return *model_; }

   private:
    std::shared_ptr<OrtModel> model_;
    RunState* state_;
  };
  Result<StateInUse> take_state();
  void give_back(RunState* state);

  // Make values over the caller's memory. They replace the former values of the state.
  Status wrap_inputs(const std::vector<TensorView>& inputs, RunState* state);
  Status wrap_outputs(const std::vector<device::Output>& outputs, RunState* state);
  void release_values(std::vector<OrtValue*>* values);
  void release_results(RunState* state);

  // Runs, and describes the results. The bound values stay in the state.
  Status run(RunState* state, std::vector<device::Output>* outputs);
  Status run_once(RunState* state);
  OrtStatus* call(RunState* state);
  OrtStatus* call_bound(RunState* state);
  OrtStatus* take_bound(RunState* state);
  OrtStatus* call_beside(RunState* state);
  void terminate(RunState* state);
  // For the check of the first run: fill the bound memory, and find outputs that were not written.
  Status fill_bound(const RunState& state, const std::vector<device::Output>& outputs) const;
  Result<bool> find_unwritten(const RunState& state, const std::vector<device::Output>& outputs);
  Status collect(RunState* state, std::vector<device::Output>* outputs);
  // If the output is the caller's memory of an input, copies it to its own memory.
  Status separate(const RunState& state, device::Output* output);
  bool inherited() const;
  Result<OrtValue*> borrow(void* data, std::size_t bytes, DType dtype, const Shape& shape) const;

  const OrtApi& api_;
  const std::shared_ptr<device::Device> device_;
  const std::shared_ptr<DeviceMemory> memory_;  // null: inputs and outputs are host memory
  OrtSession* const session_;
  const device::ModelInfo info_;
  const std::uint64_t generation_;
  const bool overlaps_;  // the device has its own memory, so several runs at once are faster
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
  std::atomic<bool> shapes_vary_{false};    // outputs have other shapes than declared, so none is bound
  std::atomic<bool> seen_written_{false};   // a run has shown that bound outputs are written
  std::vector<std::atomic<bool>> unbound_;  // for each output: ONNX Runtime does not write its memory

  std::mutex lock_;
  std::vector<std::unique_ptr<RunState>> states_;  // guarded by lock_; all states
};

}  // namespace ais::ort
