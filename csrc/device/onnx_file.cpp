// A small protobuf reader, which only steps over fields, and never reads beyond the given bytes.
#include "device/onnx_file.hpp"

#include <cstdlib>

namespace ais::device {
namespace {

enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  std::uint64_t number = 0;
  std::uint32_t wire = 0;
  const std::uint8_t* data = nullptr;  // the content of a kBytes field
  std::size_t size = 0;
};

class ProtobufReader {
 public:
  ProtobufReader(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  explicit ProtobufReader(const Field& field) : ProtobufReader(field.data, field.size) {}

  // Reads the next field. Returns false at the end; also, with `broken` set, for an invalid or truncated field.
  bool next(Field* field) {
    if (at_ == end_) return false;
    std::uint64_t tag = 0;
    std::uint64_t value = 0;
    if (!varint(&tag)) return fail();
    field->number = tag >> 3;
    field->wire = static_cast<std::uint32_t>(tag & 7);
    switch (field->wire) {
      case kVarint:
        return varint(&value) || fail();
      case kFixed64:
        return skip(8) || fail();
      case kFixed32:
        return skip(4) || fail();
      case kBytes:
        if (!varint(&value)) return fail();
        field->data = at_;
        field->size = static_cast<std::size_t>(value);
        return skip(value) || fail();
      default:
        return fail();
    }
  }

  bool broken = false;

 private:
  bool varint(std::uint64_t* out) {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64 && at_ != end_; shift += 7) {
      const std::uint8_t byte = *at_++;
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        *out = value;
        return true;
      }
    }
    return false;
  }

  bool skip(std::uint64_t count) {
    if (count > static_cast<std::uint64_t>(end_ - at_)) return false;
    at_ += count;
    return true;
  }

  bool fail() {
    broken = true;
    return false;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

bool is_model_field(const Field& field) {
  switch (field.number) {
    case 1:  // ir_version
    case 5:  // model_version
      return field.wire == kVarint;
    case 2:   // producer_name
    case 3:   // producer_version
    case 4:   // domain
    case 6:   // doc_string
    case 7:   // graph
    case 8:   // opset_import
    case 14:  // metadata_props
    case 20:  // training_info
    case 25:  // functions
    case 26:  // configuration
      return field.wire == kBytes;
    default:
      return false;
  }
}

bool find(ProtobufReader reader, std::uint64_t number, Field* out) {
  Field field;
  while (reader.next(&field)) {
    if (field.number == number && field.wire == kBytes) {
      *out = field;
      return true;
    }
  }
  return false;
}

}  // namespace

OnnxCheck check_onnx(const std::uint8_t* data, std::size_t size) {
  ProtobufReader reader(data, size);
  Field field;
  bool graph = false;
  bool version = false;
  while (reader.next(&field)) {
    if (!is_model_field(field)) return OnnxCheck::kNo;
    graph = graph || field.number == 7;
    version = version || field.number == 1;
  }
  if (reader.broken) return version && is_model_field(field) ? OnnxCheck::kTruncated : OnnxCheck::kNo;
  return graph ? OnnxCheck::kYes : OnnxCheck::kNo;
}

std::set<std::string> unranked_tensors(const std::uint8_t* data, std::size_t size) {
  std::set<std::string> names;
  Field graph;
  if (!find(ProtobufReader(data, size), 7, &graph)) return names;
  ProtobufReader reader(graph);
  Field value_info;
  while (reader.next(&value_info)) {
    if ((value_info.number != 11 && value_info.number != 12) || value_info.wire != kBytes) continue;
    Field name;
    Field type;
    Field tensor;
    Field shape;
    if (!find(ProtobufReader(value_info), 1, &name)) continue;
    if (!find(ProtobufReader(value_info), 2, &type)) continue;
    Field optional;
    if (find(ProtobufReader(type), 9, &optional) && !find(ProtobufReader(optional), 1, &type)) continue;
    const bool has_shape = find(ProtobufReader(type), 1, &tensor) && find(ProtobufReader(tensor), 2, &shape);
    if (!has_shape) names.emplace(reinterpret_cast<const char*>(name.data), name.size);
  }
  return names;
}

ExternalData external_data(const std::uint8_t* data, std::size_t size) {
  ExternalData found;
  Field graph;
  if (!find(ProtobufReader(data, size), 7, &graph)) return found;
  ProtobufReader reader(graph);
  Field tensor;
  while (reader.next(&tensor)) {
    if (tensor.number != 5 || tensor.wire != kBytes) continue;
    ProtobufReader fields(tensor);
    Field entry;
    while (fields.next(&entry)) {
      Field key;
      Field value;
      if (entry.number != 13 || entry.wire != kBytes) continue;
      if (!find(ProtobufReader(entry), 1, &key) || !find(ProtobufReader(entry), 2, &value)) continue;
      const std::string name(reinterpret_cast<const char*>(key.data), key.size);
      const std::string text(reinterpret_cast<const char*>(value.data), value.size);
      if (name == "location") found.files.insert(text);
      if (name == "length") found.bytes += std::strtoull(text.c_str(), nullptr, 10);
    }
  }
  return found;
}

}  // namespace ais::device
