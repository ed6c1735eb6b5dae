// A model loaded by ONNX Runtime, and the way it is run.
//
// Memory: inputs are wrapped as OrtValues that borrow the caller's memory, and so are outputs whose shape is known, so the
// runtime copies nothing. Other outputs are allocated by the runtime and handed out with an owner that releases them.
// Threads: Run may be called concurrently on one session. What a run needs besides (its run options, the arrays of values) is
// a RunState; runs take one from a free list, and cancel() reaches those in use. Lock order: only lock_, held for a few
// instructions, never during a run.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/device.hpp"
#include "device/ort/ort_api.hpp"

namespace ais::ort {

struct RunState {
  OrtRunOptions* options = nullptr;
  std::vector<OrtValue*> inputs;
  std::vector<OrtValue*> outputs;  // before a run: the bound ones; after: all
  std::vector<OrtValue*> bound;    // per output, the value made over caller memory, or null
  bool cancelled = false;          // guarded by OrtModel::lock_
};

class OrtModel final : public device::Model, public std::enable_shared_from_this<OrtModel> {
 public:
  static Result<std::shared_ptr<device::Model>> load(const Api& api, std::shared_ptr<device::Device> device,
                                                     const device::ModelSource& source, const device::Options& options);
  ~OrtModel() override;
  OrtModel(const OrtModel&) = delete;
  OrtModel& operator=(const OrtModel&) = delete;

  const device::ModelInfo& info() const override { return info_; }
  Status execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) override;
  Result<std::unique_ptr<device::Binding>> bind(const std::vector<TensorView>& inputs,
                                                std::vector<device::Output> outputs) override;
  std::string cancel() override;

 private:
  friend class OrtBinding;

  OrtModel(const Api& api, std::shared_ptr<device::Device> device, OrtSession* session, device::ModelInfo info);

  Result<std::unique_ptr<RunState>> take_state();
  void give_back(std::unique_ptr<RunState> state);

  // Fill a state: values over the caller's memory. Each replaces what the state held.
  Status wrap_inputs(const std::vector<TensorView>& inputs, RunState* state);
  Status wrap_outputs(const std::vector<device::Output>& outputs, RunState* state);
  void release_values(std::vector<OrtValue*>* values);

  // Runs over a filled state and describes the results. The bound values stay in the state.
  Status run(RunState* state, std::vector<device::Output>* outputs);
  Status run_once(RunState* state);
  Status collect(RunState* state, std::vector<device::Output>* outputs);
  // An output that the model hands through is the input's own memory, the caller's: gives it memory of its own.
  Status separate(const RunState& state, device::Output* output);
  bool inherited() const;
  Result<OrtValue*> borrow(void* data, std::size_t bytes, DType dtype, const Shape& shape) const;

  const Api& api_;
  const std::shared_ptr<device::Device> device_;
  OrtSession* const session_;
  const device::ModelInfo info_;
  const std::uint64_t generation_;
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
  std::atomic<bool> shapes_vary_{false};  // outputs have other shapes than declared: none is bound

  std::mutex lock_;
  std::vector<std::unique_ptr<RunState>> free_;  // guarded by lock_
  std::vector<RunState*> running_;               // guarded by lock_
};

}  // namespace ais::ort
