// Runs under way on three streams, so that the link to the device, the device, and the link back work at the same time.
//
//   in:       copy 0 | copy 1 | copy 2 | ...
//   execute:           run 0  | run 1  | ...      waits for `copied_in` of its run
//   out:                        copy 0 | ...      waits for `executed` of its run
//
// A run has a lane: datasets, device memory, pinned host memory, events. Feeds are copied into pinned memory by the host,
// because only from there can the device copy by itself; results are read where the device put them. Memory that is registered
// and stays until the end of the run is as good, and nothing is copied by the host. Lanes are used in turn. A run that fails
// makes its streams drop what came after it; the runs that follow are then started again, so each fails by itself.
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

struct Lane {
  std::unique_ptr<Slot> slot;
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

class Lanes final : public Resident {
 public:
  Lanes(AclContext* context, std::shared_ptr<LoadedModel> model)
      : context_(*context), api_(context->api()), model_(std::move(model)), predictable_(model_->predictable()) {}
  ~Lanes() override = default;

  Status create(std::size_t depth);
  void release() override;
  std::size_t depth() const { return lanes_.size(); }
  Status submit(const std::vector<TensorView>& inputs, device::Landing* landing);
  Status wait(std::vector<device::Output>* outputs, device::Pipeline::Times* times);

 private:
  Lane& lane(std::uint64_t run) { return lanes_[run % lanes_.size()]; }
  Status fit_device(std::size_t bytes, device::Buffer* buffer);
  Status fit_host(std::size_t bytes, device::Buffer* buffer);
  Status take_inputs(const std::vector<TensorView>& inputs, Lane* lane);
  Result<void*> target_of(const Lane& lane, std::size_t output, device::Buffer* staged);
  Status start(Lane* lane);
  Status start_copy_in(Lane* lane);
  Status start_execute(Lane* lane);
  Result<bool> place_outputs(Lane* lane);
  Status start_copy_out(Lane* lane);
  void run_in_turn(Lane* lane);
  Status finish(Lane* lane);
  Status wait_for(Lane* lane);
  Status await(aclrtEvent event, const Lane& lane);
  void abort();
  void drop_unwanted();
  Status start_leaving(Lane* lane);
  void start_leaving_early();
  bool has_ended_well(const Lane& lane) const;
  Status drain();
  void start_again();
  device::Pipeline::Times times_of(const Lane& lane) const;
  Result<std::int64_t> elapsed(aclrtEvent from, aclrtEvent to) const;

  AclContext& context_;
  const Api& api_;
  const std::shared_ptr<LoadedModel> model_;
  const bool predictable_;  // copies out are started with the run
  aclrtStream in_ = nullptr;
  aclrtStream execute_ = nullptr;  // the model's
  aclrtStream out_ = nullptr;
  std::vector<Lane> lanes_;
  std::uint64_t submitted_ = 0;
  std::uint64_t waited_ = 0;
  Pace pace_;
};

}  // namespace ais::acl
