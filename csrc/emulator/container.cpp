// Reads a container, and computes the answers of the calls that describe a model.
#include "emulator/container.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "emulator/acl_types.hpp"
#include "emulator/json.hpp"

namespace ais::emulator {
namespace {

Status broken(const std::string& why) { return Status(Code::kModelLoad, "the model's container is broken: " + why); }

std::uint64_t read_u64(const std::uint8_t* at) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | at[i];
  return value;
}

Status refuse(const void* data, std::size_t size) {
  const auto begins = [&](const char* magic, std::size_t length) {
    return size >= length && std::memcmp(data, magic, length) == 0;
  };
  if (begins("IMOD", 4) || begins("PK\x03\x04", 4)) {
    return Status(Code::kUnsupported,
                  "this is a model compiled by ATC: it holds instructions of the NPU's own cores, which the emulator cannot "
                  "compute; give "
                  "it the ONNX model it was compiled from, through `python -m ais_bench.emulator pack`");
  }
  return Status(Code::kModelLoad,
                "this is not a model packed for the emulator (its first bytes are not " + std::string(kContainerMagic) + ")");
}

GearKind gear_kind(const std::string& text) {
  if (text == "batch") return GearKind::kBatch;
  if (text == "hw") return GearKind::kImageSize;
  if (text == "dims") return GearKind::kDims;
  if (text == "shape") return GearKind::kOpenShape;
  return GearKind::kNone;
}

InputSpec read_input(const Json& json) {
  InputSpec input;
  input.name = json.at("name").text;
  input.dtype = static_cast<int>(json.at("dtype").integer());
  input.graph_dtype = static_cast<int>(json.at("graph_dtype").integer());
  input.format = static_cast<int>(json.at("format").integer());
  input.shape = json.at("shape").integers();
  for (const Json& range : json.at("range").items) {
    if (range.items.size() == 2) input.range.push_back({range.items[0].integer(), range.items[1].integer()});
  }
  return input;
}

OutputSpec read_output(const Json& json) {
  OutputSpec output;
  output.name = json.at("name").text;
  output.dtype = static_cast<int>(json.at("dtype").integer());
  output.format = static_cast<int>(json.at("format").integer());
  for (const Json& shape : json.at("shapes").items) output.shapes.push_back(shape.integers());
  if (const Json* largest = json.find("largest")) output.bytes = shape_bytes(output.dtype, largest->integers());
  return output;
}

Status check(const ModelSpec& spec) {
  if (spec.inputs.size() > 1024 || spec.outputs.empty()) return broken("it has no outputs, or too many inputs");
  if (spec.has_gears() == spec.gear_values.empty()) return broken("its gears have no values");
  if (spec.gear_values.size() > kMaxDims) return broken("it has more than 128 gears");
  const std::size_t shapes = std::max<std::size_t>(1, spec.gear_values.size());
  for (const OutputSpec& output : spec.outputs) {
    for (const Shape& shape : output.shapes) {
      if (shape.size() > kMaxDims) return broken("output '" + output.name + "' has too many dimensions");
    }
    if (output.shapes.size() != shapes) return broken("output '" + output.name + "' does not have one shape for each gear");
  }
  for (const InputSpec& input : spec.inputs) {
    if (input.shape.size() > kMaxDims || (!input.range.empty() && input.range.size() != input.shape.size())) {
      return broken("input '" + input.name + "' has too many dimensions or a range for another rank");
    }
  }
  std::vector<int> order = spec.gear_order;
  std::sort(order.begin(), order.end());
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order.size() != spec.inputs.size() || order[i] != static_cast<int>(i))
      return broken("the order of its gears is not one of its inputs");
  }
  std::size_t dynamic = 0;
  std::size_t ranks = 0;
  for (const InputSpec& input : spec.inputs) {
    ranks += input.shape.size();
    for (const std::int64_t dim : input.shape) dynamic += dim < 0 ? 1 : 0;
  }
  if (spec.has_gears() && ranks > kMaxDims) return broken("its inputs have more than 128 dimensions together");
  const std::size_t wanted = spec.gears == GearKind::kBatch ? 1 : spec.gears == GearKind::kImageSize ? 2 : dynamic;
  for (const Shape& gear : spec.gear_values) {
    if (gear.size() != wanted || is_dynamic(gear)) return broken("a gear does not have a value for each dynamic dimension");
  }
  return Status();
}

void describe_picture(const AippSpec& aipp, int index, InputSpec* input) {
  input->aipp = index;
  input->dtype = ACL_UINT8;
  input->fed_shape = input->physical_shape = input->shape;
  if (aipp.dynamic) {
    input->bytes = aipp.max_bytes;
    return;
  }
  input->format = ACL_FORMAT_NHWC;
  const AippParameters& fixed = aipp.fixed;
  const int width = fixed.width > 0 ? fixed.width : static_cast<int>(input->shape[3]);
  const int height = fixed.height > 0 ? fixed.height : static_cast<int>(input->shape[2]);
  input->fed_shape = picture_dims(fixed.format, input->shape[0], width, height, false);
  input->physical_shape = picture_dims(fixed.format, input->shape[0], width, height, true);
}

