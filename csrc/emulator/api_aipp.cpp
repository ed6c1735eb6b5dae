// AscendCL: dynamic AIPP settings.
#include <functional>

#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"

namespace ais::emulator {
namespace {

aclError outside(const std::string& what) { return fail(ACL_ERROR_INVALID_PARAM, "AIPP: " + what); }
bool within(double value, double low, double high) { return value >= low && value <= high; }
bool is_switch(int value) { return value == 0 || value == 1; }

std::shared_ptr<AippParameters> find_aipp(const aclmdlAIPP* handle) {
  std::shared_ptr<AippParameters> found = objects().aipp.find(handle);
  if (found == nullptr) outside("the settings are NULL or were destroyed");
  return found;
}

// Changes all settings, or those of one picture. Returns an error text, or "".
using Change = std::function<std::string(AippParameters&)>;
using PictureChange = std::function<std::string(AippPicture&)>;

aclError change(aclmdlAIPP* handle, const Change& apply) {
  const std::shared_ptr<AippParameters> found = find_aipp(handle);
  if (found == nullptr) return ACL_ERROR_INVALID_PARAM;
  const std::string complaint = apply(*found);
  return complaint.empty() ? ACL_SUCCESS : outside(complaint);
}

aclError change_picture(aclmdlAIPP* handle, std::uint64_t index, const PictureChange& apply) {
  return change(handle, [&](AippParameters& all) {
    if (index >= all.pictures.size())
      return "batch index " + std::to_string(index) + ", the batch is " + std::to_string(all.pictures.size());
    return apply(all.pictures[index]);
  });
}

std::string set_size(AippParameters& all, int width, int height) {
  if (!within(width, 2, 4096) || !within(height, 1, 4096)) return "the source image is 2 to 4096 wide and 1 to 4096 high";
  const bool even_width = all.format == ACL_YUV420SP_U8;
  if (even_width && (width % 2 != 0 || height % 2 != 0)) return "a YUV420SP image has even sides";
  all.width = width;
  all.height = height;
  return "";
}

std::string set_crop(AippPicture& picture, int enabled, int x, int y, int width, int height) {
  if (!is_switch(enabled)) return "the crop switch is 0 or 1";
  if (enabled != 0 && (!within(x, 0, 4095) || !within(y, 0, 4095) || !within(width, 1, 4096) || !within(height, 1, 4096))) {
    return "a crop begins at 0 to 4095 and is 1 to 4096 large";
  }
  picture.crop = enabled != 0;
  picture.crop_x = x;
  picture.crop_y = y;
  picture.crop_w = width;
  picture.crop_h = height;
  return "";
}

std::string set_padding(AippPicture& picture, int enabled, int top, int bottom, int left, int right) {
  if (!is_switch(enabled)) return "the padding switch is 0 or 1";
  for (const int size : {top, bottom, left, right}) {
    if (enabled != 0 && !within(size, 0, 32)) return "a padding is 0 to 32";
  }
  picture.padding = enabled != 0;
  picture.top = top;
  picture.bottom = bottom;
  picture.left = left;
  picture.right = right;
  return "";
}

}  // namespace
}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclmdlAIPP* aclmdlCreateAIPP(std::uint64_t batchSize) {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(
      static_cast<aclmdlAIPP*>(nullptr),
      [&](const Scope&) -> aclmdlAIPP* {
        if (batchSize == 0 || batchSize > 65536) {
          outside("a batch is at least 1");
          return nullptr;
        }
        auto parameters = std::make_shared<AippParameters>();
        parameters->pictures.resize(batchSize);
        return static_cast<aclmdlAIPP*>(objects().aipp.add(std::move(parameters)));
      },
      batchSize);
}

ACL_API aclError aclmdlDestroyAIPP(const aclmdlAIPP* aippParmsSet) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return objects().aipp.take(aippParmsSet) != nullptr ? aclError{ACL_SUCCESS}
                                                            : outside("the settings are NULL or were destroyed before");
      },
      aippParmsSet);
}

ACL_API aclError aclmdlGetAippDataSize(std::uint64_t batchSize, std::size_t* size) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        if (batchSize == 0 || size == nullptr) return outside("a batch is at least 1, and the size needs a place");
        *size = aipp_data_size(batchSize);
        return aclError{ACL_SUCCESS};
      },
      batchSize, filled(size));
}

