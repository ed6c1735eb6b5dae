// Reads AscendCL's description: tensors, special inputs, gears.
#include "device/acl/acl_describe.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "base/tuning.hpp"
#include "device/gears.hpp"

namespace ais::acl {
namespace {

using device::GearKind;
using device::TensorDesc;

Status set_dtype(int number, const std::string& side, TensorDesc* desc) {
  desc->dtype = static_cast<DType>(number);
  if (dtype_bits(desc->dtype) != 0) return Status();
  return Status(Code::kUnsupported, side + " '" + desc->name +
                                        "' of the model must be numbers or booleans, it has AscendCL's type " +
                                        std::to_string(number) + "; convert it inside of the model");
}

void set_dims(const aclmdlIODims& dims, TensorDesc* desc) {
  desc->shape = shape_of(dims);
  desc->ranked = std::find(desc->shape.begin(), desc->shape.end(), -2) == desc->shape.end();
  if (!desc->ranked) desc->shape.clear();
}

// For a query without an answer AscendCL returns an empty value, not an error.
Status check_answers(const TensorDesc& desc, const std::string& side, std::size_t index) {
  std::size_t elements = 0;
  const bool empty = count_elements(desc.shape, &elements) && elements == 0;
  if (!desc.name.empty() && (desc.open() || desc.bytes != 0 || empty || side == "output")) return Status();
  return Status(Code::kModelLoad, "AscendCL reports no " + std::string(desc.name.empty() ? "name" : "size") + " of " + side +
                                      " " + std::to_string(index) + " of the model");
}

// If the dims do not give the size (a picture format with fewer bytes than its channels), the size is used.
void trust_bytes(TensorDesc* desc) {
  std::size_t elements = 0;
  if (desc->open() || !count_elements(desc->shape, &elements)) return;
  if (packed_bytes(desc->dtype, elements) != desc->bytes) desc->shape = {-1};
}

// Reads the range of an open dimension. Models with gears have none. If the library does not report it, the model still loads.
void read_range(const AclApi& api, aclmdlDesc* model, std::size_t index, TensorDesc* desc) {
  if (api.aclmdlGetInputDimsRange == nullptr || !desc->ranked || !is_dynamic(desc->shape)) return;
  const auto range = std::make_unique<aclmdlIODimsRange>();
  if (api.aclmdlGetInputDimsRange(model, index, range.get()) != 0) {
    static_cast<void>(api.aclGetRecentErrMsg());
    return;
  }
  if (range->rangeCount != desc->shape.size()) return;
  for (std::size_t i = 0; i < range->rangeCount; ++i) {
    desc->least.push_back(range->range[i][0]);
    desc->most.push_back(range->range[i][1]);
  }
}

Status read_input(const AclApi& api, aclmdlDesc* model, std::size_t index, TensorDesc* desc) {
  aclmdlIODims dims = {};
  // V2 has the dims of the fed bytes, which differ if the model preprocesses pictures.
  AIS_TRY(api.check(api.aclmdlGetInputDimsV2(model, index, &dims), "aclmdlGetInputDimsV2", Code::kModelLoad));
  set_dims(dims, desc);
  desc->format = api.aclmdlGetInputFormat(model, index);
  desc->bytes = api.aclmdlGetInputSizeByIndex(model, index);
  read_range(api, model, index, desc);
  return set_dtype(api.aclmdlGetInputDataType(model, index), "input", desc);
}

// The role of each of AscendCL's inputs in AIPP. A model has parameter inputs only if one has the compiler's name for the
// first; the others are named after their nodes, so their type decides.
struct AippRole {
  int type = 0;
  std::size_t attached = kNoInput;  // for a picture: its parameter input
};

Result<std::vector<AippRole>> read_aipp_roles(const AclApi& api, aclmdlDesc* model, std::uint32_t model_id) {
  std::vector<AippRole> roles(api.aclmdlGetNumInputs(model));
  std::vector<std::string> names;
  for (std::size_t i = 0; i < roles.size(); ++i) names.emplace_back(api.aclmdlGetInputNameByIndex(model, i));
  const auto is_called_so = [](const std::string& name) { return name.rfind(kAippInput, 0) == 0; };
  if (std::none_of(names.begin(), names.end(), is_called_so)) return roles;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    if (names[i] == kGearInput) continue;
    AIS_TRY(api.check(api.aclmdlGetAippType(model_id, i, &roles[i].type, &roles[i].attached), "aclmdlGetAippType",
                      Code::kModelLoad));
    if (names[i] == kAippInput) roles[i].type = kAippParameters;
  }
  return roles;
}

Status read_inputs(const AclApi& api, aclmdlDesc* model, const std::vector<AippRole>& roles, Layout* layout) {
  layout->inputs = roles.size();
  for (std::size_t i = 0; i < layout->inputs; ++i) {
    TensorDesc desc;
    desc.name = api.aclmdlGetInputNameByIndex(model, i);
    if (desc.name == kGearInput) {
      layout->has_gear_input = true;
      layout->gear_index = i;
      layout->gear_bytes = api.aclmdlGetInputSizeByIndex(model, i);
    } else if (roles[i].type == kAippParameters) {
      layout->aipp.push_back({i, api.aclmdlGetInputSizeByIndex(model, i)});
    } else {
      AIS_TRY(read_input(api, model, i, &desc));
      AIS_TRY(check_answers(desc, "input", i));
      layout->data.push_back(i);
      layout->info.inputs.push_back(std::move(desc));
    }
  }
  return Status();
}

Status read_outputs(const AclApi& api, aclmdlDesc* model, Layout* layout) {
  const std::size_t count = api.aclmdlGetNumOutputs(model);
  layout->outputs.resize(1);
  for (std::size_t i = 0; i < count; ++i) {
    TensorDesc desc;
    desc.name = api.aclmdlGetOutputNameByIndex(model, i);
    aclmdlIODims dims = {};
    AIS_TRY(api.check(api.aclmdlGetOutputDims(model, i, &dims), "aclmdlGetOutputDims", Code::kModelLoad));
    set_dims(dims, &desc);
    desc.format = api.aclmdlGetOutputFormat(model, i);
    desc.bytes = api.aclmdlGetOutputSizeByIndex(model, i);
    AIS_TRY(set_dtype(api.aclmdlGetOutputDataType(model, i), "output", &desc));
    AIS_TRY(check_answers(desc, "output", i));
    layout->output_bytes.push_back(desc.bytes);
    layout->outputs[0].push_back(desc.shape);
    layout->info.outputs.push_back(std::move(desc));
  }
  return Status();
}

// Finds the picture of each parameter input.
Status match_aipp(const std::vector<AippRole>& roles, Layout* layout) {
  for (std::size_t i = 0; i < layout->data.size(); ++i) {
    const AippRole& role = roles[layout->data[i]];
    if (role.type != kWithDynamicAipp) continue;
    const auto found = std::find_if(layout->aipp.begin(), layout->aipp.end(),
                                    [&](const AippInput& aipp) { return aipp.index == role.attached; });
    if (found == layout->aipp.end())
      return Status(Code::kModelLoad,
                    "input '" + layout->info.inputs[i].name +
                        "' needs AIPP parameters, and AscendCL reports no input for them; compile the model again");
    found->picture = i;
    const TensorDesc& picture = layout->info.inputs[i];
    // Read now, because trust_bytes may remove it. A picture with another description counts as one.
    found->batch = picture.shape.size() == 4 ? picture.shape[0] : 1;
    layout->info.aipp_inputs.push_back(i);
    trust_bytes(&layout->info.inputs[i]);
  }
  return Status();
}

// Returns the gear's values for dynamic dimensions in the order of the inputs, if the gear has the inputs in `order`.
bool values_in_order(const std::vector<TensorDesc>& inputs, const std::vector<std::size_t>& order, const aclmdlIODims& gear,
                     Shape* values) {
  std::vector<Shape> each(inputs.size());
  std::size_t next = 0;
  for (const std::size_t input : order) {
    for (const std::int64_t dim : inputs[input].shape) {
      if (next >= gear.dimCount) return false;
      const std::int64_t given = gear.dims[next++];
      if (dim < 0)
        each[input].push_back(given);
      else if (dim != given)
        return false;
    }
  }
  values->clear();
  for (const Shape& part : each) values->insert(values->end(), part.begin(), part.end());
  return next == gear.dimCount;
}

// A gear lists the inputs in the order given to the compiler, which no query returns. The first order that fits all gears is
// used; the model's own order is tried first.
Status read_dims_gears(const AclApi& api, aclmdlDesc* model, std::size_t count, Layout* layout) {
  layout->gear_dims.resize(count);
  AIS_TRY(api.check(api.aclmdlGetInputDynamicDims(model, kAnyIndex, layout->gear_dims.data(), count),
                    "aclmdlGetInputDynamicDims", Code::kModelLoad));
  const auto& inputs = layout->info.inputs;
  std::vector<std::size_t> order(inputs.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    std::vector<Shape> values(count);
    bool fits = true;
    for (std::size_t g = 0; fits && g < count; ++g) fits = values_in_order(inputs, order, layout->gear_dims[g], &values[g]);
    if (fits) {
      layout->info.gears = {GearKind::kDims, std::move(values)};
      return Status();
    }
  } while (inputs.size() <= tuning::kMostPermuted && std::next_permutation(order.begin(), order.end()));
  return Status(Code::kModelLoad,
                "the model's gears of dims must fit its inputs in some order, and they fit in none; compile the model again");
}

Status read_gears(const AclApi& api, aclmdlDesc* model, Layout* layout) {
  const auto batch = std::make_unique<aclmdlBatch>();
  const auto hw = std::make_unique<aclmdlHW>();
  std::size_t dims = 0;
  AIS_TRY(api.check(api.aclmdlGetInputDynamicGearCount(model, kAnyIndex, &dims), "aclmdlGetInputDynamicGearCount",
                    Code::kModelLoad));
  AIS_TRY(api.check(api.aclmdlGetDynamicBatch(model, batch.get()), "aclmdlGetDynamicBatch", Code::kModelLoad));
  AIS_TRY(api.check(api.aclmdlGetDynamicHW(model, kAnyIndex, hw.get()), "aclmdlGetDynamicHW", Code::kModelLoad));
  device::Gears& gears = layout->info.gears;
  if (batch->batchCount > 0) {
    gears.kind = GearKind::kBatch;
    for (std::size_t i = 0; i < std::min(batch->batchCount, kMaxDims); ++i)
      gears.values.push_back({static_cast<std::int64_t>(batch->batch[i])});
  } else if (hw->hwCount > 0) {
    gears.kind = GearKind::kImageSize;
    for (std::size_t i = 0; i < std::min(hw->hwCount, kMaxDims); ++i) {
      gears.values.push_back({static_cast<std::int64_t>(hw->hw[i][0]), static_cast<std::int64_t>(hw->hw[i][1])});
    }
  } else if (dims > 0) {
    AIS_TRY(read_dims_gears(api, model, dims, layout));
  }
  if (gears.kind != GearKind::kNone && !layout->has_gear_input) {
    return Status(Code::kModelLoad, std::string("a model with gears must have the input '") + kGearInput +
                                        "', which chooses one, and this one has none; compile the model again");
  }
  const auto unsized = std::find_if(layout->info.inputs.begin(), layout->info.inputs.end(),
                                    [](const TensorDesc& desc) { return desc.bytes == 0; });
  if (gears.kind != GearKind::kNone && unsized != layout->info.inputs.end()) {
    return Status(Code::kModelLoad, "AscendCL reports no size of input '" + unsized->name + "', which has gears");
  }
  layout->open_shapes = gears.kind == GearKind::kNone && std::any_of(layout->info.inputs.begin(), layout->info.inputs.end(),
                                                                     [](const TensorDesc& desc) { return desc.open(); });
  return Status();
}

}  // namespace

Shape shape_of(const aclmdlIODims& dims) { return Shape(dims.dims, dims.dims + std::min(dims.dimCount, kMaxDims)); }

Result<Layout> describe(const AclApi& api, aclmdlDesc* desc, std::uint32_t model_id) {
  Layout layout;
  AIS_ASSIGN(const std::vector<AippRole> roles, read_aipp_roles(api, desc, model_id));
  AIS_TRY(read_inputs(api, desc, roles, &layout));
  AIS_TRY(read_outputs(api, desc, &layout));
  if (layout.data.empty() || layout.info.outputs.empty())
    return Status(Code::kModelLoad,
                  std::string("AscendCL reports no ") + (layout.data.empty() ? "inputs" : "outputs") + " of the model");
  AIS_TRY(read_gears(api, desc, &layout));
  AIS_TRY(match_aipp(roles, &layout));
  for (TensorDesc& input : layout.info.inputs) trust_bytes(&input);
  return layout;
}

}  // namespace ais::acl
