// Checks feeds. Each error says what is needed, what was given, and what to do.
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

std::string wanted_text(const TensorDesc& desc) {
  return "shape " + (desc.ranked ? shape_text(desc.shape) : std::string("of any rank")) + " of " +
         std::string(dtype_name(desc.dtype));
}

std::string given_text(const TensorView& view) {
  return "shape " + shape_text(view.shape) + " of " + std::string(dtype_name(view.dtype));
}

std::string convert_text(const TensorDesc& desc) {
  return "; nothing is converted, so pass x.astype(" + numpy_type(desc.dtype) + ")";
}

// `wanted`: the bytes that the input takes, or a rule for them. `convertible`: the array would fit after a conversion.
Status mismatch(const TensorDesc& desc, const TensorView& view, const std::string& wanted, bool convertible) {
  return Status(Code::kFeedMismatch, "input '" + desc.name + "' takes " + wanted_text(desc) + ", " + wanted +
                                         "; it was given " + given_text(view) + ", " + std::to_string(view.bytes) + " bytes" +
                                         (convertible && view.dtype != desc.dtype ? convert_text(desc) : ""));
}

std::string bytes_text(const TensorDesc& desc, const Shape& shape) {
  std::size_t elements = 0;
  (void)count_elements(shape, &elements);
  return std::to_string(packed_bytes(desc.dtype, elements)) + " bytes";
}

bool same_count(const Shape& a, const Shape& b) {
  std::size_t of_a = 0;
  std::size_t of_b = 0;
  return count_elements(a, &of_a) && count_elements(b, &of_b) && of_a == of_b;
}

bool same_width(const TensorDesc& desc, const TensorView& view) { return dtype_bits(desc.dtype) == dtype_bits(view.dtype); }

bool is_flat(const TensorView& view) { return view.shape.size() == 1; }

bool is_raw(const TensorView& view) { return is_flat(view) && (view.dtype == DType::kUInt8 || view.dtype == DType::kInt8); }

bool bytes_match(const TensorDesc& desc, const Shape& shape, const TensorView& view) {
  std::size_t elements = 0;
  return count_elements(shape, &elements) && packed_bytes(desc.dtype, elements) == view.bytes;
}

bool agrees(const Shape& pattern, const Shape& shape) {
  return pattern.size() == shape.size() &&
         std::equal(pattern.begin(), pattern.end(), shape.begin(), [](auto want, auto got) { return want < 0 || want == got; });
}

// Computes the only open dimension from the number of bytes. Returns false if there are several, or it is not an integer.
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

// A picture that the device preprocesses (dynamic AIPP) has its own format and size, so its bytes do not determine the model's
// shape. An open dimension of the model is taken from the same axis of the picture.
Shape fit_picture(const TensorDesc& desc, const TensorView& view) {
  if (desc.shape == Shape{-1}) return {static_cast<std::int64_t>(view.bytes * 8 / dtype_bits(desc.dtype))};
  Shape shape = desc.shape;
  for (std::size_t i = 0; i < std::min(shape.size(), view.shape.size()); ++i) {
    if (shape[i] < 0) shape[i] = view.shape[i];
  }
  return shape;
}

struct Fit {
  Shape shape;
  bool computed = false;
};

// F2
Result<Fit> fit_fixed(const TensorDesc& desc, const TensorView& view) {
  if (bytes_match(desc, desc.shape, view)) return Fit{desc.shape, false};
  return mismatch(desc, view, bytes_text(desc, desc.shape), same_count(desc.shape, view.shape));
}

std::string dimensions_text(std::size_t count) { return std::to_string(count) + (count == 1 ? " dimension" : " dimensions"); }

