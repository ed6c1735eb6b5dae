// Runs under way on three streams, so that the link to the device, the device, and the link back work at the same time.
//
//   in:       copy 0 | copy 1 | copy 2 | ...
//   execute:           run 0  | run 1  | ...      waits for `copied_in` of its run
//   out:                        copy 0 | ...      waits for `executed` of its run
//
// A run has a staged_run: datasets, device memory, pinned host memory, events. Feeds are copied into pinned memory by the host,
// because only from there can the device copy by itself; results are read where the device put them. Memory that is registered
// and stays until the end of the run is as good, and nothing is copied by the host. StagedRuns are used in turn. A run that
// fails makes its streams drop what came after it; the runs that follow are then started again, so each fails by itself.
//
// Outputs whose shapes only the run can tell: it brings memory of the size that earlier runs had, with headroom, or that the
// caller guessed. Their copies out start when the run is seen to have ended, since only then their sizes are known. A run for
// which there is neither, and one whose memory was too small, is made in turn, because AscendCL allocates for synchronous runs
// only.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_loaded.hpp"
#include "device/acl/acl_pace.hpp"
#include "device/device.hpp"

namespace ais::acl {

// Pinned or device memory for one tensor. Grows, and is kept.
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
  std::vector<void*> targets;           // of the results, on the host; null until their copies start
  device::Landing* landing = nullptr;
  aclrtEvent begun = nullptr;  // copying in
  aclrtEvent copied_in = nullptr;
  aclrtEvent starting = nullptr;  // executing
  aclrtEvent executed = nullptr;
  aclrtEvent leaving = nullptr;  // copying out
  aclrtEvent copied_out = nullptr;
  std::array<aclrtEvent*, 6> events() { return {&begun, &copied_in, &starting, &executed, &leaving, &copied_out}; }
  bool executing = false;  // counts as in flight in the model
  bool guessed = false;    // its outputs may have too little memory
  bool in_turn = false;    // it ran when it was started
  bool leaving_started = false;
  std::uint64_t cancels = 0;
  Status failure;  // it could not be started again, or failed in turn
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
  Status wait(std::vector<device::Output>* outputs, device::Pipeline::Times* times);

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
  device::Pipeline::Times times_of(const StagedRun& staged_run) const;
  Result<std::int64_t> elapsed(aclrtEvent from, aclrtEvent to) const;

  AclContext& context_;
  const Api& api_;
  const std::shared_ptr<LoadedModel> model_;
  const bool predictable_;  // copies out are started with the run
  aclrtStream in_ = nullptr;
  aclrtStream execute_ = nullptr;  // the model's
  aclrtStream out_ = nullptr;
  std::vector<StagedRun> staged_runs_;
  std::uint64_t submitted_ = 0;
  std::uint64_t waited_ = 0;
  Pace pace_;
};

}  // namespace ais::acl
