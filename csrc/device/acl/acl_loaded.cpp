// Loads a model, and prepares runs.
#include "device/acl/acl_loaded.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "device/gears.hpp"

namespace ais::acl {

using device::GearKind;
using device::Output;

Result<std::shared_ptr<LoadedModel>> LoadedModel::load(AclContext* context, const device::ModelSource& source,
                                                       const LoadOptions& options, DeviceShare* share) {
  auto model = std::make_shared<LoadedModel>(context);
  Status status = model->load_id(source, options, share);
  if (status.ok()) status = model->learn_outputs();
  if (!status.ok()) {
    model->release();
    return std::move(status).with_context("cannot load the model '" + source.name() + "' on device " +
                                          std::to_string(context->device_id()));
  }
  return model;
}

Status LoadedModel::load_id(const device::ModelSource& source, const LoadOptions& options, DeviceShare* share) {
  AIS_ASSIGN(Loaded loaded, load_model(api_, source, options, share));
  id_ = loaded.id;
  weights_ = std::move(loaded.weights);
  workspace_ = std::move(loaded.workspace);
  loaded_ = true;
  desc_ = api_.aclmdlCreateDesc();
  if (desc_ == nullptr) return api_.failed("aclmdlCreateDesc", Code::kOutOfMemory);
  AIS_TRY(api_.check(api_.aclmdlGetDesc(desc_, id_), "aclmdlGetDesc", Code::kModelLoad));
  AIS_ASSIGN(layout_, describe(api_, desc_, id_));
  learned_.assign(layout_.info.outputs.size(), 0);
  guesses_ = learned_;
  aipp_.resize(layout_.aipp.size());
  AIS_ASSIGN(datasets_, make_datasets());
  return Status();
}

// AscendCL describes the outputs of the largest gear. For another gear it describes them only after the gear was selected. A
// dimension that differs between gears is dynamic.
Status LoadedModel::learn_outputs() {
  const std::size_t gears = layout_.info.gears.values.size();
  if (gears == 0) return Status();
  layout_.outputs.assign(gears, {});
  for (std::size_t gear = 0; gear < gears; ++gear) {
    AIS_TRY(choose_gear(datasets_.get(), static_cast<int>(gear)));
    for (std::size_t i = 0; i < layout_.info.outputs.size(); ++i) {
      aclmdlIODims dims = {};
      AIS_TRY(ACL_CALL(api_, aclmdlGetCurOutputDims, desc_, i, &dims));
      layout_.outputs[gear].push_back(shape_of(dims));
    }
  }
  for (std::size_t i = 0; i < layout_.info.outputs.size(); ++i) {
    Shape& common = layout_.info.outputs[i].shape;
    common = layout_.outputs[0][i];
    for (const auto& shapes : layout_.outputs) {
      if (shapes[i].size() != common.size())
        return Status(Code::kUnsupported, "output '" + layout_.info.outputs[i].name +
                                              "' must have the same rank in all gears, got shapes " +
                                              shape_text(layout_.outputs[0][i]) + " and " + shape_text(shapes[i]));
      for (std::size_t d = 0; d < common.size(); ++d) {
        if (shapes[i][d] != common[d]) common[d] = -1;
      }
    }
  }
  return Status();
}

Result<std::unique_ptr<DatasetPair>> LoadedModel::make_datasets() {
  auto datasets = std::make_unique<DatasetPair>(api_);
  AIS_TRY(datasets->in.create(layout_.inputs));
  AIS_TRY(datasets->out.create(layout_.info.outputs.size()));
  datasets->shapes.resize(layout_.data.size());
  datasets->aipp.resize(layout_.aipp.size());
  const auto add_special = [&](std::size_t index, std::size_t bytes) -> Status {
    AIS_ASSIGN(device::Buffer buffer, context_.allocate(bytes));
    AIS_TRY(datasets->in.point(index, buffer.data.get(), bytes));
    datasets->special.push_back(std::move(buffer));
    return Status();
  };
  if (layout_.has_gear_input) AIS_TRY(add_special(layout_.gear_index, layout_.gear_bytes));
  for (const AippInput& aipp : layout_.aipp) AIS_TRY(add_special(aipp.index, aipp.bytes));
  return datasets;
}

void LoadedModel::release() {
  leave_workspace();
  if (stream_ != nullptr) {
    // A pipeline that could not be ended may have left work on the stream, which must not be destroyed while it works.
    static_cast<void>(api_.aclrtSynchronizeStream(stream_) == 0 || api_.aclrtSynchronizeStream(stream_) == 0);
    ACL_RELEASE(api_, aclrtDestroyStream, stream_);
  }
  stream_ = nullptr;
  if (datasets_ != nullptr) {
    std::vector<Output> unclaimed(datasets_->out.size());
    static_cast<void>(claim(&unclaimed));
  }
  datasets_.reset();
  for (AippSettings& settings : aipp_) {
    if (settings.handle != nullptr) ACL_RELEASE(api_, aclmdlDestroyAIPP, settings.handle);
  }
  aipp_.clear();
  if (desc_ != nullptr) ACL_RELEASE(api_, aclmdlDestroyDesc, desc_);
  desc_ = nullptr;
  if (std::exchange(loaded_, false)) ACL_RELEASE(api_, aclmdlUnload, id_);
  weights_.clear();
  workspace_.reset();
  context_.trim();
}

bool LoadedModel::predictable() const {
  const auto& sizes = layout_.output_bytes;
  const auto known = [](const std::vector<Shape>& shapes) { return std::none_of(shapes.begin(), shapes.end(), is_dynamic); };
  return !layout_.open_shapes && std::find(sizes.begin(), sizes.end(), 0U) == sizes.end() &&
         std::all_of(layout_.outputs.begin(), layout_.outputs.end(), known);
}

Status LoadedModel::choose_gear(DatasetPair* datasets, int gear) {
  datasets->gear = gear_ = -1;  // unknown if the call fails
  const Shape& values = layout_.info.gears.values[gear];
  const std::size_t index = layout_.gear_index;
  switch (layout_.info.gears.kind) {
    case GearKind::kBatch:
      AIS_TRY(ACL_CALL(api_, aclmdlSetDynamicBatchSize, id_, datasets->in.get(), index, static_cast<std::uint64_t>(values[0])));
      break;
    case GearKind::kImageSize:
      AIS_TRY(ACL_CALL(api_, aclmdlSetDynamicHWSize, id_, datasets->in.get(), index, static_cast<std::uint64_t>(values[0]),
                       static_cast<std::uint64_t>(values[1])));
      break;
    case GearKind::kDims:
      AIS_TRY(ACL_CALL(api_, aclmdlSetInputDynamicDims, id_, datasets->in.get(), index, &layout_.gear_dims[gear]));
      break;
    case GearKind::kNone:
      break;
  }
  datasets->gear = gear_ = gear;
  return Status();
}

Status LoadedModel::apply_gear(const std::vector<TensorView>& inputs, DatasetPair* datasets) {
  const device::Gears& gears = layout_.info.gears;
  if (gears.kind == GearKind::kNone) return Status();
  std::vector<Shape> shapes;
  for (const TensorView& input : inputs) shapes.push_back(input.shape);
  AIS_ASSIGN(const Shape wanted, device::gear_of(gears.kind, layout_.info.inputs, shapes));
  const auto found = std::find(gears.values.begin(), gears.values.end(), wanted);
  if (found == gears.values.end()) return device::no_such_gear(gears, wanted);
  const int gear = static_cast<int>(found - gears.values.begin());
  return datasets->gear == gear && gear_ == gear ? Status() : choose_gear(datasets, gear);
}

Status LoadedModel::apply_shapes(const std::vector<TensorView>& inputs, DatasetPair* datasets) {
  if (!layout_.open_shapes) return Status();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    // A scalar's shape equals the initial shape of new datasets, so an empty shape is always set.
    if (datasets->shapes[i] == inputs[i].shape && !inputs[i].shape.empty()) continue;
    AIS_TRY(datasets->in.set_shape(layout_.data[i], inputs[i].shape));
    datasets->shapes[i] = inputs[i].shape;
  }
  return Status();
}

