// Converts settings of dynamic AIPP to AscendCL's object, and computes the bytes of pictures that they need.
#include "device/acl/acl_loaded.hpp"

namespace ais::acl {
namespace {

Status check_counts(const device::Aipp& s) {
  const struct {
    const char* name;
    std::size_t given;
    std::size_t wanted;
  } lists[] = {{"csc", s.csc.size(), 16},           {"crop", s.crop.size(), 5}, {"resize", s.resize.size(), 5},
               {"padding", s.padding.size(), 5},    {"mean", s.mean.size(), 4}, {"min", s.min.size(), 4},
               {"var_reci", s.reciprocal.size(), 4}};
  for (const auto& list : lists) {
    if (list.given == 0 || list.given == list.wanted) continue;
    return Status(Code::kInvalidArgument, std::string("AIPP: ") + list.name + " must have " + std::to_string(list.wanted) +
                                              " values, got " + std::to_string(list.given));
  }
  return Status();
}

Status fill_picture(const AclApi& api, const device::Aipp& s, std::uint64_t i, aclmdlAIPP* aipp) {
  if (!s.crop.empty())
    AIS_TRY(ACL_CALL(api, aclmdlSetAIPPCropParams, aipp, static_cast<std::int8_t>(s.crop[0]), s.crop[1], s.crop[2], s.crop[3],
                     s.crop[4], i));
  if (!s.resize.empty()) {
    AIS_TRY(ACL_CALL(api, aclmdlSetAIPPScfParams, aipp, static_cast<std::int8_t>(s.resize[0]), s.resize[1], s.resize[2],
                     s.resize[3], s.resize[4], i));
  }
  if (!s.padding.empty()) {
    AIS_TRY(ACL_CALL(api, aclmdlSetAIPPPaddingParams, aipp, static_cast<std::int8_t>(s.padding[0]), s.padding[1], s.padding[2],
                     s.padding[3], s.padding[4], i));
  }
  const auto mean = [&](int channel) { return static_cast<std::int16_t>(s.mean[channel]); };
  if (!s.mean.empty()) AIS_TRY(ACL_CALL(api, aclmdlSetAIPPDtcPixelMean, aipp, mean(0), mean(1), mean(2), mean(3), i));
  if (!s.min.empty()) AIS_TRY(ACL_CALL(api, aclmdlSetAIPPDtcPixelMin, aipp, s.min[0], s.min[1], s.min[2], s.min[3], i));
  // By the documentation the default of a reciprocal is 1. It is set in any case, because 0 would make the picture black.
  const std::vector<float> r = s.reciprocal.empty() ? std::vector<float>(4, 1.0F) : s.reciprocal;
  return ACL_CALL(api, aclmdlSetAIPPPixelVarReci, aipp, r[0], r[1], r[2], r[3], i);
}

Status fill_csc(const AclApi& api, const std::vector<int>& v, aclmdlAIPP* aipp) {
  const auto m = [&](int i) { return static_cast<std::int16_t>(v[1 + i]); };
  const auto bias = [&](int i) { return static_cast<std::uint8_t>(v[10 + i]); };
  return ACL_CALL(api, aclmdlSetAIPPCscParams, aipp, static_cast<std::int8_t>(v[0]), m(0), m(1), m(2), m(3), m(4), m(5), m(6),
                  m(7), m(8), bias(0), bias(1), bias(2), bias(3), bias(4), bias(5));
}

Status fill(const AclApi& api, const device::Aipp& s, aclmdlAIPP* aipp) {
  AIS_TRY(ACL_CALL(api, aclmdlSetAIPPInputFormat, aipp, s.format));
  AIS_TRY(ACL_CALL(api, aclmdlSetAIPPSrcImageSize, aipp, s.width, s.height));
  AIS_TRY(ACL_CALL(api, aclmdlSetAIPPRbuvSwapSwitch, aipp, static_cast<std::int8_t>(s.swap_rb_uv)));
  AIS_TRY(ACL_CALL(api, aclmdlSetAIPPAxSwapSwitch, aipp, static_cast<std::int8_t>(s.swap_alpha)));
  if (!s.csc.empty()) AIS_TRY(fill_csc(api, s.csc, aipp));
  for (std::int64_t i = 0; i < s.pictures; ++i) AIS_TRY(fill_picture(api, s, static_cast<std::uint64_t>(i), aipp));
  return Status();
}

}  // namespace

Result<aclmdlAIPP*> make_aipp(const AclApi& api, const device::Aipp& settings) {
  AIS_TRY(check_counts(settings));
  if (settings.pictures < 1)
    return Status(Code::kInvalidArgument, "AIPP: batchsize must be at least 1, got " + std::to_string(settings.pictures));
  aclmdlAIPP* aipp = api.aclmdlCreateAIPP(static_cast<std::uint64_t>(settings.pictures));
  if (aipp == nullptr) return api.failed("aclmdlCreateAIPP", Code::kOutOfMemory);
  Status status = fill(api, settings, aipp);
  if (status.ok()) return aipp;
  ACL_RELEASE(api, aclmdlDestroyAIPP, aipp);
  return Status(Code::kInvalidArgument, status.message(), status.vendor_code());
}

Status check_pictures(const std::string& input, const device::Aipp& settings, std::int64_t pictures, std::size_t bytes) {
  const struct {
    int format;  // aclAippInputFormat
    const char* name;
    std::size_t bits;  // of a pixel
  } formats[] = {{1, "YUV420SP_U8", 12}, {2, "XRGB8888_U8", 32}, {3, "RGB888_U8", 24}, {4, "YUV400_U8", 8}};
  for (const auto& format : formats) {
    if (format.format != settings.format) continue;
    const std::size_t pixels = static_cast<std::size_t>(settings.width) * static_cast<std::size_t>(settings.height);
    const std::size_t wanted = pixels * format.bits / 8 * static_cast<std::size_t>(pictures);
    if (bytes >= wanted) break;
    return Status(Code::kFeedMismatch, "input '" + input + "' takes at least " + std::to_string(wanted) +
                                           " bytes: " + std::to_string(pictures) + (pictures == 1 ? " picture" : " pictures") +
                                           " with the AIPP settings src_image_size_w " + std::to_string(settings.width) +
                                           ", src_image_size_h " + std::to_string(settings.height) + " and input_format " +
                                           format.name + "; it was given " + std::to_string(bytes) + " bytes");
  }
  return Status();
}

}  // namespace ais::acl
