// AIPP: the picture preprocessing in front of a model's input.
//
// Order: swap channels -> crop -> colour space conversion -> (x - mean - min) * varReci -> padding (with zeros). Resizing (scf)
// is not emulated and is refused.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "base/tensor.hpp"
#include "emulator/json.hpp"

namespace ais::emulator {

// The settings that may differ between the pictures of one batch.
struct AippPicture {
  bool crop = false;
  int crop_x = 0, crop_y = 0, crop_w = 0, crop_h = 0;
  bool padding = false;
  int top = 0, bottom = 0, left = 0, right = 0;
  std::array<std::int16_t, 4> mean{};
  std::array<float, 4> min{};
  std::array<float, 4> var_reci{1, 1, 1, 1};
};

struct AippParameters {
  int format = 0;  // aclAippInputFormat, 0 when not set
  int width = 0, height = 0;
  bool swap_rb_uv = false;
  bool swap_alpha = false;
  bool csc = false;
  std::array<std::int16_t, 9> matrix{};
  std::array<std::uint8_t, 3> output_bias{}, input_bias{};
  std::vector<AippPicture> pictures;
};

struct AippSpec {
  int input = 0;
  bool dynamic = false;
  std::size_t max_bytes = 0;  // dynamic: of the picture input
  AippParameters fixed;       // static; one entry in `pictures`, used for every element of the batch
};

Result<AippSpec> parse_aipp(const Json& description);

// Returns the bytes of one picture; 0 for a format that is not emulated.
std::size_t picture_bytes(int format, int width, int height);
// Returns a picture's dimensions before AIPP, as GetInputDims (NHWC) and GetInputDimsV2 (`physical`) report them.
Shape picture_dims(int format, std::int64_t batch, int width, int height, bool physical);

// The largest size of the parameters of `batch` pictures on the device; the functions below write and read them.
std::size_t aipp_data_size(std::uint64_t batch);
void store_parameters(const AippParameters& parameters, void* to);
Result<AippParameters> load_parameters(const void* from, std::size_t size);

// Checks all settings together: the crop must lie in the source, and the result must have the size of the model's input.
Status check_parameters(const AippParameters& parameters, std::int64_t batch, std::int64_t model_w, std::int64_t model_h);

// Converts `batch` consecutive pictures to a tensor of shape {batch, channels, h, w} and type `graph_dtype` (float32, float16
// or uint8). `parameters` must have passed check_parameters.
Status run_aipp(const AippParameters& parameters, const std::uint8_t* pictures, int graph_dtype, const Shape& shape, void* out);

}  // namespace ais::emulator
