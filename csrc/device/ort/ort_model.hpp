// A model loaded by ONNX Runtime, and the way it is run.
//
// Memory: inputs are wrapped as OrtValues that borrow the caller's memory, and so are outputs whose shape is known, so the
// runtime copies nothing. Other outputs are allocated by the runtime and handed out with an owner that releases them.
// On a device with memory of its own (ort_memory.hpp), both are bound there (IoBinding), and so are outputs of unknown shape,
// which the runtime allocates on the device in the same run.
// ONNX Runtime does not write a bound output that is an input of the graph, too: such outputs are never bound. Whether it wrote
// the others is looked at in the first run of a model, by a pattern in their memory; one that was not is not bound from then
// on. Threads: Run may be called concurrently on one session. What a run needs besides (its run options, the arrays of values)
// is a RunState; runs take one that is free, and cancel() reaches those in use. Lock order: only lock_, held for a few
// instructions, never during a run. A run in the thread whose signals are watched ends when one comes (base/interrupt.hpp); if
// no handler raised, it is made again in a thread of its own, while this one goes on asking.
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
  OrtIoBinding* binding = nullptr;  // on a device with memory of its own; empty between runs
  std::vector<const char*> names;   // of the inputs that the run is given
  std::vector<OrtValue*> inputs;
  std::vector<OrtValue*> outputs;  // before a run: the bound ones; after: all, until they are taken
  std::vector<OrtValue*> bound;    // per output, the value made over caller memory, or null
  // Guarded by OrtModel::lock_:
  bool taken = false;
  bool running = false;
  bool cancelled = false;    // by cancel()
  bool terminating = false;  // the options say so, whoever set them
};

class OrtModel final : public device::Model, public std::enable_shared_from_this<OrtModel> {
 public:
  static Result<std::shared_ptr<device::Model>> load(const Api& api, std::shared_ptr<device::Device> device,
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

  OrtModel(const Api& api, std::shared_ptr<device::Device> device, std::shared_ptr<DeviceMemory> memory, OrtSession* session,
           device::ModelInfo info, bool overlaps);

  // A state in use; gives it back, for which no memory is needed.
  class Loan {
   public:
    Loan(std::shared_ptr<OrtModel> model, RunState* state) : model_(std::move(model)), state_(state) {}
    Loan(Loan&& other) noexcept : model_(std::move(other.model_)), state_(std::exchange(other.state_, nullptr)) {}
    Loan& operator=(Loan&&) = delete;
    ~Loan() {
      if (state_ != nullptr && !model_->inherited()) model_->give_back(state_);
    }
    RunState* operator->() const { return state_; }
    RunState* get() const { return state_; }
    OrtModel& model() const { return *model_; }

   private:
    std::shared_ptr<OrtModel> model_;
    RunState* state_;
  };
  Result<Loan> take_state();
  void give_back(RunState* state);

  // Fill a state: values over the caller's memory. Each replaces what the state held.
  Status wrap_inputs(const std::vector<TensorView>& inputs, RunState* state);
  Status wrap_outputs(const std::vector<device::Output>& outputs, RunState* state);
  void release_values(std::vector<OrtValue*>* values);
  void release_results(RunState* state);

  // Runs over a filled state and describes the results. The bound values stay in the state.
  Status run(RunState* state, std::vector<device::Output>* outputs);
  Status run_once(RunState* state);
  OrtStatus* call(RunState* state);
  OrtStatus* call_bound(RunState* state);
  OrtStatus* take_bound(RunState* state);
  OrtStatus* call_beside(RunState* state);
  void terminate(RunState* state);
  // The check of the first run: fills the memory bound, and finds what was not written.
  Status fill_bound(const RunState& state, const std::vector<device::Output>& outputs) const;
  Result<bool> find_unwritten(const RunState& state, const std::vector<device::Output>& outputs);
  Status collect(RunState* state, std::vector<device::Output>* outputs);
  // An output that the model hands through is the input's own memory, the caller's: gives it memory of its own.
  Status separate(const RunState& state, device::Output* output);
  bool inherited() const;
  Result<OrtValue*> borrow(void* data, std::size_t bytes, DType dtype, const Shape& shape) const;

  const Api& api_;
  const std::shared_ptr<device::Device> device_;
  const std::shared_ptr<DeviceMemory> memory_;  // null: inputs and outputs are host memory
  OrtSession* const session_;
  const device::ModelInfo info_;
  const std::uint64_t generation_;
  const bool overlaps_;  // several runs at once are quicker: the device has memory of its own
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
  std::atomic<bool> shapes_vary_{false};    // outputs have other shapes than declared: none is bound
  std::atomic<bool> seen_written_{false};   // a run has shown that what is bound is written
  std::vector<std::atomic<bool>> unbound_;  // one an output: ONNX Runtime does not write its memory

  std::mutex lock_;
  std::vector<std::unique_ptr<RunState>> states_;  // guarded by lock_; all there are
};

}  // namespace ais::ort
