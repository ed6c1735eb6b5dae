// The table of runtimes, and the choice of a model's runtime.
#include "device/device.hpp"

#include <cstring>
#include <mutex>

#include "base/file.hpp"
#include "device/onnx_file.hpp"
#include "device/runtimes.hpp"

namespace ais::device {
namespace {

bool starts_with(const std::uint8_t* data, std::size_t size, const char* magic) {
  return size >= std::strlen(magic) && std::memcmp(data, magic, std::strlen(magic)) == 0;
}

Result<std::string> classify(const ModelSource& source, const std::uint8_t* data, std::size_t size) {
  if (size == 0) return Status(Code::kModelLoad, "cannot load the model '" + source.name() + "': it is empty (0 bytes)");
  // Compiled models: the classic header, the zip form of newer compilers, and the emulator's container.
  for (const char* magic : {"IMOD", "PK\x03\x04", "AISEMUOM"}) {
    if (starts_with(data, size, magic)) return std::string("acl");
  }
  if (size >= 8 && std::memcmp(data + 4, "ORTM", 4) == 0) return std::string("ort");  // ONNX Runtime's own format
  switch (check_onnx(data, size)) {
    case OnnxCheck::kYes:
      return std::string("ort");
    case OnnxCheck::kTruncated:
      return Status(Code::kModelLoad, "cannot load the model '" + source.name() +
                                          "': it is an ONNX file that was truncated inside a field, after " +
                                          std::to_string(size) + " bytes; copy it again");
    case OnnxCheck::kNo:
      break;
  }
  return Status(Code::kModelLoad, "cannot load the model '" + source.name() +
                                      "': it must be an ONNX model or a compiled model (.om), and its content is neither; the "
                                      "file name does not matter");
}

struct Entry {
  const char* name;
  Result<std::unique_ptr<Runtime>> (*open)(const std::vector<std::string>& libraries);
  std::unique_ptr<Runtime> runtime;
};

}  // namespace

Result<std::string> runtime_for(const ModelSource& source, const std::string& wanted) {
  const auto decide = [&](const std::uint8_t* data, std::size_t size) {
    return wanted.empty() ? classify(source, data, size) : Result<std::string>(wanted);
  };
  if (source.bytes != nullptr) return decide(static_cast<const std::uint8_t*>(source.bytes), source.size);
  AIS_ASSIGN(const MappedFile file, MappedFile::open(source.path));
  return decide(file.data(), file.size());
}

Result<Runtime*> open_runtime(const std::string& name, const std::vector<std::string>& libraries) {
  // Never destroyed, because devices and models may outlive static destructors.
  static auto* const lock = new std::mutex;
  static auto* const entries = new Entry[2]{{"ort", open_ort, nullptr}, {"acl", open_acl, nullptr}};
  const std::lock_guard<std::mutex> guard(*lock);
  for (Entry* entry = entries; entry != entries + 2; ++entry) {
    if (name != entry->name) continue;
    if (entry->runtime == nullptr) {
      AIS_ASSIGN(entry->runtime, entry->open(libraries));
    }
    return entry->runtime.get();
  }
  return Status(Code::kInvalidArgument, "unknown runtime '" + name + "'; use 'ort' (ONNX Runtime) or 'acl' (AscendCL)");
}

}  // namespace ais::device
