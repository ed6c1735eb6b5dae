// The emulator's compiled model: what `python -m ais_bench.emulator pack` writes and aclmdlLoadFromFile reads.
//
//   offset  bytes
//        0      8  "AISEMUOM"                               the magic; the content of a file selects the `acl` runtime by it
//        8      4  version, little endian: 1, or 2 where the graph's weights are in files of their own
//       12      4  reserved, 0
//       16      8  D: bytes of the description
//       24      8  G: bytes of the graph
//       32      D  description, JSON in UTF-8 (below)
//     32+D      G  an ONNX model, whole (no external data), but for the bytes in "weights"
//
// A file of another length than 32 + D + G is refused. The description:
//   {"soc": "Ascend310P3", "name": "resnet",
//    "inputs":  [{"name", "dtype", "format", "shape": [..-1..], "range": [[min, max]..], "graph_dtype"}, ...],
//    "outputs": [{"name", "dtype", "format", "shapes": [[dims of gear 0], ...], "largest": [..]}, ...],
//    "gears":   {"kind": "none" | "batch" | "hw" | "dims" | "shape", "values": [[..]..], "order": [input..]},
//    "aipp":    [{"input": index, "mode": "static" | "dynamic", ...the settings of ATC's configuration}, ...],
//    "weights": [{"file": name in the folder `weight`, "at": where its bytes belong in the whole graph, "bytes"}, ...]}
// dtype and format are AscendCL's numbers. A dimension -1 varies; in an output it is known only after a run. "shapes" has one
// entry a gear, and one where there are no gears; "largest" is there when every range is bounded. max -1 is open. "values" has
// one list a gear: {n}, {h, w}, or a value for every dynamic dimension in "order", which lists the inputs as ATC's
// --input-shape did. With AIPP "shape" and "graph_dtype" are the graph's.
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
  int dtype = 0;        // what the program feeds
  int graph_dtype = 0;  // what the graph takes; another one with AIPP
  int format = 2;
  Shape shape;           // of the graph
  Shape fed_shape;       // what GetInputDims reports: the picture with static AIPP
  Shape physical_shape;  // what GetInputDimsV2 reports
  std::vector<std::array<std::int64_t, 2>> range;
  std::size_t bytes = 0;  // what GetInputSizeByIndex reports
  int aipp = -1;          // index into ModelSpec::aipp
};

struct OutputSpec {
  std::string name;
  int dtype = 0;
  int format = 2;
  std::vector<Shape> shapes;  // one a gear
  std::size_t bytes = 0;      // of the largest gear, or of the largest shape of a bounded range; 0 when not known before a run
};

// A piece of the graph that is a file of its own. Several may be the same file.
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
  std::string graph;                 // the ONNX bytes, without the pieces
  std::vector<WeightPiece> weights;  // in the order of their places

  std::size_t data_inputs() const;
  bool has_gears() const { return gears != GearKind::kNone && gears != GearKind::kOpenShape; }
  // The gear whose outputs are the largest, and its number of elements over all dynamic dimensions.
  std::size_t largest_gear() const;
  // The shape of data input `index` in gear `gear` (ignored where there are no gears).
  Shape input_shape(std::size_t index, std::size_t gear) const;
  // The dims of all data inputs one after the other, in gear_order: what GetInputDynamicDims reports.
  Shape gear_dims(std::size_t gear) const;
  std::size_t work_bytes() const;
};

// Bytes of one element as aclDataTypeSize reports them.
std::size_t dtype_bytes(int dtype);
// Bytes of a whole shape; 0 when it has dynamic dimensions.
std::size_t shape_bytes(int dtype, const Shape& shape);

// A status with kModelLoad (not a container, truncated) or kUnsupported (a model compiled by ATC, or for another SoC's format).
Result<std::shared_ptr<const ModelSpec>> parse_container(const void* data, std::size_t size);

}  // namespace ais::emulator
