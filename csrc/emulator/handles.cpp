// Names of handles, for messages and recordings.
#include "emulator/handles.hpp"

namespace ais::emulator {

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::kContext:
      return "context";
    case Kind::kStream:
      return "stream";
    case Kind::kEvent:
      return "event";
    case Kind::kBuffer:
      return "data buffer";
    case Kind::kDataset:
      return "dataset";
    case Kind::kModelDesc:
      return "model desc";
    case Kind::kTensorDesc:
      return "tensor desc";
    case Kind::kAipp:
      return "AIPP setting";
    case Kind::kLoadConfig:
      return "load config";
    case Kind::kExecConfig:
      return "execution config";
    case Kind::kProfConfig:
      return "profiling config";
    case Kind::kProfStamp:
      return "profiling stamp";
    case Kind::kException:
      return "exception";
    case Kind::kModel:
      return "model";
  }
  return "";
}

std::string handle_name(const void* pointer) {
  const auto value = reinterpret_cast<std::uint64_t>(pointer);
  if (value >> 56 != kHandleTag >> 56) return "";
  const auto kind = static_cast<Kind>((value >> 48) & 0xFF);
  return std::string(kind_name(kind)) + "#" + std::to_string(value & 0xFFFFFFFFFFFFULL);
}

}  // namespace ais::emulator
