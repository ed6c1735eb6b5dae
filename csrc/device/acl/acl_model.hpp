// Implements csrc/device/device.hpp: enters the context, and keeps it alive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_loaded.hpp"
#include "device/device.hpp"

namespace ais::acl {

class AclModel final : public device::Model, public std::enable_shared_from_this<AclModel> {
 public:
  static Result<std::shared_ptr<device::Model>> load(std::shared_ptr<AclContext> context, const device::ModelSource& source,
                                                     const LoadOptions& options, DeviceShare* share);
  AclModel(std::shared_ptr<AclContext> context, std::shared_ptr<LoadedModel> loaded)
      : context_(std::move(context)), loaded_(std::move(loaded)), info_(loaded_->layout().info) {}
  ~AclModel() override { context_->remove(loaded_); }
  AclModel(const AclModel&) = delete;
  AclModel& operator=(const AclModel&) = delete;

  const device::ModelInfo& info() const override { return info_; }
  Status execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) override;
  Result<std::unique_ptr<device::Binding>> bind(const std::vector<TensorView>& inputs,
                                                std::vector<device::Output> outputs) override;
  Result<std::unique_ptr<device::Pipeline>> pipeline(std::size_t depth) override;
  Status expect_outputs(const std::vector<std::size_t>& bytes) override;
  Status set_aipp(const device::Aipp& settings) override;
  std::string cancel() override { return loaded_->cancel(); }

 private:
  const std::shared_ptr<AclContext> context_;
  const std::shared_ptr<LoadedModel> loaded_;
  const device::ModelInfo info_;
};

// Call it during a use of the context.
Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<AclContext> context,
                                                        std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<LoadedModel> loaded, std::size_t depth);

}  // namespace ais::acl
