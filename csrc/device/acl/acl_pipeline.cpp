// Implements the pipeline of csrc/device/device.hpp with StagedRuns: enters the context, and keeps it and the model alive.
#include <utility>

#include "base/interrupt.hpp"
#include "device/acl/acl_model.hpp"
#include "device/acl/acl_staged_runs.hpp"

namespace ais::acl {
namespace {

class AclPipeline final : public device::Pipeline {
 public:
  AclPipeline(std::shared_ptr<AclContext> context, std::shared_ptr<device::Model> model,
              std::shared_ptr<StagedRuns> staged_runs)
      : context_(std::move(context)),
        model_(std::move(model)),
        staged_runs_(std::move(staged_runs)),
        depth_(staged_runs_->depth()) {}
  ~AclPipeline() override { context_->remove(staged_runs_); }
  AclPipeline(const AclPipeline&) = delete;
  AclPipeline& operator=(const AclPipeline&) = delete;

  std::size_t depth() const override { return depth_; }
  Status submit(const std::vector<TensorView>& inputs, device::Landing* landing) override {
    AIS_TRY(check_not_in_handler());
    AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
    return staged_runs_->submit(inputs, landing);
  }
  Status wait(std::vector<device::Output>* outputs, DeviceTimes* times) override {
    AIS_TRY(check_not_in_handler());
    AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
    return staged_runs_->wait(outputs, times);
  }

 private:
  const std::shared_ptr<AclContext> context_;
  const std::shared_ptr<device::Model> model_;  // unloaded after the pipeline
  const std::shared_ptr<StagedRuns> staged_runs_;
  const std::size_t depth_;
};

}  // namespace

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<AclContext> context,
                                                        std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<LoadedModel> loaded, std::size_t depth) {
  auto staged_runs = std::make_shared<StagedRuns>(context.get(), std::move(loaded));
  if (Status status = staged_runs->create(depth); !status.ok()) {
    staged_runs->release();
    return status;
  }
  context->add(staged_runs);
  return std::unique_ptr<device::Pipeline>(
      std::make_unique<AclPipeline>(std::move(context), std::move(model), std::move(staged_runs)));
}

}  // namespace ais::acl
