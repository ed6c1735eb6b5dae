// Do these inputs fit this model, and which shapes do they have? The one place that decides; docs/feeds.md has it as a table.
//
// F1  Nothing is converted. An input's bytes are read as the model's element type.
// F2  Where the model's shape is fixed only the number of bytes is compared: a picture may come as HWC or without its batch.
// F3  Where the model leaves dimensions open, an array of elements as wide as the model's is taken at its word: its own
//     dimensions are used, or a batch of 1 is put in front. Only an array of quite another rank (flat data, mostly) has its one
//     open dimension computed from its size.
// F4  An array of elements of another width has no word to be taken at. Flat data (raw bytes, or what np.frombuffer made of
// them)
//     has the one open dimension computed from its bytes; anything else is refused, and told how to convert.
// F5  Nothing is guessed in silence: a dimension that was computed, and a type that is not the model's, are noted, unless the
//     input is raw bytes (flat uint8 or int8) for a fixed shape.
// F6  What is optional may be absent: an input of an optional type, and what would take the place of a constant.
// F7  Where the runtime tells which dimensions a model was compiled for, others are refused before the run.
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

// What an input was taken for, beyond what it says of itself.
struct Note {
  enum Kind { kType, kComputed };  // its element type is not the model's; a dimension was computed from its size
  std::size_t input;
  Kind kind;
};
// Input, kind, type and rank given: a note with the same is not told again.
using NoteKey = std::tuple<std::size_t, int, DType, std::size_t>;
// How numpy spells a type: "np.float32", "ml_dtypes.bfloat16".
std::string numpy_type(DType dtype);
// The error of another number of feeds than the model takes.
Status wrong_count(const device::ModelInfo& info, std::size_t given);
std::string note_text(const Note& note, const device::TensorDesc& desc, const TensorView& view, const Shape& shape);

// All inputs at once: the number of feeds (those of ModelInfo::fed, with or without the overridable), the exact shape of each,
// and the gears. `pattern` stands in for the shapes of info.inputs when the caller has set some (see setting.hpp); nullptr
// otherwise. FeedMismatch names the input, both byte sizes and both shapes.
Result<std::vector<Shape>> fit_all(const device::ModelInfo& info, Mode mode, const std::vector<Shape>* pattern,
                                   const std::vector<TensorView>& feeds, std::vector<Note>* notes);

}  // namespace ais::session
