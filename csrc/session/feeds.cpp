// Fitting feeds; every message says what was wanted, what was given, and what to do.
#include "session/feeds.hpp"

#include <algorithm>

#include "base/words.hpp"
#include "device/gears.hpp"

namespace ais::session {
namespace {

using device::GearKind;
using device::TensorDesc;

struct ModeName {
  Mode mode;
  const char* name;
};
constexpr ModeName kModes[] = {{Mode::kStatic, "static"},
                               {Mode::kBatch, "dymbatch"},
                               {Mode::kImageSize, "dymhw"},
                               {Mode::kDims, "dymdims"},
                               {Mode::kShape, "dymshape"}};

Status mismatch(const TensorDesc& desc, const TensorView& view, const std::string& wanted) {
  return Status(Code::kFeedMismatch, "input '" + desc.name + "' takes " + wanted + ", shape " +
                                         (desc.ranked ? shape_text(desc.shape) : std::string("of any rank")) + " of " +
                                         std::string(dtype_name(desc.dtype)) + "; it was given " + std::to_string(view.bytes) +
                                         " bytes, shape " + shape_text(view.shape) + " of " +
                                         std::string(dtype_name(view.dtype)));
}

bool bytes_match(const TensorDesc& desc, const Shape& shape, const TensorView& view) {
  std::size_t elements = 0;
  return count_elements(shape, &elements) && packed_bytes(desc.dtype, elements) == view.bytes;
}

bool agrees(const Shape& pattern, const Shape& shape) {
  return pattern.size() == shape.size() &&
         std::equal(pattern.begin(), pattern.end(), shape.begin(), [](auto want, auto got) { return want < 0 || want == got; });
}

// The one open dimension that makes the bytes come out, if there is exactly one open dimension and a whole number does.
bool solve_one(const TensorDesc& desc, const TensorView& view, Shape* shape) {
  if (std::count_if(desc.shape.begin(), desc.shape.end(), [](auto dim) { return dim < 0; }) != 1) return false;
  const auto open = std::find_if(desc.shape.begin(), desc.shape.end(), [](auto dim) { return dim < 0; }) - desc.shape.begin();
  *shape = desc.shape;
  (*shape)[open] = 1;
  std::size_t unit = 0;
  if (!count_elements(*shape, &unit) || unit == 0) return false;
  const std::size_t elements = view.bytes * 8 / dtype_bits(desc.dtype);
  if (elements % unit != 0) return false;
  (*shape)[open] = static_cast<std::int64_t>(elements / unit);
  return bytes_match(desc, *shape, view);
}

// A picture that the device preprocesses (dynamic AIPP) comes in a format and size of its own, so its bytes say nothing of the
// model's shape. What the model leaves open there follows from the axis of the picture in the same place.
Shape fit_picture(const TensorDesc& desc, const TensorView& view) {
  if (desc.shape == Shape{-1}) return {static_cast<std::int64_t>(view.bytes * 8 / dtype_bits(desc.dtype))};
  Shape shape = desc.shape;
  for (std::size_t i = 0; i < std::min(shape.size(), view.shape.size()); ++i) {
    if (shape[i] < 0) shape[i] = view.shape[i];
  }
  return shape;
}

Status check_gear(const device::ModelInfo& info, Mode mode, const std::vector<Shape>& shapes) {
  const device::Gears& gears = info.gears;
  if (gears.kind == GearKind::kNone || mode == Mode::kShape) return Status();
  const char* wanted = device::gear_mode(gears.kind);
  if (mode != Mode::kStatic && std::string_view(wanted) != mode_name(mode)) {
    return Status(Code::kFeedMismatch, "the model was built for mode '" + std::string(wanted) + "' with gears " +
                                           device::gears_text(gears) + "; it was run in mode '" + mode_name(mode) + "'");
  }
  AIS_ASSIGN(const Shape gear, device::gear_of(gears.kind, info.inputs, shapes));
  if (std::find(gears.values.begin(), gears.values.end(), gear) != gears.values.end()) return Status();
  std::string given;
  for (std::size_t i = 0; i < gear.size(); ++i) given += (i == 0 ? "" : ",") + std::to_string(gear[i]);
  return Status(Code::kFeedMismatch, "the inputs need gear " + given + ", and the model has only gears " +
                                         device::gears_text(gears) + " (" + wanted +
                                         "); pad or split the inputs to one of them");
}

}  // namespace

Result<Mode> parse_mode(std::string_view text) {
  std::vector<std::string> names;
  for (const ModeName& entry : kModes) {
    if (text == entry.name) return entry.mode;
    names.emplace_back(entry.name);
  }
  return Status(Code::kInvalidArgument,
                "mode must be one of " + quoted_list(names) + ", got '" + std::string(text) + "'" + nearest(text, names));
}

const char* mode_name(Mode mode) { return kModes[static_cast<int>(mode)].name; }

Result<Shape> fit(const TensorDesc& desc, const TensorView& view) {
  if (!desc.open()) {
    if (bytes_match(desc, desc.shape, view)) return desc.shape;
    std::size_t elements = 0;
    (void)count_elements(desc.shape, &elements);
    return mismatch(desc, view, std::to_string(packed_bytes(desc.dtype, elements)) + " bytes");
  }
  if (!desc.ranked || agrees(desc.shape, view.shape)) {
    if (bytes_match(desc, view.shape, view)) return view.shape;
    std::size_t elements = 0;
    (void)count_elements(view.shape, &elements);
    return mismatch(desc, view, std::to_string(packed_bytes(desc.dtype, elements)) + " bytes for the shape given");
  }
  // A sample without its batch dimension.
  Shape shape = view.shape;
  shape.insert(shape.begin(), 1);
  if (agrees(desc.shape, shape) && bytes_match(desc, shape, view)) return shape;
  if (solve_one(desc, view, &shape)) return shape;
  return mismatch(desc, view, "a number of bytes that fits its open dimensions (-1)");
}

Result<std::vector<Shape>> fit_all(const device::ModelInfo& info, Mode mode, const std::vector<Shape>* pattern,
                                   const std::vector<TensorView>& feeds) {
  if (feeds.size() != info.inputs.size()) {
    std::string names;
    for (const TensorDesc& desc : info.inputs) names += (names.empty() ? "'" : ", '") + desc.name + "'";
    return Status(Code::kFeedMismatch, "the model takes " + std::to_string(info.inputs.size()) + " input" +
                                           (info.inputs.size() == 1 ? "" : "s") + " (" + names + "); it was given " +
                                           std::to_string(feeds.size()));
  }
  std::vector<Shape> shapes;
  shapes.reserve(feeds.size());
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    const TensorDesc* desc = &info.inputs[i];
    TensorDesc set;
    if (pattern != nullptr) {
      set = *desc;
      set.shape = (*pattern)[i];
      set.ranked = set.ranked || !set.shape.empty();
      desc = &set;
    }
    if (std::find(info.aipp_inputs.begin(), info.aipp_inputs.end(), i) != info.aipp_inputs.end()) {
      shapes.push_back(fit_picture(*desc, feeds[i]));
    } else {
      AIS_ASSIGN(Shape shape, fit(*desc, feeds[i]));
      shapes.push_back(std::move(shape));
    }
  }
  AIS_TRY(check_gear(info, mode, shapes));
  return shapes;
}

bool kind_differs(DType wanted, DType given) {
  auto kind = [](DType dtype) {
    switch (dtype) {
      case DType::kInt8:
      case DType::kInt16:
      case DType::kInt32:
      case DType::kInt64:
      case DType::kInt4:
      case DType::kInt2:
        return 'i';
      case DType::kUInt8:
      case DType::kUInt16:
      case DType::kUInt32:
      case DType::kUInt64:
      case DType::kUInt4:
      case DType::kUInt2:
        return 'u';
      case DType::kBool:
        return 'b';
      case DType::kComplex64:
      case DType::kComplex128:
        return 'c';
      default:
        return 'f';
    }
  };
  return wanted != given && dtype_bits(wanted) == dtype_bits(given) && kind(wanted) != kind(given);
}

}  // namespace ais::session