Status LoadedModel::apply_aipp(const std::vector<TensorView>& inputs, DatasetPair* datasets) {
  for (std::size_t i = 0; i < aipp_.size(); ++i) {
    const AippInput& aipp = layout_.aipp[i];
    const TensorView& picture = inputs[aipp.picture];
    const std::string& name = layout_.info.inputs[aipp.picture].name;
    if (aipp_[i].handle == nullptr) {
      return Status(Code::kInvalidArgument, "input '" + name +
                                                "' is preprocessed on the device (dynamic AIPP) and needs settings; first call "
                                                "load_aipp_config_file, or the aipp_set functions and set_dym_aipp_info_set");
    }
    const std::int64_t pictures = std::max<std::int64_t>(aipp.batch < 0 ? picture.shape[0] : aipp.batch, 1);
    AIS_TRY(check_pictures(name, aipp_[i].given, pictures, picture.bytes));
    if (datasets->aipp[i] == aipp_[i].version) continue;
    AIS_TRY(ACL_CALL(api_, aclmdlSetInputAIPP, id_, datasets->in.get(), aipp.index, aipp_[i].handle));
    datasets->aipp[i] = aipp_[i].version;
  }
  return Status();
}

Status LoadedModel::prepare(const std::vector<TensorView>& inputs, DatasetPair* datasets) {
  for (std::size_t i = 0; i < inputs.size(); ++i) AIS_TRY(datasets->in.point(layout_.data[i], inputs[i].data, inputs[i].bytes));
  AIS_TRY(apply_gear(inputs, datasets));
  AIS_TRY(apply_shapes(inputs, datasets));
  return apply_aipp(inputs, datasets);
}

Status LoadedModel::set_aipp(const device::Aipp& settings) {
  const std::lock_guard<std::mutex> guard(lock_);
  for (std::size_t i = 0; i < layout_.aipp.size(); ++i) {
    if (layout_.aipp[i].picture != settings.input) continue;
    AIS_ASSIGN(aclmdlAIPP * handle, make_aipp(api_, settings));
    if (aipp_[i].handle != nullptr) ACL_RELEASE(api_, aclmdlDestroyAIPP, aipp_[i].handle);
    aipp_[i].handle = handle;
    aipp_[i].given = settings;
    ++aipp_[i].version;
    return Status();
  }
  return Status(Code::kUnsupported, "input " + std::to_string(settings.input) + " of the model has no dynamic AIPP");
}

Status LoadedModel::cancelled_since(std::uint64_t cancels) const { return cancels == cancels_.load() ? Status() : stopped(); }

std::string LoadedModel::cancel() {
  cancels_.fetch_add(1);
  return context_.can_abort() ? "" : context_.why_no_abort();
}

Status LoadedModel::stopped() const {
  std::string text = "the run was asked to stop";
  if (!context_.can_abort()) text += "; " + context_.why_no_abort() + ", so it ended by itself";
  return Status(Code::kCancelled, text);
}

}  // namespace ais::acl