// The error if neither the array's dimensions nor its number of bytes give the open dimensions.
Status wrong_size(const TensorDesc& desc, const TensorView& view) {
  const std::string rank = dimensions_text(desc.shape.size());
  const auto open = std::count_if(desc.shape.begin(), desc.shape.end(), [](auto dim) { return dim < 0; });
  Shape one = desc.shape;
  std::replace_if(one.begin(), one.end(), [](auto dim) { return dim < 0; }, 1);
  std::size_t unit = 0;
  std::string wanted = rank;
  if (open > 1) {
    wanted += ", because " + std::to_string(open) + " of them are open (-1), which a number of bytes does not decide";
  } else if (count_elements(one, &unit) && unit != 0) {
    wanted += ", or a multiple of " + bytes_text(desc, one);
  }
  const std::string advice =
      same_width(desc, view) && !is_raw(view) ? "reshape it to " : "pass x.view(" + numpy_type(desc.dtype) + ") with ";
  return Status(Code::kFeedMismatch, mismatch(desc, view, wanted, false).message() + "; " + advice + rank);
}

// Returns the shape with open dimensions from the same axes of the array. `skip`: dimensions of the model before the array's.
Shape own_dimensions(const TensorDesc& desc, const TensorView& view, std::size_t skip) {
  Shape shape = desc.shape;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) shape[i] = i < skip ? 1 : view.shape[i - skip];
  }
  return shape;
}

// F4
Result<Fit> fit_other_width(const TensorDesc& desc, const TensorView& view) {
  Shape shape = view.shape;
  shape.insert(shape.begin(), 1);
  const bool sample = agrees(desc.shape, shape);
  const bool whole = !desc.ranked || agrees(desc.shape, view.shape);
  if (whole || (sample && !is_raw(view))) {
    return mismatch(desc, view, bytes_text(desc, view.shape) + " with the given dimensions", true);
  }
  if (is_flat(view) && desc.shape.size() != 1 && solve_one(desc, view, &shape)) return Fit{std::move(shape), true};
  if (is_raw(view)) return wrong_size(desc, view);
  return mismatch(desc, view, "in elements of this type, because dimensions are open (-1)", true);
}

// F3
Result<Fit> fit_open(const TensorDesc& desc, const TensorView& view) {
  if (!same_width(desc, view)) return fit_other_width(desc, view);
  if (!desc.ranked || agrees(desc.shape, view.shape)) return Fit{view.shape, false};
  Shape shape = view.shape;
  shape.insert(shape.begin(), 1);
  if (agrees(desc.shape, shape)) return Fit{std::move(shape), false};
  const std::size_t rank = view.shape.size();
  if (rank == desc.shape.size() || (rank + 1 == desc.shape.size() && rank > 1)) {
    shape = own_dimensions(desc, view, desc.shape.size() - rank);  // in another order, as HWC for CHW
    if (bytes_match(desc, shape, view)) return Fit{std::move(shape), false};
    return mismatch(desc, view, shape_text(shape) + " with the given dimensions in place of -1, " + bytes_text(desc, shape),
                    false);
  }
  if (solve_one(desc, view, &shape)) return Fit{std::move(shape), true};
  return wrong_size(desc, view);
}

// F7
Status check_range(const TensorDesc& desc, const TensorView& view, const Shape& shape) {
  for (std::size_t i = 0; i < desc.least.size() && i < shape.size(); ++i) {
    const std::int64_t least = desc.least[i];
    const std::int64_t most = desc.most[i];
    if (shape[i] >= least && (most < 0 || shape[i] <= most)) continue;
    const std::string wanted = most < 0 ? "of at least " + std::to_string(least)
                                        : "of " + std::to_string(least) + (least == most ? "" : " to " + std::to_string(most));
    return Status(Code::kFeedMismatch,
                  "input '" + desc.name + "' takes " + wanted_text(desc) + " with dimension " + std::to_string(i) + " " +
                      wanted + ", for which the model was compiled; it was given " + given_text(view) +
                      (shape == view.shape ? "" : ", taken as " + shape_text(shape)) + "; " +
                      (shape[i] < least ? "pad" : "split") + " the input, or compile the model for such shapes");
  }
  return Status();
}

Status check_gear(const device::ModelInfo& info, Mode mode, const std::vector<Shape>& shapes) {
  const device::Gears& gears = info.gears;
  if (gears.kind == GearKind::kNone || mode == Mode::kShape) return Status();
  const char* wanted = device::gear_mode(gears.kind);
  if (mode != Mode::kStatic && std::string_view(wanted) != mode_name(mode)) {
    return Status(Code::kFeedMismatch, "the mode must be '" + std::string(wanted) + "' for a model with gears " +
                                           device::gears_text(gears) + ", got '" + mode_name(mode) + "'");
  }
  AIS_ASSIGN(const Shape gear, device::gear_of(gears.kind, info.inputs, shapes));
  if (std::find(gears.values.begin(), gears.values.end(), gear) != gears.values.end()) return Status();
  return device::no_such_gear(gears, gear);
}

}  // namespace

