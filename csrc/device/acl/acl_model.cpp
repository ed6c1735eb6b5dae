// Enters the context, and calls the loaded model.
#include "device/acl/acl_model.hpp"

#include <utility>

#include "base/interrupt.hpp"

namespace ais::acl {
namespace {

// Fixed inputs and outputs. The model's datasets are pointed at them, which costs nothing if they already point there.
class AclBinding final : public device::Binding {
 public:
  AclBinding(std::shared_ptr<AclModel> model, std::vector<TensorView> inputs, std::vector<device::Output> bound)
      : model_(std::move(model)), inputs_(std::move(inputs)), bound_(std::move(bound)) {}

  Status run() override {
    outputs_ = bound_;
    return model_->execute(inputs_, &outputs_);
  }
  const std::vector<device::Output>& outputs() const override { return outputs_; }

 private:
  const std::shared_ptr<AclModel> model_;
  const std::vector<TensorView> inputs_;
  const std::vector<device::Output> bound_;
  std::vector<device::Output> outputs_;
};

}  // namespace

Result<std::shared_ptr<device::Model>> AclModel::load(std::shared_ptr<AclContext> context, const device::ModelSource& source,
                                                      const LoadOptions& options, DeviceShare* share) {
  AIS_ASSIGN(const AclContext::Entry inside, context->enter());
  Result<std::shared_ptr<LoadedModel>> result = LoadedModel::load(context.get(), source, options, share);
  if (!result.ok()) return context->with_memory(result.take_status());
  std::shared_ptr<LoadedModel> loaded = result.take();
  context->add(loaded);
  return std::shared_ptr<device::Model>(std::make_shared<AclModel>(std::move(context), std::move(loaded)));
}

Status AclModel::execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) {
  AIS_TRY(check_not_in_handler());
  AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
  return context_->with_memory(loaded_->run(inputs, outputs));
}

Result<std::unique_ptr<device::Binding>> AclModel::bind(const std::vector<TensorView>& inputs,
                                                        std::vector<device::Output> outputs) {
  AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
  return std::unique_ptr<device::Binding>(std::make_unique<AclBinding>(shared_from_this(), inputs, std::move(outputs)));
}

Result<std::unique_ptr<device::Pipeline>> AclModel::pipeline(std::size_t depth) {
  if (depth < 2) return std::unique_ptr<device::Pipeline>();
  AIS_TRY(check_not_in_handler());
  AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
  return make_pipeline(context_, shared_from_this(), loaded_, depth);
}

Status AclModel::expect_outputs(const std::vector<std::size_t>& bytes) {
  AIS_TRY(check_not_in_handler());
  AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
  loaded_->expect_outputs(bytes);
  return Status();
}

Status AclModel::set_aipp(const device::Aipp& settings) {
  AIS_TRY(check_not_in_handler());
  AIS_ASSIGN(const AclContext::Entry inside, context_->enter());
  return loaded_->set_aipp(settings);
}

}  // namespace ais::acl
