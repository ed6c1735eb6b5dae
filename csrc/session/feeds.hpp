// Decides whether inputs fit a model, and which shapes they have. No other code decides this; docs/feeds.md has the table.
//
// F1  Nothing is converted. An input's bytes are read as the model's element type.
// F2  If the model's shape is fixed, only the number of bytes is compared: a picture may be HWC or have no batch dimension.
// F3  If the model leaves dimensions open and the array's elements have the size of the model's, the array's own dimensions are
//     used, or a batch of 1 is added in front. Only for an array of another rank (usually flat data) the open dimension is
//     computed from its size.
// F4  If the array's elements have another size, its shape says nothing about the model's elements. For flat data (raw bytes,
//     or an array of np.frombuffer) the open dimension is computed from its bytes. Any other array is refused, and the error
//     shows how to convert it.
// F5  Nothing is guessed silently: a computed dimension, and a type that is not the model's, are noted, unless the input is raw
//     bytes (flat uint8 or int8) for a fixed shape.
// F6  Optional values may be absent: an input of an optional type, and a new value for a constant.
// F7  If the runtime reports the dimensions for which a model was compiled, others are refused before the run.
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"
#include "device/device.hpp"

namespace ais::session {

// The API's five words for how a model's shapes vary.
enum class Mode { kStatic, kBatch, kImageSize, kDims, kShape };
Result<Mode> parse_mode(std::string_view text);
const char* mode_name(Mode mode);

// How an input was read, if that differs from its own type or shape.
struct Note {
  enum NoteKind { kType, kComputed };  // its element type is not the model's; a dimension was computed from its size
  std::size_t input;
  NoteKind kind;
};
// Input, kind, type and rank of a feed: a note with the same key is not reported again.
using NoteKey = std::tuple<std::size_t, int, DType, std::size_t>;
// How numpy spells a type: "np.float32", "ml_dtypes.bfloat16".
std::string numpy_type(DType dtype);
// Returns the error for a wrong number of feeds.
Status wrong_count(const device::ModelInfo& info, std::size_t given);
std::string note_text(const Note& note, const device::TensorDesc& desc, const TensorView& view, const Shape& shape);

// Checks all inputs: the number of feeds (those of ModelInfo::fed, with or without the overridable ones), the exact shape of
// each, and the gears. If the caller has set shapes (see setting.hpp), `pattern` replaces the shapes of info.inputs; otherwise
// it is nullptr. FeedMismatch names the input, both byte sizes and both shapes.
Result<std::vector<Shape>> fit_all(const device::ModelInfo& info, Mode mode, const std::vector<Shape>* pattern,
                                   const std::vector<TensorView>& feeds, std::vector<Note>* notes);
// Whether fit_all without a pattern would return the feeds' own shapes, and no notes, because the model declares exactly their
// types and shapes. False: fit_all decides. It allocates no memory.
bool fits_as_declared(const device::ModelInfo& info, const std::vector<TensorView>& feeds);

}  // namespace ais::session
