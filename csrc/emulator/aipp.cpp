// AIPP settings: reads them from JSON, copies them to and from the device, and checks them. aipp_run.cpp does the arithmetic.
#include "emulator/aipp.hpp"

#include <cstring>

#include "emulator/acl_types.hpp"

namespace ais::emulator {
namespace {

constexpr std::uint32_t kMagic = 0x50504941;  // "AIPP": without it, aclmdlSetInputAIPP has not filled the buffer

// The form on the device: a header, and one record for each picture. Only this file and the emulated device read it.
struct StoredHeader {
  std::uint32_t magic;
  std::int32_t format, width, height, pictures;
  std::uint8_t swap_rb_uv, swap_alpha, csc;
  std::int16_t matrix[9];
  std::uint8_t output_bias[3], input_bias[3];
  std::uint8_t reserved[14];
};
struct StoredPicture {
  std::int32_t crop, crop_x, crop_y, crop_w, crop_h;
  std::int32_t padding, top, bottom, left, right;
  std::int16_t mean[4];
  float min[4], var_reci[4];
};
static_assert(sizeof(StoredHeader) == 64 && sizeof(StoredPicture) == 80);

const char* const kFormats[] = {"", "YUV420SP_U8", "XRGB8888_U8", "RGB888_U8", "YUV400_U8"};

int integer(const Json& json, const std::string& key, int fallback) {
  const Json* value = json.find(key);
  return value == nullptr ? fallback : static_cast<int>(value->integer());
}

double real(const Json& json, const std::string& key, double fallback) {
  const Json* value = json.find(key);
  return value == nullptr ? fallback : value->number;
}

void read_csc(const Json& json, AippParameters* out) {
  out->csc = integer(json, "csc_switch", 0) != 0;
  for (int i = 0; i < 9; ++i) {
    const std::string place = std::to_string(i / 3) + "c" + std::to_string(i % 3);
    out->matrix[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(integer(json, "matrix_r" + place, 0));
  }
  for (std::size_t i = 0; i < 3; ++i) {
    out->output_bias[i] = static_cast<std::uint8_t>(integer(json, "output_bias_" + std::to_string(i), 0));
    out->input_bias[i] = static_cast<std::uint8_t>(integer(json, "input_bias_" + std::to_string(i), 0));
  }
}

AippPicture read_picture(const Json& json) {
  AippPicture picture;
  picture.crop = integer(json, "crop", 0) != 0;
  picture.crop_x = integer(json, "load_start_pos_w", 0);
  picture.crop_y = integer(json, "load_start_pos_h", 0);
  picture.crop_w = integer(json, "crop_size_w", 0);
  picture.crop_h = integer(json, "crop_size_h", 0);
  picture.padding = integer(json, "padding", 0) != 0;
  picture.top = integer(json, "top_padding_size", 0);
  picture.bottom = integer(json, "bottom_padding_size", 0);
  picture.left = integer(json, "left_padding_size", 0);
  picture.right = integer(json, "right_padding_size", 0);
  for (std::size_t i = 0; i < 4; ++i) {
    const std::string channel = std::to_string(i);
    picture.mean[i] = static_cast<std::int16_t>(integer(json, "mean_chn_" + channel, 0));
    picture.min[i] = static_cast<float>(real(json, "min_chn_" + channel, 0));
    picture.var_reci[i] = static_cast<float>(real(json, "var_reci_chn_" + channel, 1));
  }
  return picture;
}

Status wrong(const std::string& what) { return Status(Code::kInvalidArgument, "AIPP: " + what); }

std::string size_text(std::int64_t width, std::int64_t height) { return std::to_string(width) + "x" + std::to_string(height); }

}  // namespace

Result<AippSpec> parse_aipp(const Json& json) {
  AippSpec spec;
  spec.input = integer(json, "input", -1);
  spec.dynamic = json.at("mode").text == "dynamic";
  if (spec.dynamic) {
    spec.max_bytes = static_cast<std::size_t>(json.at("max_src_image_size").integer());
    return spec.max_bytes > 0 ? Result<AippSpec>(spec) : wrong("max_src_image_size is missing");
  }
  for (int format = 1; format <= 4; ++format) {
    if (json.at("input_format").text == kFormats[format]) spec.fixed.format = format;
  }
  if (spec.fixed.format == 0) return wrong("input_format '" + json.at("input_format").text + "' is not emulated");
  spec.fixed.width = integer(json, "src_image_size_w", 0);
  spec.fixed.height = integer(json, "src_image_size_h", 0);
  spec.fixed.swap_rb_uv = integer(json, "rbuv_swap_switch", 0) != 0;
  spec.fixed.swap_alpha = integer(json, "ax_swap_switch", 0) != 0;
  read_csc(json, &spec.fixed);
  spec.fixed.pictures = {read_picture(json)};
  return spec;
}

std::size_t picture_bytes(int format, int width, int height) {
  const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  switch (format) {
    case ACL_YUV420SP_U8:
      return pixels * 3 / 2;
    case ACL_XRGB8888_U8:
      return pixels * 4;
    case ACL_RGB888_U8:
      return pixels * 3;
    case ACL_YUV400_U8:
      return pixels;
    default:
      return 0;
  }
}

Shape picture_dims(int format, std::int64_t batch, int width, int height, bool physical) {
  switch (format) {
    case ACL_YUV420SP_U8:
      return physical ? Shape{batch, height * 3 / 2, width, 1} : Shape{batch, height, width, 3};
    case ACL_XRGB8888_U8:
      return {batch, height, width, physical ? 4 : 3};
    case ACL_YUV400_U8:
      return {batch, height, width, 1};
    default:
      return {batch, height, width, 3};
  }
}

std::size_t aipp_data_size(std::uint64_t batch) { return sizeof(StoredHeader) + batch * sizeof(StoredPicture); }

void store_parameters(const AippParameters& from, void* to) {
  StoredHeader header = {};
  header.magic = kMagic;
  header.format = from.format;
  header.width = from.width;
  header.height = from.height;
  header.pictures = static_cast<std::int32_t>(from.pictures.size());
  header.swap_rb_uv = from.swap_rb_uv;
  header.swap_alpha = from.swap_alpha;
  header.csc = from.csc;
  std::memcpy(header.matrix, from.matrix.data(), sizeof(header.matrix));
  std::memcpy(header.output_bias, from.output_bias.data(), 3);
  std::memcpy(header.input_bias, from.input_bias.data(), 3);
  std::memcpy(to, &header, sizeof(header));
  auto* records = static_cast<char*>(to) + sizeof(header);
  for (const AippPicture& picture : from.pictures) {
    StoredPicture record = {picture.crop,
                            picture.crop_x,
                            picture.crop_y,
                            picture.crop_w,
                            picture.crop_h,
                            picture.padding,
                            picture.top,
                            picture.bottom,
                            picture.left,
                            picture.right,
                            {},
                            {},
                            {}};
    std::memcpy(record.mean, picture.mean.data(), sizeof(record.mean));
    std::memcpy(record.min, picture.min.data(), sizeof(record.min));
    std::memcpy(record.var_reci, picture.var_reci.data(), sizeof(record.var_reci));
    std::memcpy(records, &record, sizeof(record));
    records += sizeof(record);
  }
}

Result<AippParameters> load_parameters(const void* from, std::size_t size) {
  StoredHeader header;
  if (size < sizeof(header)) return wrong("the parameter buffer is too small");
  std::memcpy(&header, from, sizeof(header));
  if (header.magic != kMagic) return wrong("the parameter buffer was not filled by aclmdlSetInputAIPP");
  const auto count = static_cast<std::size_t>(header.pictures);
  if (header.pictures < 1 || size < aipp_data_size(count)) return wrong("the parameter buffer is damaged");
  AippParameters out;
  out.format = header.format;
  out.width = header.width;
  out.height = header.height;
  out.swap_rb_uv = header.swap_rb_uv != 0;
  out.swap_alpha = header.swap_alpha != 0;
  out.csc = header.csc != 0;
  std::memcpy(out.matrix.data(), header.matrix, sizeof(header.matrix));
  std::memcpy(out.output_bias.data(), header.output_bias, 3);
  std::memcpy(out.input_bias.data(), header.input_bias, 3);
  const auto* records = static_cast<const char*>(from) + sizeof(header);
  for (std::size_t i = 0; i < count; ++i, records += sizeof(StoredPicture)) {
    StoredPicture record;
    std::memcpy(&record, records, sizeof(record));
    AippPicture picture;
    picture.crop = record.crop != 0;
    picture.crop_x = record.crop_x;
    picture.crop_y = record.crop_y;
    picture.crop_w = record.crop_w;
    picture.crop_h = record.crop_h;
    picture.padding = record.padding != 0;
    picture.top = record.top;
    picture.bottom = record.bottom;
    picture.left = record.left;
    picture.right = record.right;
    std::memcpy(picture.mean.data(), record.mean, sizeof(record.mean));
    std::memcpy(picture.min.data(), record.min, sizeof(record.min));
    std::memcpy(picture.var_reci.data(), record.var_reci, sizeof(record.var_reci));
    out.pictures.push_back(picture);
  }
  return out;
}

Status check_parameters(const AippParameters& parameters, std::int64_t batch, std::int64_t model_w, std::int64_t model_h) {
  if (parameters.format == 0) return wrong("the input format was not set");
  if (parameters.width <= 0 || parameters.height <= 0) return wrong("the source image size was not set");
  if (static_cast<std::int64_t>(parameters.pictures.size()) < batch && parameters.pictures.size() != 1) {
    return wrong("there are settings for " + std::to_string(parameters.pictures.size()) + " pictures, the batch has " +
                 std::to_string(batch));
  }
  for (const AippPicture& picture : parameters.pictures) {
    for (const int value : {picture.crop_x, picture.crop_y, picture.crop_w, picture.crop_h, picture.top, picture.bottom,
                            picture.left, picture.right}) {
      if (value < 0 || value > 4096) return wrong("a crop or a padding is negative or too large");
    }
    if (picture.crop &&
        (picture.crop_x + picture.crop_w > parameters.width || picture.crop_y + picture.crop_h > parameters.height)) {
      return wrong("the crop does not lie within the source image of " + size_text(parameters.width, parameters.height));
    }
    const std::int64_t width =
        (picture.crop ? picture.crop_w : parameters.width) + (picture.padding ? picture.left + picture.right : 0);
    const std::int64_t height =
        (picture.crop ? picture.crop_h : parameters.height) + (picture.padding ? picture.top + picture.bottom : 0);
    if (width != model_w || height != model_h) {
      return wrong("the picture comes out as " + size_text(width, height) + ", the model takes " + size_text(model_w, model_h));
    }
  }
  return Status();
}

}  // namespace ais::emulator
