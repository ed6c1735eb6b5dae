// Element types, shapes, and a view of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ais {

// The numbers are those of AscendCL's aclDataType, because callers index tables with them. Types that AscendCL does not have
// (the two "fnuz" kinds of float8, small integers) start at 100. X(name, number, bits of one element, numpy's name).
#define AIS_DTYPES(X)                          \
  X(Float32, 0, 32, "float32")                 \
  X(Float16, 1, 16, "float16")                 \
  X(Int8, 2, 8, "int8")                        \
  X(Int32, 3, 32, "int32")                     \
  X(UInt8, 4, 8, "uint8")                      \
  X(Int16, 6, 16, "int16")                     \
  X(UInt16, 7, 16, "uint16")                   \
  X(UInt32, 8, 32, "uint32")                   \
  X(Int64, 9, 64, "int64")                     \
  X(UInt64, 10, 64, "uint64")                  \
  X(Float64, 11, 64, "float64")                \
  X(Bool, 12, 8, "bool")                       \
  X(Complex64, 16, 64, "complex64")            \
  X(Complex128, 17, 128, "complex128")         \
  X(BFloat16, 27, 16, "bfloat16")              \
  X(Int4, 29, 4, "int4")                       \
  X(Float8E5M2, 35, 8, "float8_e5m2")          \
  X(Float8E4M3FN, 36, 8, "float8_e4m3fn")      \
  X(Float8E8M0, 37, 8, "float8_e8m0fnu")       \
  X(Float4E2M1, 40, 4, "float4_e2m1fn")        \
  X(Float8E4M3FNUZ, 100, 8, "float8_e4m3fnuz") \
  X(Float8E5M2FNUZ, 101, 8, "float8_e5m2fnuz") \
  X(UInt4, 102, 4, "uint4")                    \
  X(Int2, 103, 2, "int2")                      \
  X(UInt2, 104, 2, "uint2")

enum class DType : std::int32_t {
#define AIS_DTYPE(name, number, bits, numpy) k##name = number,
  AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
      kUndefined = -1,
};

constexpr std::size_t dtype_bits(DType dtype) {
  switch (dtype) {
#define AIS_DTYPE(name, number, bits, numpy) \
  case DType::k##name:                       \
    return bits;
    AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
    default:
      return 0;
  }
}

constexpr std::string_view dtype_name(DType dtype) {
  switch (dtype) {
#define AIS_DTYPE(name, number, bits, numpy) \
  case DType::k##name:                       \
    return numpy;
    AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
    default:
      return "undefined";
  }
}

// Returns whether numpy itself has the type; ml_dtypes has the others.
constexpr bool numpy_has(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
    case DType::kInt4:
    case DType::kUInt4:
    case DType::kInt2:
    case DType::kUInt2:
    case DType::kFloat4E2M1:
    case DType::kFloat8E8M0:
    case DType::kFloat8E5M2:
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E4M3FNUZ:
    case DType::kFloat8E5M2FNUZ:
      return false;
    default:
      return true;
  }
}

using Shape = std::vector<std::int64_t>;  // a dynamic dimension is -1

// "(1, 3, -1)", as Python prints it.
inline std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  if (shape.size() == 1) text += ",";
  return text + ")";
}

inline bool is_dynamic(const Shape& shape) {
  for (std::int64_t dim : shape) {
    if (dim < 0) return true;
  }
  return false;
}

// Counts the elements of a shape without dynamic dimensions. Returns false if the product of its non-zero dimensions is above
// 2^56. So a zero hides no overflow, and the number of bits, which packed_bytes computes, fits in 64 bits for any dtype.
inline bool count_elements(const Shape& shape, std::size_t* out) {
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 56;
  std::uint64_t product = 1;
  bool empty = false;
  for (std::int64_t dim : shape) {
    if (dim < 0) return false;
    if (dim == 0) {
      empty = true;
      continue;
    }
    if (static_cast<std::uint64_t>(dim) > kLimit / product) return false;
    product *= static_cast<std::uint64_t>(dim);
  }
  *out = empty ? 0 : static_cast<std::size_t>(product);
  return true;
}

// Returns the bytes of `elements` on a device. Types of 4 and 2 bits are packed, with the first element in the lowest bits.
constexpr std::size_t packed_bytes(DType dtype, std::size_t elements) { return (elements * dtype_bits(dtype) + 7) / 8; }

// A tensor over memory that another object owns and keeps alive. `bytes` is the packed size of the shape. A view without a type
// stands for an input that is not given to a run.
struct TensorView {
  void* data = nullptr;
  std::size_t bytes = 0;
  DType dtype = DType::kUndefined;
  Shape shape;

  bool absent() const { return dtype == DType::kUndefined; }
};

}  // namespace ais