ACL_API aclError aclmdlSetAIPPInputFormat(aclmdlAIPP* aippParmsSet, aclAippInputFormat inputFormat) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change(aippParmsSet, [&](AippParameters& all) -> std::string {
          if (picture_bytes(inputFormat, 2, 2) == 0)
            return "the input format " + std::to_string(inputFormat) + " is not emulated";
          all.format = inputFormat;
          return "";
        });
      },
      aippParmsSet, inputFormat);
}

ACL_API aclError aclmdlSetAIPPCscParams(aclmdlAIPP* aippParmsSet, std::int8_t cscSwitch, std::int16_t cscMatrixR0C0,
                                        std::int16_t cscMatrixR0C1, std::int16_t cscMatrixR0C2, std::int16_t cscMatrixR1C0,
                                        std::int16_t cscMatrixR1C1, std::int16_t cscMatrixR1C2, std::int16_t cscMatrixR2C0,
                                        std::int16_t cscMatrixR2C1, std::int16_t cscMatrixR2C2, std::uint8_t cscOutputBiasR0,
                                        std::uint8_t cscOutputBiasR1, std::uint8_t cscOutputBiasR2, std::uint8_t cscInputBiasR0,
                                        std::uint8_t cscInputBiasR1, std::uint8_t cscInputBiasR2) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change(aippParmsSet, [&](AippParameters& all) -> std::string {
          if (!is_switch(cscSwitch)) return "the colour conversion switch is 0 or 1";
          all.csc = cscSwitch != 0;
          all.matrix = {cscMatrixR0C0, cscMatrixR0C1, cscMatrixR0C2, cscMatrixR1C0, cscMatrixR1C1,
                        cscMatrixR1C2, cscMatrixR2C0, cscMatrixR2C1, cscMatrixR2C2};
          all.output_bias = {cscOutputBiasR0, cscOutputBiasR1, cscOutputBiasR2};
          all.input_bias = {cscInputBiasR0, cscInputBiasR1, cscInputBiasR2};
          return "";
        });
      },
      aippParmsSet, cscSwitch, cscMatrixR0C0, cscMatrixR0C1, cscMatrixR0C2, cscMatrixR1C0, cscMatrixR1C1, cscMatrixR1C2,
      cscMatrixR2C0, cscMatrixR2C1, cscMatrixR2C2, cscOutputBiasR0, cscOutputBiasR1, cscOutputBiasR2, cscInputBiasR0,
      cscInputBiasR1, cscInputBiasR2);
}

ACL_API aclError aclmdlSetAIPPRbuvSwapSwitch(aclmdlAIPP* aippParmsSet, std::int8_t rbuvSwapSwitch) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change(aippParmsSet, [&](AippParameters& all) -> std::string {
          all.swap_rb_uv = rbuvSwapSwitch != 0;
          return is_switch(rbuvSwapSwitch) ? "" : "the swap switch is 0 or 1";
        });
      },
      aippParmsSet, rbuvSwapSwitch);
}

ACL_API aclError aclmdlSetAIPPAxSwapSwitch(aclmdlAIPP* aippParmsSet, std::int8_t axSwapSwitch) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change(aippParmsSet, [&](AippParameters& all) -> std::string {
          all.swap_alpha = axSwapSwitch != 0;
          return is_switch(axSwapSwitch) ? "" : "the swap switch is 0 or 1";
        });
      },
      aippParmsSet, axSwapSwitch);
}

ACL_API aclError aclmdlSetAIPPSrcImageSize(aclmdlAIPP* aippParmsSet, std::int32_t srcImageSizeW, std::int32_t srcImageSizeH) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change(aippParmsSet, [&](AippParameters& all) { return set_size(all, srcImageSizeW, srcImageSizeH); });
      },
      aippParmsSet, srcImageSizeW, srcImageSizeH);
}

