// Parses and matches gears.
#include "device/gears.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iterator>

namespace ais::device {
namespace {

bool parse_list(const std::string& text, Shape* out) {
  const char* at = text.c_str();
  while (true) {
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(at, &end, 10);
    if (end == at || errno != 0 || value <= 0) return false;
    out->push_back(value);
    while (*end == ' ') ++end;
    if (*end == '\0') return true;
    if (*end != ',') return false;
    at = end + 1;
  }
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  while (true) {
    const std::size_t to = text.find(separator, from);
    parts.push_back(text.substr(from, to - from));
    if (to == std::string::npos) return parts;
    from = to + 1;
  }
}

// Returns the dimensions for an image size: the two dynamic ones of an input that has exactly two.
std::vector<std::size_t> dynamic_dims(const TensorDesc& desc) {
  std::vector<std::size_t> dims;
  for (std::size_t i = 0; i < desc.shape.size(); ++i) {
    if (desc.shape[i] < 0) dims.push_back(i);
  }
  return dims;
}

// Returns the number of values in a gear for these inputs; 0 if the inputs cannot have gears of this kind.
std::size_t values_per_gear(GearKind kind, const std::vector<TensorDesc>& inputs) {
  std::size_t total = 0;
  std::size_t most = 0;
  for (const TensorDesc& desc : inputs) {
    const std::size_t count = dynamic_dims(desc).size();
    total += count;
    most = std::max(most, count);
  }
  switch (kind) {
    case GearKind::kBatch:
      return total > 0 && most == 1 ? 1 : 0;
    case GearKind::kImageSize:
      return most == 2 ? 2 : 0;
    default:
      return total;
  }
}

}  // namespace

Result<Gears> parse_gears(const std::map<std::string, std::string>& declared, const std::vector<TensorDesc>& inputs) {
  Gears gears;
  if (declared.empty()) return gears;
  const std::string& key = declared.begin()->first;
  const std::string& text = declared.begin()->second;
  auto bad = [&](const std::string& why) {
    return Status(Code::kModelLoad, "the model's metadata declares " + key + " = '" + text + "', " + why);
  };
  if (declared.size() > 1)
    return bad("and also " + std::next(declared.begin())->first + "; a model must declare one kind of gears, remove the other");
  const GearKind kinds[] = {GearKind::kBatch, GearKind::kImageSize, GearKind::kDims};
  for (std::size_t i = 0; i < 3; ++i) {
    if (key == kGearKeys[i]) gears.kind = kinds[i];
  }
  const std::size_t wanted = values_per_gear(gears.kind, inputs);
  if (wanted == 0) return bad("but no input has a dynamic dimension for it; export the model with one, or remove the entry");
  const bool batches = gears.kind == GearKind::kBatch;
  for (const std::string& part : split(text, batches ? ',' : ';')) {
    Shape gear;
    if (!parse_list(part, &gear)) return bad("where each gear must be integers of at least 1, got '" + part + "'");
    if (gear.size() != wanted) {
      return bad("where each gear must have " + std::to_string(wanted) + " values, one for each dynamic dimension, got " +
                 std::to_string(gear.size()) + " in '" + part + "'");
    }
    gears.values.push_back(gear);
  }
  return gears;
}

Result<Shape> gear_of(GearKind kind, const std::vector<TensorDesc>& inputs, const std::vector<Shape>& shapes) {
  Shape gear;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Shape values;
    for (std::size_t dim : dynamic_dims(inputs[i])) {
      if (dim < shapes[i].size()) values.push_back(shapes[i][dim]);
    }
    if (values.empty()) continue;
    if (kind == GearKind::kDims) {
      gear.insert(gear.end(), values.begin(), values.end());
    } else if (gear.empty()) {
      gear = values;
    } else if (gear != values) {
      return Status(Code::kFeedMismatch, "the dynamic dimensions of all inputs must be equal, got " + shape_text(gear) +
                                             " and for input '" + inputs[i].name + "' " + shape_text(values));
    }
  }
  return gear;
}

void set_largest_sizes(const Gears& gears, std::vector<TensorDesc>* inputs) {
  for (const Shape& gear : gears.values) {
    std::size_t next = 0;  // for a kDims gear: its values are for all inputs in order
    for (TensorDesc& desc : *inputs) {
      if (!is_dynamic(desc.shape)) continue;
      if (gears.kind != GearKind::kDims) next = 0;
      Shape shape = desc.shape;
      for (std::size_t dim : dynamic_dims(desc)) {
        if (next < gear.size()) shape[dim] = gear[next++];
      }
      std::size_t elements = 0;
      if (count_elements(shape, &elements)) desc.bytes = std::max(desc.bytes, packed_bytes(desc.dtype, elements));
    }
  }
}

Status no_such_gear(const Gears& gears, const Shape& wanted) {
  std::string given;
  for (std::size_t i = 0; i < wanted.size(); ++i) given += (i == 0 ? "" : ",") + std::to_string(wanted[i]);
  return Status(Code::kFeedMismatch, "the inputs need gear " + given + ", and the model has only gears " + gears_text(gears) +
                                         " (" + gear_mode(gears.kind) + "); pad or split the inputs to one of them");
}

std::string gears_text(const Gears& gears) {
  std::string text;
  for (const Shape& gear : gears.values) {
    if (!text.empty()) text += "; ";
    for (std::size_t i = 0; i < gear.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(gear[i]);
  }
  return text;
}

const char* gear_mode(GearKind kind) {
  switch (kind) {
    case GearKind::kBatch:
      return "dymbatch";
    case GearKind::kImageSize:
      return "dymhw";
    case GearKind::kDims:
      return "dymdims";
    case GearKind::kNone:
      break;
  }
  return "static";
}

}  // namespace ais::device