// Sets the size of a data input: exact, of the largest gear, of the largest shape of a range, or 0 if it is unbounded.
void size_input(const ModelSpec& spec, std::size_t index, InputSpec* input) {
  if (input->bytes != 0) return;
  if (spec.has_gears()) {
    for (std::size_t gear = 0; gear < spec.gear_values.size(); ++gear) {
      Shape shape = spec.input_shape(index, gear);
      if (input->aipp >= 0) {  // with static AIPP, gears can vary only the batch
        shape = input->physical_shape;
        shape[0] = spec.input_shape(index, gear)[0];
      }
      input->bytes = std::max(input->bytes, shape_bytes(input->dtype, shape));
    }
    return;
  }
  Shape largest = input->aipp >= 0 ? input->physical_shape : input->shape;
  for (std::size_t axis = 0; axis < largest.size(); ++axis) {
    if (largest[axis] < 0 && axis < input->range.size()) largest[axis] = input->range[axis][1];
  }
  input->bytes = shape_bytes(input->dtype, largest);
}

Status add_aipp(const Json& json, ModelSpec* spec) {
  for (const Json& item : json.items) {
    Result<AippSpec> aipp = parse_aipp(item);
    if (!aipp.ok()) return broken(aipp.status().message());
    const int input = aipp.value().input;
    if (spec->gears == GearKind::kOpenShape) return broken("it has AIPP and open shapes");
    if (input < 0 || static_cast<std::size_t>(input) >= spec->inputs.size() || spec->inputs[input].shape.size() != 4) {
      return broken("its AIPP is for an input that is not a picture");
    }
    describe_picture(aipp.value(), static_cast<int>(spec->aipp.size()), &spec->inputs[input]);
    spec->aipp.push_back(aipp.take());
  }
  return Status();
}

// The compiler gives the first parameter input a fixed name, and names further ones after their AIPP nodes.
void add_special_inputs(ModelSpec* spec) {
  bool first = true;
  for (std::size_t i = 0; i < spec->aipp.size(); ++i) {
    if (!spec->aipp[i].dynamic) continue;
    InputSpec parameters;
    parameters.role = InputRole::kAippParameters;
    parameters.name = kDynamicAippName;
    if (!std::exchange(first, false)) parameters.name += "_aipp_node" + std::to_string(i);
    parameters.dtype = parameters.graph_dtype = ACL_UINT8;
    const std::int64_t batch =
        spec->input_shape(static_cast<std::size_t>(spec->aipp[i].input), spec->has_gears() ? spec->largest_gear() : 0)[0];
    parameters.bytes = aipp_data_size(static_cast<std::uint64_t>(batch));
    parameters.shape = {static_cast<std::int64_t>(parameters.bytes)};
    parameters.aipp = static_cast<int>(i);
    spec->inputs.push_back(parameters);
  }
  if (!spec->has_gears()) return;
  InputSpec index;
  index.role = InputRole::kGearIndex;
  index.name = kDynamicTensorName;
  index.dtype = index.graph_dtype = ACL_INT32;
  index.shape = {static_cast<std::int64_t>(spec->gear_values[0].size())};
  index.bytes = 4 * spec->gear_values[0].size();
  spec->inputs.push_back(index);
}

Status read_weights(const Json& json, ModelSpec* spec) {
  const Json* weights = json.find("weights");
  if (weights == nullptr) return Status();
  std::size_t end = 0;  // of the graph so far
  std::size_t external = 0;
  for (const Json& item : weights->items) {
    WeightPiece piece;
    piece.file = item.at("file").text;
    piece.at = static_cast<std::size_t>(item.at("at").integer());
    piece.bytes = static_cast<std::size_t>(item.at("bytes").integer());
    if (piece.file.empty() || piece.file.find('/') != std::string::npos || piece.at < end ||
        piece.at - external > spec->graph.size())
      return broken("its weights are not in the order of the graph");
    end = piece.at + piece.bytes;
    external += piece.bytes;
    spec->weights.push_back(std::move(piece));
  }
  return Status();
}

}  // namespace

std::size_t dtype_bytes(int dtype) {
  switch (dtype) {
    case ACL_DT_UNDEFINED:
    case 13:  // string
      return 0;
    case 2:
    case 4:
    case 12:
    case 29:  // int4 and uint1 are reported as a byte
    case 30:
    case 34:
    case 35:
    case 36:
    case 37:
      return 1;
    case 1:
    case 6:
    case 7:
    case 27:
      return 2;
    case 0:
    case 3:
    case 8:
    case 33:
      return 4;
    case 17:
      return 16;
    default:
      return 8;
  }
}

