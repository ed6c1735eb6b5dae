// Reads facts from an ONNX file without a runtime, from its protobuf fields.
//
// ONNX has no magic number, so a file counts as ONNX if its outermost fields are those of a ModelProto, with the right wire
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
  kTruncated,  // begins like ONNX and ends inside a field
  kYes,
};
OnnxCheck check_onnx(const std::uint8_t* data, std::size_t size);

// Returns the names of graph inputs and outputs without a declared shape. A runtime reports them as scalars, which may be
// wrong.
std::set<std::string> unranked_tensors(const std::uint8_t* data, std::size_t size);

// The weights that a model has in separate files: the names of the files in the model, and the total bytes.
struct ExternalData {
  std::set<std::string> files;
  std::uint64_t bytes = 0;
};
ExternalData external_data(const std::uint8_t* data, std::size_t size);

}  // namespace ais::device
