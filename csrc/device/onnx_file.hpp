// What can be told of an ONNX file without a runtime, by walking its protobuf fields.
//
// ONNX has no magic number, so "is this ONNX" means: its outermost fields are those of a ModelProto, with the right wire
// types. Field numbers are those of onnx.proto3: ModelProto 7 graph; GraphProto 5 initializer, 11 input, 12 output;
// ValueInfoProto 1 name, 2 type; TypeProto 1 tensor_type; TypeProto.Tensor 2 shape; TensorProto 13 external_data;
// StringStringEntryProto 1 key, 2 value.
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

// The weights that the model keeps in files of their own: the names of the files, as the model has them, and the bytes in all.
struct ExternalData {
  std::set<std::string> files;
  std::uint64_t bytes = 0;
};
ExternalData external_data(const std::uint8_t* data, std::size_t size);

}  // namespace ais::device
