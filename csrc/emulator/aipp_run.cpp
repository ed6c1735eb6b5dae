// The arithmetic of AIPP, pixel by pixel. The code is simple, not fast.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "emulator/acl_types.hpp"
#include "emulator/aipp.hpp"
#include "emulator/container.hpp"
#include "emulator/float16.hpp"

namespace ais::emulator {
namespace {

struct Pixel {
  std::array<int, 3> channels{};
};

// Returns a pixel of a picture as its format stores it: R, G, B or Y, U, V or only Y.
Pixel read_pixel(const AippParameters& parameters, const std::uint8_t* picture, int x, int y) {
  const auto at = static_cast<std::size_t>(y) * static_cast<std::size_t>(parameters.width) + static_cast<std::size_t>(x);
  Pixel pixel;
  auto& c = pixel.channels;
  switch (parameters.format) {
    case ACL_YUV420SP_U8: {
      const std::size_t plane = static_cast<std::size_t>(parameters.width) * static_cast<std::size_t>(parameters.height);
      const std::size_t pair = plane + static_cast<std::size_t>(y / 2) * static_cast<std::size_t>(parameters.width) +
                               static_cast<std::size_t>(x / 2 * 2);
      c = {picture[at], picture[pair], picture[pair + 1]};
      if (parameters.swap_rb_uv) std::swap(c[1], c[2]);
      return pixel;
    }
    case ACL_XRGB8888_U8: {
      const std::uint8_t* first =
          picture + at * 4 + (parameters.swap_alpha ? 1 : 0);  // the switch moves X from the end to the front
      c = {first[0], first[1], first[2]};
      break;
    }
    case ACL_RGB888_U8:
      c = {picture[at * 3], picture[at * 3 + 1], picture[at * 3 + 2]};
      break;
    default:
      c = {picture[at], 0, 0};
      return pixel;
  }
  if (parameters.swap_rb_uv) std::swap(c[0], c[2]);
  return pixel;
}

Pixel convert(const AippParameters& parameters, const Pixel& in) {
  if (!parameters.csc) return in;
  Pixel out;
  for (std::size_t row = 0; row < 3; ++row) {
    int sum = 0;
    for (std::size_t column = 0; column < 3; ++column) {
      sum += parameters.matrix[row * 3 + column] * (in.channels[column] - parameters.input_bias[column]);
    }
    out.channels[row] = std::clamp(((sum + 128) >> 8) + parameters.output_bias[row], 0, 255);
  }
  return out;
}

void write_element(int dtype, void* out, std::size_t at, float value) {
  if (dtype == ACL_FLOAT) {
    static_cast<float*>(out)[at] = value;
  } else if (dtype == ACL_FLOAT16) {
    static_cast<std::uint16_t*>(out)[at] = float_to_half(value);
  } else {
    static_cast<std::uint8_t*>(out)[at] = static_cast<std::uint8_t>(std::clamp(std::lround(value), 0L, 255L));
  }
}

}  // namespace

Status run_aipp(const AippParameters& parameters, const std::uint8_t* pictures, int graph_dtype, const Shape& shape,
                void* out) {
  if (graph_dtype != ACL_FLOAT && graph_dtype != ACL_FLOAT16 && graph_dtype != ACL_UINT8) {
    return Status(Code::kUnsupported, "AIPP in front of an input that is neither float32, float16 nor uint8 is not emulated");
  }
  std::memset(out, 0, shape_bytes(graph_dtype, shape));
  const std::size_t one = picture_bytes(parameters.format, parameters.width, parameters.height);
  const std::int64_t channels = std::min<std::int64_t>(shape[1], 3);
  for (std::int64_t n = 0; n < shape[0]; ++n) {
    const AippPicture& picture = parameters.pictures[std::min(static_cast<std::size_t>(n), parameters.pictures.size() - 1)];
    const int left = picture.padding ? picture.left : 0;
    const int top = picture.padding ? picture.top : 0;
    const int x0 = picture.crop ? picture.crop_x : 0;
    const int y0 = picture.crop ? picture.crop_y : 0;
    const int width = picture.crop ? picture.crop_w : parameters.width;
    const int height = picture.crop ? picture.crop_h : parameters.height;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const Pixel pixel =
            convert(parameters, read_pixel(parameters, pictures + static_cast<std::size_t>(n) * one, x0 + x, y0 + y));
        for (std::int64_t c = 0; c < channels; ++c) {
          const auto i = static_cast<std::size_t>(c);
          const float value = (static_cast<float>(pixel.channels[i] - picture.mean[i]) - picture.min[i]) * picture.var_reci[i];
          const std::int64_t at = ((n * shape[1] + c) * shape[2] + top + y) * shape[3] + left + x;
          write_element(graph_dtype, out, static_cast<std::size_t>(at), value);
        }
      }
    }
  }
  return Status();
}

}  // namespace ais::emulator
