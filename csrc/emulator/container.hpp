// The emulator's compiled model: `python -m ais_bench.emulator pack` writes it, aclmdlLoadFromFile reads it.
//
//   offset  bytes
//        0      8  "AISEMUOM"                               the magic, by which a file's content selects the `acl` runtime
//        8      4  version, little endian: 1, or 2 if the graph's weights are in separate files
//       12      4  reserved, 0
//       16      8  D: bytes of the description
//       24      8  G: bytes of the graph
//       32      D  description, JSON in UTF-8 (below)
//     32+D      G  a complete ONNX model (no external data), without the bytes in "weights"
//
// The file's length must be 32 + D + G. The description:
//   {"soc": "Ascend310P3", "name": "resnet",
//    "inputs":  [{"name", "dtype", "format", "shape": [..-1..], "range": [[min, max]..], "graph_dtype"}, ...],
//    "outputs": [{"name", "dtype", "format", "shapes": [[dims of gear 0], ...], "largest": [..]}, ...],
//    "gears":   {"kind": "none" | "batch" | "hw" | "dims" | "shape", "values": [[..]..], "order": [input..]},
//    "aipp":    [{"input": index, "mode": "static" | "dynamic", ...the settings of ATC's configuration}, ...],
//    "weights": [{"file": name in the folder `weight`, "at": offset of its bytes in the whole graph, "bytes"}, ...]}
// dtype and format are AscendCL's numbers. A dimension -1 varies; in an output it is known only after a run. "shapes" has one
// entry for each gear, or one entry without gears. "largest" exists if every range is bounded; max -1 is unbounded. "values"
// has one list for each gear: {n}, {h, w}, or a value for every dynamic dimension in "order", which lists the inputs in the
// order of ATC's --input-shape. With AIPP, "shape" and "graph_dtype" are the graph's.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"
#include "emulator/aipp.hpp"

namespace ais::emulator {

constexpr char kContainerMagic[] = "AISEMUOM";
constexpr std::size_t kContainerHeader = 32;

enum class GearKind { kNone, kBatch, kImageSize, kDims, kOpenShape };
enum class InputRole { kData, kAippParameters, kGearIndex };

struct InputSpec {
  InputRole role = InputRole::kData;
  std::string name;
  int dtype = 0;        // the type that the program feeds
  int graph_dtype = 0;  // the type that the graph takes; with AIPP it may differ
  int format = 2;
  Shape shape;           // of the graph
  Shape fed_shape;       // GetInputDims reports it: with static AIPP the picture's shape
  Shape physical_shape;  // GetInputDimsV2 reports it
  std::vector<std::array<std::int64_t, 2>> range;
  std::size_t bytes = 0;  // GetInputSizeByIndex reports it
  int aipp = -1;          // index into ModelSpec::aipp
};

struct OutputSpec {
  std::string name;
  int dtype = 0;
  int format = 2;
  std::vector<Shape> shapes;  // one for each gear
  std::size_t bytes = 0;      // of the largest gear, or the largest shape of a bounded range; 0 if unknown before a run
};

// A part of the graph that is in a separate file. Several parts may be in the same file.
struct WeightPiece {
  std::string file;
  std::size_t at = 0;
  std::size_t bytes = 0;
};

struct ModelSpec {
  std::string name;
  std::string soc;
  std::vector<InputSpec> inputs;  // data inputs in the graph's order, then AIPP parameters, then the gear index
  std::vector<OutputSpec> outputs;
  GearKind gears = GearKind::kNone;
  std::vector<Shape> gear_values;
  std::vector<int> gear_order;
  std::vector<AippSpec> aipp;
  std::string graph;                 // the ONNX bytes, without these parts
  std::vector<WeightPiece> weights;  // in the order of their offsets

  std::size_t data_inputs() const;
  bool has_gears() const { return gears != GearKind::kNone && gears != GearKind::kOpenShape; }
  // Returns the gear with the largest outputs.
  std::size_t largest_gear() const;
  // Returns the shape of data input `index` in gear `gear` (ignored without gears).
  Shape input_shape(std::size_t index, std::size_t gear) const;
  // Returns the dims of all data inputs, concatenated in gear_order, as GetInputDynamicDims reports them.
  Shape gear_dims(std::size_t gear) const;
  std::size_t work_bytes() const;
};

// Returns the bytes of one element, as aclDataTypeSize reports them.
std::size_t dtype_bytes(int dtype);
// Returns the bytes of a shape; 0 if it has dynamic dimensions.
std::size_t shape_bytes(int dtype, const Shape& shape);

// Errors: kModelLoad (not a container, truncated), kUnsupported (a model compiled by ATC, or another SoC's format).
Result<std::shared_ptr<const ModelSpec>> parse_container(const void* data, std::size_t size);

}  // namespace ais::emulator
