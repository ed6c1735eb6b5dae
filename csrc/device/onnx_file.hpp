// What can be told of an ONNX file without a runtime, by walking its protobuf fields.
//
// ONNX has no magic number, so "is this ONNX" means: its outermost fields are those of a ModelProto, with the right wire
// types. Field numbers are those of onnx.proto3: ModelProto 7 graph; GraphProto 11 input, 12 output; ValueInfoProto 1 name,
// 2 type; TypeProto 1 tensor_type; TypeProto.Tensor 2 shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

namespace ais::device {

enum class OnnxCheck {
  kNo,         // another kind of file
  kTruncated,  // begins as ONNX and ends inside a field
  kYes,
};
OnnxCheck check_onnx(const std::uint8_t* data, std::size_t size);

// Names of graph inputs and outputs that declare no shape at all. A runtime reports those as scalars, which they need not be.
std::set<std::string> unranked_tensors(const std::uint8_t* data, std::size_t size);

}  // namespace ais::device
