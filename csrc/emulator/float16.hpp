// Converts between IEEE binary16 and float32, with rounding to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

namespace ais::emulator {

inline std::uint16_t float_to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;   // NaN
  if (magnitude >= 0x477FF000) return sign | 0x7C00;  // rounds to 2^16 or more
  if (magnitude < 0x33000001) return sign;            // rounds to 0
  const int exponent = static_cast<int>(magnitude >> 23) - 112;
  std::uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000;
  const int shift = exponent >= 1 ? 13 : 14 - exponent;  // a subnormal result loses more digits
  const std::uint32_t half = 1u << (shift - 1);
  const std::uint32_t rest = mantissa & ((1u << shift) - 1);
  mantissa >>= shift;
  if (rest > half || (rest == half && (mantissa & 1) != 0)) ++mantissa;
  const std::uint32_t base = exponent >= 1 ? static_cast<std::uint32_t>(exponent - 1) << 10 : 0;
  return static_cast<std::uint16_t>(sign | (base + mantissa));
}

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  std::uint32_t exponent = half >> 10 & 0x1F;
  std::uint32_t mantissa = half & 0x3FF;
  std::uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7F800000 | mantissa << 13;
  } else if (exponent == 0 && mantissa == 0) {
    bits = sign;
  } else {
    exponent += 112;
    if (exponent == 112) {  // subnormal: normalise
      ++exponent;
      while ((mantissa & 0x400) == 0) {
        mantissa <<= 1;
        --exponent;
      }
      mantissa &= 0x3FF;
    }
    bits = sign | exponent << 23 | mantissa << 13;
  }
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace ais::emulator
