// Finds ONNX Runtime, fills the function table, and converts its statuses and types.
#include "device/ort/ort_api.hpp"

#include <cstdlib>
#include <utility>

namespace ais::ort {
namespace {

constexpr std::uint32_t kApiVersion = 17;

struct ApiBase {
  const void* const* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

const ApiBase* api_base(const Dylib& library) {
  auto* get = reinterpret_cast<const ApiBase* (*)()>(library.symbol("OrtGetApiBase"));
  return get == nullptr ? nullptr : get();
}

std::string unfit(const Dylib& library) {
  const ApiBase* base = api_base(library);
  if (base == nullptr) return "it exports no OrtGetApiBase, so it is not ONNX Runtime";
  if (base->GetApi(kApiVersion) == nullptr) {
    return std::string("it is ONNX Runtime ") + base->GetVersionString() + ", and 1.17 or newer is needed";
  }
  return "";
}

// Returns 32 for "1.32.0", which is also the library's newest version of the API.
std::uint32_t minor_of(const std::string& version) {
  const std::size_t dot = version.find('.');
  if (dot == std::string::npos) return 0;
  return static_cast<std::uint32_t>(std::strtoul(version.c_str() + dot + 1, nullptr, 10));
}

// X(ours, ONNXTensorElementDataType)
#define AIS_ORT_TYPES(X) \
  X(Float32, 1)          \
  X(UInt8, 2)            \
  X(Int8, 3)             \
  X(UInt16, 4)           \
  X(Int16, 5)            \
  X(Int32, 6)            \
  X(Int64, 7)            \
  X(Bool, 9)             \
  X(Float16, 10)         \
  X(Float64, 11)         \
  X(UInt32, 12)          \
  X(UInt64, 13)          \
  X(Complex64, 14)       \
  X(Complex128, 15)      \
  X(BFloat16, 16)        \
  X(Float8E4M3FN, 17)    \
  X(Float8E4M3FNUZ, 18)  \
  X(Float8E5M2, 19)      \
  X(Float8E5M2FNUZ, 20)  \
  X(UInt4, 21)           \
  X(Int4, 22)            \
  X(Float4E2M1, 23)      \
  X(UInt2, 24)           \
  X(Int2, 25)            \
  X(Float8E8M0, 26)

}  // namespace

DType dtype_of(int element_type) {
  switch (element_type) {
#define AIS_CASE(ours, theirs) \
  case theirs:                 \
    return DType::k##ours;
    AIS_ORT_TYPES(AIS_CASE)
#undef AIS_CASE
    default:
      return DType::kUndefined;
  }
}

int element_type_of(DType dtype) {
  switch (dtype) {
#define AIS_CASE(ours, theirs) \
  case DType::k##ours:         \
    return theirs;
    AIS_ORT_TYPES(AIS_CASE)
#undef AIS_CASE
    default:
      return 0;
  }
}

std::string type_name(int onnx_type) {
  switch (onnx_type) {
    case kTypeTensor:
      return "tensor";
    case kTypeSequence:
      return "sequence";
    case kTypeMap:
      return "map";
    case kTypeOpaque:
      return "opaque value";
    case kTypeSparse:
      return "sparse tensor";
    case kTypeOptional:
      return "optional";
    default:
      return "value of unknown type " + std::to_string(onnx_type);
  }
}

Status OrtApi::check(OrtStatus* status, Code fallback) const {
  if (status == nullptr) return Status();
  const int number = GetErrorCode(status);
  std::string text = GetErrorMessage(status);
  ReleaseStatus(status);
  text.erase(text.find_last_not_of('\n') + 1);  // callers append to the line
  Code code = fallback;
  if (text.find("terminate flag") != std::string::npos) {
    code = Code::kCancelled;
  } else if (text.find("Failed to allocate memory") != std::string::npos || text.find("bad_alloc") != std::string::npos ||
             text.find("out of memory") != std::string::npos) {
    code = Code::kOutOfMemory;
  } else if (fallback == Code::kExecution &&
             (text.find("CUDA failure") != std::string::npos || text.find("HIP failure") != std::string::npos)) {
    code = Code::kDeviceLost;  // the context cannot be used any more
  } else if (number == kInvalidArgument && fallback == Code::kExecution &&
             text.find("status code returned while running") == std::string::npos) {  // an error before any kernel ran
    code = Code::kFeedMismatch;
  }
  return Status(code, std::move(text), number);
}

Result<std::unique_ptr<OrtApi>> load_api(const std::vector<std::string>& libraries) {
  Result<Dylib> library = Dylib::open_first("ONNX Runtime's C library", libraries, unfit);
  if (!library.ok()) {
    return Status(Code::kUnavailable,
                  library.take_status().message() +
                      "\nInstall it with 'pip install \"onnxruntime>=1.19\"' (older wheels do not contain it), or name "
                      "the library file in the environment variable AIS_BENCH_ORT_LIBRARY.");
  }
  auto api = std::make_unique<OrtApi>();
  api->library = library.take();
  const ApiBase* base = api_base(api->library);
  api->base = base;
  api->version = base->GetVersionString();
  api->minor = minor_of(api->version);
  const void* const* table = base->GetApi(kApiVersion);
#define ORT_FN(slot, ret, name, params) api->name = reinterpret_cast<decltype(api->name)>(const_cast<void*>(table[slot]));
#include "device/ort/ort_api.inc"
#undef ORT_FN
  // An older library writes a line to standard error if a newer API is requested.
#define ORT_NEWER(slot, since, ret, name, params)                                                          \
  if (const void* const* newer = api->minor < (since) ? nullptr : base->GetApi(since); newer != nullptr) { \
    api->name = reinterpret_cast<decltype(api->name)>(const_cast<void*>(newer[slot]));                     \
  }
#include "device/ort/ort_newer.inc"
#undef ORT_NEWER

  // Newer libraries start a telemetry thread with the environment. A child that is forked later waits forever for this thread
  // at its exit, so the thread must not be started by this library. A caller's own setting is kept.
  setenv("ORT_DISABLE_TELEMETRY", "1", /*overwrite=*/0);
  AIS_TRY(api->check(api->CreateEnv(kLogFatal, "ais_bench", &api->env), Code::kUnavailable));
  AIS_TRY(api->check(api->CreateCpuMemoryInfo(kAllocatorArena, kMemTypeDefault, &api->cpu_memory), Code::kUnavailable));
  AIS_TRY(api->check(api->GetAllocatorWithDefaultOptions(&api->allocator), Code::kUnavailable));
  return api;
}

}  // namespace ais::ort
