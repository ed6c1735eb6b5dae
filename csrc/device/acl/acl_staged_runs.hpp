// Runs on three streams, so that the link to the device, the device, and the link back work at the same time.
//
//   in:       copy 0 | copy 1 | copy 2 | ...
//   execute:           run 0  | run 1  | ...      waits for `copied_in` of its run
//   out:                        copy 0 | ...      waits for `executed` of its run
//
// Each run has a StagedRun: datasets, device memory, pinned host memory, events. The host copies feeds into pinned memory,
// because the device can copy only from there; results are read where the device wrote them. If memory is registered and stays
// valid until the end of the run, the host copies nothing. StagedRuns are used in turn. If a run fails, its streams drop the
// later work; these runs are started again, so each run fails only by itself.
//
// If output shapes are known only after a run, it gets memory of the size of earlier runs, with headroom, or of the caller's
// guess. Copies out start when the run has ended, because only then the sizes are known. If there is no size, or the memory was
// too small, the run is made synchronously, because AscendCL allocates only for synchronous runs.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_loaded.hpp"
#include "device/acl/acl_pace.hpp"
#include "device/device.hpp"

namespace ais::acl {

// Pinned or device memory for one tensor. It can grow, and is kept.
struct Staging {
  device::Buffer host;
  device::Buffer device;
};

struct StagedRun {
  std::unique_ptr<DatasetPair> datasets;
  std::vector<Staging> inputs;
  std::vector<Staging> outputs;
  std::vector<const void*> sources;     // of the inputs, on the host
  std::vector<TensorView> views;        // of the inputs, on the device
  std::vector<device::Output> results;  // on the device
  std::vector<void*> targets;           // for the results, on the host; null until their copies start
  device::Landing* landing = nullptr;
  aclrtEvent begun = nullptr;  // copying in
  aclrtEvent copied_in = nullptr;
  aclrtEvent starting = nullptr;  // executing
  aclrtEvent executed = nullptr;
  aclrtEvent leaving = nullptr;  // copying out
  aclrtEvent copied_out = nullptr;
  std::array<aclrtEvent*, 6> events() { return {&begun, &copied_in, &starting, &executed, &leaving, &copied_out}; }
  bool executing = false;  // counted as in flight by the model
  bool guessed = false;    // the memory of its outputs may be too small
  bool in_turn = false;    // it ran synchronously
  bool leaving_started = false;
  std::uint64_t cancels = 0;
  Status failure;  // it could not be started again, or failed synchronously
};

class StagedRuns final : public Resident {
 public:
  StagedRuns(AclContext* context, std::shared_ptr<LoadedModel> model)
      : context_(*context), api_(context->api()), model_(std::move(model)), predictable_(model_->predictable()) {}
  ~StagedRuns() override = default;

  Status create(std::size_t depth);
  void release() override;
  std::size_t depth() const { return staged_runs_.size(); }
  Status submit(const std::vector<TensorView>& inputs, device::Landing* landing);
  Status wait(std::vector<device::Output>* outputs, device::Pipeline::DeviceTimes* times);

 private:
  StagedRun& staged_run(std::uint64_t run) { return staged_runs_[run % staged_runs_.size()]; }
  Status fit_device(std::size_t bytes, device::Buffer* buffer);
  Status fit_host(std::size_t bytes, device::Buffer* buffer);
  Status take_inputs(const std::vector<TensorView>& inputs, StagedRun* staged_run);
  Result<void*> target_of(const StagedRun& staged_run, std::size_t output, device::Buffer* host);
  Status start(StagedRun* staged_run);
  Status start_copy_in(StagedRun* staged_run);
  Status start_execute(StagedRun* staged_run);
  Result<bool> place_outputs(StagedRun* staged_run);
  Status start_copy_out(StagedRun* staged_run);
  void run_in_turn(StagedRun* staged_run);
  Status finish(StagedRun* staged_run);
  Status wait_for(StagedRun* staged_run);
  Status await(aclrtEvent event, const StagedRun& staged_run);
  void abort();
  void drop_unwanted();
  Status start_leaving(StagedRun* staged_run);
  void start_leaving_early();
  bool has_ended_well(const StagedRun& staged_run) const;
  Status drain();
  void start_again();
  device::Pipeline::DeviceTimes times_of(const StagedRun& staged_run) const;
  Result<std::int64_t> elapsed(aclrtEvent from, aclrtEvent to) const;

  AclContext& context_;
  const AclApi& api_;
  const std::shared_ptr<LoadedModel> model_;
  const bool predictable_;  // copies out start with the run
  aclrtStream in_ = nullptr;
  aclrtStream execute_ = nullptr;  // the model's
  aclrtStream out_ = nullptr;
  std::vector<StagedRun> staged_runs_;
  std::uint64_t submitted_ = 0;
  std::uint64_t waited_ = 0;
  Pace pace_;
};

}  // namespace ais::acl
