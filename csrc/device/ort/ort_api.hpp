// The used part of ONNX Runtime's C API, declared without its header and resolved at run time.
//
// The library exports one symbol, OrtGetApiBase, which returns a table of function pointers. ort_api.inc lists the used
// entries. It is included twice, to declare the struct below and to fill it, so the two always agree. Enums are ints, as in C.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dylib.hpp"
#include "base/status.hpp"
#include "base/tensor.hpp"

namespace ais::ort {

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtAllocator;
struct OrtTypeInfo;
struct OrtOptionalTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtModelMetadata;
struct OrtTensorRTProviderOptionsV2;
struct OrtCUDAProviderOptionsV2;
struct OrtCANNProviderOptions;
struct OrtIoBinding;
struct OrtKeyValuePairs;
struct OrtSyncStream;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtEpAssignedSubgraph;
struct OrtEpAssignedNode;

enum ErrorCode { kNoSuchFile = 3, kInvalidArgument = 2, kInvalidProtobuf = 7, kNotImplemented = 9, kInvalidGraph = 10 };
enum OnnxType { kTypeTensor = 1, kTypeSequence = 2, kTypeMap = 3, kTypeOpaque = 4, kTypeSparse = 5, kTypeOptional = 6 };
constexpr int kElementString = 8;
constexpr int kLogFatal = 4;  // errors are returned, so they need not be printed
constexpr int kAllocatorArena = 1;
constexpr int kMemTypeDefault = 0;

struct OrtApi {
#define ORT_FN(slot, ret, name, params) ret(*name) params = nullptr;
#include "device/ort/ort_api.inc"
#undef ORT_FN
#define ORT_NEWER(slot, since, ret, name, params) ret(*name) params = nullptr;
#include "device/ort/ort_newer.inc"
#undef ORT_NEWER

  Dylib library;
  const void* base = nullptr;  // OrtApiBase, for libraries of custom operators
  std::string version;         // of the library, "1.32.0"
  std::uint32_t minor = 0;     // 32 of that
  OrtEnv* env = nullptr;       // one for the process; never released, because sessions may end after static destructors
  OrtMemoryInfo* cpu_memory = nullptr;
  OrtAllocator* allocator = nullptr;

  // Returns Ok, or a status with the library's number and text. `fallback` is the code if these are not more precise.
  Status check(OrtStatus* status, Code fallback) const;
};

// Opens the library, fills the table and creates the environment. Refuses libraries older than 1.17.
Result<std::unique_ptr<OrtApi>> load_api(const std::vector<std::string>& libraries);

// Convert between ONNX's element types and ours; kUndefined and 0 if there is no counterpart.
DType dtype_of(int element_type);
int element_type_of(DType dtype);

// Returns "tensor", "sequence" and so on, for messages about types that are refused.
std::string type_name(int onnx_type);

}  // namespace ais::ort