std::size_t shape_bytes(int dtype, const Shape& shape) {
  std::size_t elements = 0;
  if (!count_elements(shape, &elements)) return 0;
  const std::size_t bits = dtype_bits(static_cast<DType>(dtype));
  return bits != 0 ? packed_bytes(static_cast<DType>(dtype), elements) : elements * dtype_bytes(dtype);
}

std::size_t ModelSpec::data_inputs() const {
  return static_cast<std::size_t>(
      std::count_if(inputs.begin(), inputs.end(), [](const InputSpec& input) { return input.role == InputRole::kData; }));
}

std::size_t ModelSpec::largest_gear() const {
  std::size_t best = 0;
  std::int64_t most = -1;
  for (std::size_t gear = 0; gear < gear_values.size(); ++gear) {
    std::int64_t product = 1;
    for (const std::int64_t value : gear_values[gear]) product *= std::max<std::int64_t>(value, 1);
    if (product > most) {
      most = product;
      best = gear;
    }
  }
  return best;
}

Shape ModelSpec::input_shape(std::size_t index, std::size_t gear) const {
  Shape shape = inputs[index].shape;
  if (!has_gears()) return shape;
  const Shape& values = gear_values[gear];
  std::size_t next = 0;
  if (gears == GearKind::kDims) {  // the values are in gear_order
    for (const int earlier : gear_order) {
      if (earlier == static_cast<int>(index)) break;
      for (const std::int64_t dim : inputs[static_cast<std::size_t>(earlier)].shape) next += dim < 0 ? 1 : 0;
    }
  }
  for (std::int64_t& dim : shape) {
    if (dim >= 0) continue;
    dim = gears == GearKind::kBatch ? values[0] : values[std::min(next, values.size() - 1)];
    ++next;
  }
  return shape;
}

Shape ModelSpec::gear_dims(std::size_t gear) const {
  Shape all;
  for (const int index : gear_order) {
    const Shape shape = input_shape(static_cast<std::size_t>(index), gear);
    all.insert(all.end(), shape.begin(), shape.end());
  }
  return all;
}

std::size_t ModelSpec::work_bytes() const {
  std::size_t bytes = 0;
  for (const InputSpec& input : inputs) bytes += input.bytes;
  for (const OutputSpec& output : outputs) bytes += output.bytes;
  return (bytes + 511) / 512 * 512;
}

Result<std::shared_ptr<const ModelSpec>> parse_container(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  if (size < 8 || std::memcmp(data, kContainerMagic, 8) != 0) return refuse(data, size);
  if (size < kContainerHeader) return broken("it ends inside its header");
  if (bytes[8] < 1 || bytes[8] > 2 || bytes[9] != 0 || bytes[10] != 0 || bytes[11] != 0)
    return broken("its version must be 1 or 2");
  const std::uint64_t description = read_u64(bytes + 16);
  const std::uint64_t graph = read_u64(bytes + 24);
  if (description > size || graph > size || kContainerHeader + description + graph != size) {
    return broken("it has " + std::to_string(size) + " bytes, its header promises " +
                  std::to_string(kContainerHeader + description + graph));
  }
  const char* text = reinterpret_cast<const char*>(bytes) + kContainerHeader;
  Result<Json> parsed = parse_json({text, description}, 10);
  if (!parsed.ok()) return broken(parsed.status().message());
  const Json& json = parsed.value();
  auto spec = std::make_shared<ModelSpec>();
  spec->name = json.at("name").text;
  spec->soc = json.at("soc").text;
  for (const Json& input : json.at("inputs").items) spec->inputs.push_back(read_input(input));
  for (const Json& output : json.at("outputs").items) spec->outputs.push_back(read_output(output));
  spec->gears = gear_kind(json.at("gears").at("kind").text);
  for (const Json& value : json.at("gears").at("values").items) spec->gear_values.push_back(value.integers());
  for (const std::int64_t index : json.at("gears").at("order").integers()) spec->gear_order.push_back(static_cast<int>(index));
  AIS_TRY(check(*spec));
  for (InputSpec& input : spec->inputs) input.fed_shape = input.physical_shape = input.shape;
  AIS_TRY(add_aipp(json.at("aipp"), spec.get()));
  for (std::size_t i = 0; i < spec->inputs.size(); ++i) size_input(*spec, i, &spec->inputs[i]);
  for (OutputSpec& output : spec->outputs) {
    for (const Shape& shape : output.shapes) output.bytes = std::max(output.bytes, shape_bytes(output.dtype, shape));
  }
  add_special_inputs(spec.get());
  spec->graph.assign(text + description, graph);
  AIS_TRY(read_weights(json, spec.get()));
  return std::shared_ptr<const ModelSpec>(std::move(spec));
}

}  // namespace ais::emulator