ACL_API aclError aclmdlSetAIPPScfParams(aclmdlAIPP* aippParmsSet, std::int8_t scfSwitch, std::int32_t scfInputSizeW,
                                        std::int32_t scfInputSizeH, std::int32_t scfOutputSizeW, std::int32_t scfOutputSizeH,
                                        std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture&) -> std::string {
          if (!is_switch(scfSwitch)) return "the resize switch is 0 or 1";
          return scfSwitch == 0 ? "" : "resizing exists on some SoCs only, and is not emulated";
        });
      },
      aippParmsSet, scfSwitch, scfInputSizeW, scfInputSizeH, scfOutputSizeW, scfOutputSizeH, batchIndex);
}

ACL_API aclError aclmdlSetAIPPCropParams(aclmdlAIPP* aippParmsSet, std::int8_t cropSwitch, std::int32_t cropStartPosW,
                                         std::int32_t cropStartPosH, std::int32_t cropSizeW, std::int32_t cropSizeH,
                                         std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture& picture) {
          return set_crop(picture, cropSwitch, cropStartPosW, cropStartPosH, cropSizeW, cropSizeH);
        });
      },
      aippParmsSet, cropSwitch, cropStartPosW, cropStartPosH, cropSizeW, cropSizeH, batchIndex);
}

ACL_API aclError aclmdlSetAIPPPaddingParams(aclmdlAIPP* aippParmsSet, std::int8_t paddingSwitch, std::int32_t paddingSizeTop,
                                            std::int32_t paddingSizeBottom, std::int32_t paddingSizeLeft,
                                            std::int32_t paddingSizeRight, std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture& picture) {
          return set_padding(picture, paddingSwitch, paddingSizeTop, paddingSizeBottom, paddingSizeLeft, paddingSizeRight);
        });
      },
      aippParmsSet, paddingSwitch, paddingSizeTop, paddingSizeBottom, paddingSizeLeft, paddingSizeRight, batchIndex);
}

ACL_API aclError aclmdlSetAIPPDtcPixelMean(aclmdlAIPP* aippParmsSet, std::int16_t dtcPixelMeanChn0,
                                           std::int16_t dtcPixelMeanChn1, std::int16_t dtcPixelMeanChn2,
                                           std::int16_t dtcPixelMeanChn3, std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture& picture) -> std::string {
          picture.mean = {dtcPixelMeanChn0, dtcPixelMeanChn1, dtcPixelMeanChn2, dtcPixelMeanChn3};
          for (const std::int16_t mean : picture.mean) {
            if (!within(mean, 0, 255)) return "a mean is 0 to 255";
          }
          return "";
        });
      },
      aippParmsSet, dtcPixelMeanChn0, dtcPixelMeanChn1, dtcPixelMeanChn2, dtcPixelMeanChn3, batchIndex);
}

ACL_API aclError aclmdlSetAIPPDtcPixelMin(aclmdlAIPP* aippParmsSet, float dtcPixelMinChn0, float dtcPixelMinChn1,
                                          float dtcPixelMinChn2, float dtcPixelMinChn3, std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture& picture) -> std::string {
          picture.min = {dtcPixelMinChn0, dtcPixelMinChn1, dtcPixelMinChn2, dtcPixelMinChn3};
          for (const float min : picture.min) {
            if (!within(min, 0, 255)) return "a min is 0 to 255";
          }
          return "";
        });
      },
      aippParmsSet, double{dtcPixelMinChn0}, double{dtcPixelMinChn1}, double{dtcPixelMinChn2}, double{dtcPixelMinChn3},
      batchIndex);
}

ACL_API aclError aclmdlSetAIPPPixelVarReci(aclmdlAIPP* aippParmsSet, float dtcPixelVarReciChn0, float dtcPixelVarReciChn1,
                                           float dtcPixelVarReciChn2, float dtcPixelVarReciChn3, std::uint64_t batchIndex) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return change_picture(aippParmsSet, batchIndex, [&](AippPicture& picture) -> std::string {
          picture.var_reci = {dtcPixelVarReciChn0, dtcPixelVarReciChn1, dtcPixelVarReciChn2, dtcPixelVarReciChn3};
          for (const float reciprocal : picture.var_reci) {
            if (!within(reciprocal, -65504, 65504)) return "a reciprocal is -65504 to 65504";
          }
          return "";
        });
      },
      aippParmsSet, double{dtcPixelVarReciChn0}, double{dtcPixelVarReciChn1}, double{dtcPixelVarReciChn2},
      double{dtcPixelVarReciChn3}, batchIndex);
}