std::string numpy_type(DType dtype) { return (numpy_has(dtype) ? "np." : "ml_dtypes.") + std::string(dtype_name(dtype)); }

Status wrong_count(const device::ModelInfo& info, std::size_t given) {
  std::string names;
  for (const TensorDesc& desc : info.inputs) names += (names.empty() ? "'" : ", '") + desc.name + "'";
  return Status(Code::kFeedMismatch, "the model takes " + std::to_string(info.inputs.size()) + " input" +
                                         (info.inputs.size() == 1 ? "" : "s") + " (" + names + "); it was given " +
                                         std::to_string(given));
}

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

std::string note_text(const Note& note, const TensorDesc& desc, const TensorView& view, const Shape& shape) {
  if (note.kind == Note::kType) {
    return "input '" + desc.name + "' takes " + std::string(dtype_name(desc.dtype)) + " and was given " +
           std::string(dtype_name(view.dtype)) + "; its bytes are used as they are, nothing is converted; pass x.astype(" +
           numpy_type(desc.dtype) + ") if that is not meant";
  }
  return "input '" + desc.name + "' takes " + wanted_text(desc) + " and was given " + given_text(view) +
         "; by its size it was taken to be " + shape_text(shape) + "; pass an array of that shape and type to say so";
}

bool fits_as_declared(const device::ModelInfo& info, const std::vector<TensorView>& feeds) {
  if (feeds.size() != info.inputs.size() || info.gears.kind != GearKind::kNone || !info.aipp_inputs.empty()) return false;
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    const TensorDesc& desc = info.inputs[i];
    const TensorView& view = feeds[i];
    if (view.absent() || desc.open() || !desc.least.empty() || view.dtype != desc.dtype || view.shape != desc.shape)
      return false;
  }
  return true;
}

Result<std::vector<Shape>> fit_all(const device::ModelInfo& info, Mode mode, const std::vector<Shape>* pattern,
                                   const std::vector<TensorView>& feeds, std::vector<Note>* notes) {
  const std::size_t inputs = info.inputs.size();
  if (feeds.size() != inputs && feeds.size() != inputs + info.overridable.size()) return wrong_count(info, feeds.size());
  std::vector<Shape> shapes;
  shapes.reserve(feeds.size());
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    const TensorDesc* desc = &info.fed(i);
    if (feeds[i].absent()) {
      if (!desc->optional) return Status(Code::kFeedMismatch, "input '" + desc->name + "' is missing");
      shapes.emplace_back();
      continue;
    }
    TensorDesc set;
    if (pattern != nullptr && i < inputs) {
      set = *desc;
      set.shape = (*pattern)[i];
      set.ranked = set.ranked || !set.shape.empty();
      desc = &set;
    }
    const bool other_type = desc->dtype != feeds[i].dtype;
    if (std::find(info.aipp_inputs.begin(), info.aipp_inputs.end(), i) != info.aipp_inputs.end()) {
      shapes.push_back(fit_picture(*desc, feeds[i]));
      if (other_type && same_width(*desc, feeds[i])) notes->push_back({i, Note::kType});
      continue;
    }
    AIS_ASSIGN(Fit fitted, desc->open() ? fit_open(*desc, feeds[i]) : fit_fixed(*desc, feeds[i]));
    AIS_TRY(check_range(*desc, feeds[i], fitted.shape));
    if (fitted.computed) notes->push_back({i, Note::kComputed});
    if (other_type && (same_width(*desc, feeds[i]) || !is_raw(feeds[i]))) notes->push_back({i, Note::kType});
    shapes.push_back(std::move(fitted.shape));
  }
  AIS_TRY(check_gear(info, mode, shapes));
  return shapes;
}

}  // namespace ais::session
