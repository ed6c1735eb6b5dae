// The used part of the AscendCL ABI, declared without CANN's headers. Numbers and layouts are those of ACL 1.10 (CANN 8)
// and 1.17. Enums are passed as int, as in C. Handles are opaque.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ais::acl {

using aclError = int;
using aclrtStream = void*;
using aclrtEvent = void*;
using aclrtContext = void*;
struct aclDataBuffer;
struct aclTensorDesc;
struct aclmdlDataset;
struct aclmdlDesc;
struct aclmdlAIPP;
struct aclmdlConfigHandle;

constexpr std::size_t kMaxDims = 128;  // of a tensor, and of every list of gears
constexpr std::size_t kMaxName = 128;
constexpr std::size_t kAnyIndex = static_cast<std::size_t>(-1);  // for functions with an unused index
constexpr std::size_t kUnknownRank = 0xFFFFFFFFFFFFFFFEULL;      // ACL_UNKNOWN_RANK
constexpr std::uint32_t kNoInput = 0xFFFFFFFF;                   // ACL_INVALID_NODE_INDEX
constexpr const char* kGearInput = "ascend_mbatch_shape_data";   // ACL_DYNAMIC_TENSOR_NAME
constexpr const char* kAippInput =
    "ascend_dynamic_aipp_data";  // ACL_DYNAMIC_AIPP_NAME; the first one's name, and the beginning of the others

struct aclmdlIODims {
  char name[kMaxName];
  std::size_t dimCount;
  std::int64_t dims[kMaxDims];
};
struct aclmdlIODimsRange {
  std::size_t rangeCount;
  std::int64_t range[kMaxDims][2];  // minimum and maximum; -1: no limit
};
struct aclmdlBatch {
  std::size_t batchCount;
  std::uint64_t batch[kMaxDims];
};
struct aclmdlHW {
  std::size_t hwCount;
  std::uint64_t hw[kMaxDims][2];
};
static_assert(sizeof(aclmdlIODims) == 1160 && sizeof(aclmdlBatch) == 1032 && sizeof(aclmdlHW) == 2056, "as in the library");
static_assert(sizeof(aclmdlIODimsRange) == 2056, "as in the library");

struct aclCANNPackageVersion {
  char version[128];
  char parts[4][64];  // major, minor, release, patch
  char reserved[128];
};
static_assert(sizeof(aclCANNPackageVersion) == 512, "as in the library");

enum MemcpyKind : int { kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3 };
enum MallocPolicy : int { kHugeFirst = 0 };
enum MemoryAttr : int { kDdr = 0, kHbm = 1 };
enum PackageName : int { kPackageCann = 0 };
enum LoadAttr : int {  // aclmdlConfigAttr
  kLoadType = 1,
  kModelPath = 2,
  kModelAddress = 3,
  kModelSize = 4,
  kWorkAddress = 7,
  kWorkSize = 8,
  kWeightPath = 14
};
enum LoadType : std::size_t { kFromFile = 1, kFromFileWithMemory = 2, kFromMemory = 3, kFromMemoryWithMemory = 4 };
enum AippType : int { kWithDynamicAipp = 2, kAippParameters = 3 };
constexpr aclError kInvalidParam = 100000;              // ACL_ERROR_INVALID_PARAM
constexpr int kFloat = 0;                               // aclDataType, for calls in which it does not matter
constexpr int kFormatNd = 2;                            // aclFormat
constexpr std::uint32_t kRegisterPinned = 0x10000000U;  // ACL_HOST_REG_PINNED
constexpr int kStreamIdle = 0;                          // ACL_STREAM_STATUS_COMPLETE
constexpr int kEventReached = 1;                        // ACL_EVENT_RECORDED_STATUS_COMPLETE
constexpr std::uint32_t kEventTimeLine = 0x8;           // ACL_EVENT_TIME_LINE

}  // namespace ais::acl
