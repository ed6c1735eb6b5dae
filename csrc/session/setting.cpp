// Converts texts and numbers to one shape for each input.
#include "session/setting.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>

#include "base/words.hpp"
#include "device/gears.hpp"

namespace ais::session {
namespace {

using device::GearKind;
using device::ModelInfo;
using device::TensorDesc;

constexpr char kWantedEntry[] = "shapes must be 'name:d0,d1,...' with integers of at least 0, got '";

Status wrong(const std::string& message) { return Status(Code::kInvalidArgument, message); }

Status need_gears(const ModelInfo& info, GearKind kind, const Shape& gear) {
  const device::Gears& gears = info.gears;
  if (gears.kind == GearKind::kNone) return Status();
  const std::string wanted = "the setting must be one of the model's gears " + device::gears_text(gears) + " (" +
                             device::gear_mode(gears.kind) + "), got ";
  if (gears.kind != kind) return Status(Code::kFeedMismatch, wanted + "one for " + device::gear_mode(kind));
  if (std::find(gears.values.begin(), gears.values.end(), gear) != gears.values.end()) return Status();
  return Status(Code::kFeedMismatch, wanted + shape_text(gear));
}

// Sets open dimensions of every input to `values`, if the input has at least this many open dimensions.
Result<std::vector<Shape>> fill(const ModelInfo& info, const Shape& values, const char* what) {
  std::vector<Shape> shapes;
  bool any = false;
  for (const TensorDesc& desc : info.inputs) {
    Shape shape = desc.shape;
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] < 0) open.push_back(i);
    }
    // An image size sets the last two open dimensions (a batch may be open before them), a batch the first.
    if (open.size() >= values.size()) {
      const std::size_t skip = values.size() == 1 ? 0 : open.size() - values.size();
      for (std::size_t i = 0; i < values.size(); ++i) shape[open[skip + i]] = values[i];
      any = true;
    }
    shapes.push_back(std::move(shape));
  }
  if (!any) {
    const std::string wanted = values.size() == 1 ? "an open dimension" : std::to_string(values.size()) + " open dimensions";
    return wrong("no input of the model has " + wanted + " to set " + what + " in");
  }
  return shapes;
}

Status parse_shape(const std::string& entry, const std::string& text, Shape* out) {
  if (text.find_first_not_of(' ') == std::string::npos) return Status();  // no dimensions: a scalar
  const char* at = text.c_str();
  while (true) {
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(at, &end, 10);
    if (end == at || errno != 0 || value < 0) return wrong(kWantedEntry + entry + "'");
    out->push_back(value);
    while (*end == ' ') ++end;
    if (*end == '\0') return Status();
    if (*end != ',') return wrong(kWantedEntry + entry + "'");
    at = end + 1;
  }
}

Result<std::vector<Shape>> parse(const ModelInfo& info, const std::string& text) {
  std::map<std::string, Shape> by_name;
  std::size_t from = 0;
  while (from <= text.size()) {
    std::size_t to = std::min(text.find(';', from), text.size());
    const std::string entry = text.substr(from, to - from);
    from = to + 1;
    if (entry.empty()) continue;                 // a trailing semicolon
    const std::size_t colon = entry.rfind(':');  // a name may contain colons
    if (colon == std::string::npos) return wrong(kWantedEntry + entry + "'");
    Shape shape;
    AIS_TRY(parse_shape(entry, entry.substr(colon + 1), &shape));
    const bool first = by_name.emplace(entry.substr(0, colon), std::move(shape)).second;
    if (!first)
      return wrong("shapes must name every input once, got '" + text + "' with input '" + entry.substr(0, colon) + "' twice");
  }
  std::vector<Shape> shapes;
  for (const TensorDesc& desc : info.inputs) {
    const auto found = by_name.find(desc.name);
    if (found == by_name.end())
      return wrong("shapes must name every input, got '" + text + "' without input '" + desc.name + "'");
    const Shape& shape = found->second;
    bool agrees = !desc.ranked || shape.size() == desc.shape.size();
    for (std::size_t i = 0; agrees && i < desc.shape.size(); ++i) agrees = desc.shape[i] < 0 || desc.shape[i] == shape[i];
    if (!agrees) {
      return wrong("shapes must fit the model, where input '" + desc.name + "' has shape " + shape_text(desc.shape) + ", got " +
                   shape_text(shape));
    }
    std::size_t elements = 0;
    if (!count_elements(shape, &elements)) return wrong("input '" + desc.name + "': " + shape_text(shape) + " is too large");
    shapes.push_back(shape);
    by_name.erase(found);
  }
  std::vector<std::string> names;
  for (const TensorDesc& desc : info.inputs) names.push_back(desc.name);
  if (!by_name.empty())
    return wrong("shapes must name inputs of the model, got '" + by_name.begin()->first + "'; the inputs are " +
                 quoted_list(names));
  return shapes;
}

}  // namespace

Result<std::vector<Shape>> batch_setting(const ModelInfo& info, std::int64_t batch) {
  if (batch <= 0) return wrong("batch size must be at least 1, got " + std::to_string(batch));
  AIS_TRY(need_gears(info, GearKind::kBatch, {batch}));
  return fill(info, {batch}, "a batch size");
}

Result<std::vector<Shape>> image_setting(const ModelInfo& info, std::int64_t height, std::int64_t width) {
  if (height <= 0) return wrong("height must be at least 1, got " + std::to_string(height));
  if (width <= 0) return wrong("width must be at least 1, got " + std::to_string(width));
  AIS_TRY(need_gears(info, GearKind::kImageSize, {height, width}));
  return fill(info, {height, width}, "an image size");
}

Result<std::vector<Shape>> dims_setting(const ModelInfo& info, const std::string& text) {
  AIS_ASSIGN(std::vector<Shape> shapes, parse(info, text));
  AIS_ASSIGN(const Shape gear, device::gear_of(GearKind::kDims, info.inputs, shapes));
  AIS_TRY(need_gears(info, GearKind::kDims, gear));
  return shapes;
}

Result<std::vector<Shape>> shape_setting(const ModelInfo& info, const std::string& text) { return parse(info, text); }

}  // namespace ais::session
