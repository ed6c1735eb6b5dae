// The types, numbers and layouts of the AscendCL ABI (version 1.10, and 1.17 where marked) that the emulator answers to.
//
// Handles are opaque: an aclmdlDataset* and similar pointers never point at an object, see handles.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#define ACL_API extern "C" __attribute__((visibility("default")))

using aclError = int;
using aclFloat16 = std::uint16_t;
using aclrtStream = void*;
using aclrtEvent = void*;
using aclrtContext = void*;
struct aclDataBuffer;
struct aclTensorDesc;
struct aclmdlDataset;
struct aclmdlDesc;
struct aclmdlAIPP;
struct aclmdlConfigHandle;
struct aclmdlExecConfigHandle;
struct aclprofConfig;
struct aclprofAicoreEvents;
struct rtExceptionInfo;
using aclrtExceptionInfo = rtExceptionInfo;
using aclrtExceptionInfoCallback = void (*)(aclrtExceptionInfo*);

// X(name without its ACL_ERROR_ prefix, number)
// clang-format off
#define AIS_ACL_CODES(X) \
  X(INVALID_PARAM, 100000) \
  X(UNINITIALIZE, 100001) \
  X(REPEAT_INITIALIZE, 100002) \
  X(INVALID_FILE, 100003) \
  X(PARSE_FILE, 100006) \
  X(INVALID_DUMP_CONFIG, 100009) \
  X(INVALID_PROFILING_CONFIG, 100010) \
  X(REPEAT_FINALIZE, 100037) \
  X(NOT_STATIC_AIPP, 100038) \
  X(PROF_ALREADY_RUN, 100042) \
  X(PROF_NOT_RUN, 100043) \
  X(DUMP_ALREADY_RUN, 100044) \
  X(DUMP_NOT_RUN, 100045) \
  X(PROF_API_CONFLICT, 148047) \
  X(API_NOT_SUPPORT, 200001) \
  X(STORAGE_OVER_LIMIT, 300000) \
  X(GE_FAILURE, 500002) \
  X(RT_PARAM_INVALID, 107000) \
  X(RT_INVALID_DEVICEID, 107001) \
  X(RT_CONTEXT_NULL, 107002) \
  X(RT_STREAM_CONTEXT, 107003) \
  X(RT_MODEL_CONTEXT, 107004) \
  X(RT_EVENT_TIMESTAMP_INVALID, 107006) \
  X(RT_EVENT_TIMESTAMP_REVERSAL, 107007) \
  X(RT_ADDR_UNALIGNED, 107008) \
  X(RT_INVALID_HANDLE, 107017) \
  X(RT_DEVICE_TASK_ABORT, 107022) \
  X(RT_STREAM_ABORT, 107023) \
  X(RT_FEATURE_NOT_SUPPORT, 207000) \
  X(RT_MEMORY_ALLOCATION, 207001) \
  X(RT_NO_EVENT_RESOURCE, 207007) \
  X(RT_INTERNAL_ERROR, 507000) \
  X(RT_SOC_VERSION, 507008) \
  X(RT_LOST_HEARTBEAT, 507010) \
  X(RT_MODEL_EXECUTE, 507011) \
  X(RT_AICORE_TIMEOUT, 507014) \
  X(RT_AICORE_EXCEPTION, 507015) \
  X(RT_STREAM_SYNC_TIMEOUT, 507046) \
  X(RT_EVENT_SYNC_TIMEOUT, 507047) \
  X(RT_DEVICE_MEM_ERROR, 507053) \
  X(HOST_MEMORY_ALREADY_REGISTERED, 507910) \
  X(HOST_MEMORY_NOT_REGISTERED, 507911) \
  X(GE_PARAM_INVALID, 145000) \
  X(GE_EXEC_MODEL_ID_INVALID, 145003) \
  X(GE_EXEC_MODEL_DATA_SIZE_INVALID, 145006) \
  X(GE_EXEC_MODEL_ADDR_INVALID, 145007) \
  X(GE_DYNAMIC_INPUT_ADDR_INVALID, 145011) \
  X(GE_DYNAMIC_INPUT_LENGTH_INVALID, 145012) \
  X(GE_DYNAMIC_BATCH_SIZE_INVALID, 145013) \
  X(GE_AIPP_NOT_EXIST, 145015) \
  X(GE_AIPP_MODE_INVALID, 145016) \
  X(GE_MEMORY_ALLOCATION, 245000) \
  X(GE_LOAD_MODEL, 545001) \
  X(GE_MODEL_EXECUTE_TIMEOUT, 545601)
// clang-format on

enum : aclError {
  ACL_SUCCESS = 0,
#define AIS_ACL_CODE(name, number) ACL_ERROR_##name = number,
  AIS_ACL_CODES(AIS_ACL_CODE)
#undef AIS_ACL_CODE
};

enum aclrtRunMode : std::int32_t { ACL_DEVICE = 0, ACL_HOST = 1 };
enum aclrtFloatOverflowMode : std::int32_t { ACL_RT_OVERFLOW_MODE_SATURATION = 0, ACL_RT_OVERFLOW_MODE_UNDEF = 2 };
enum aclrtDeviceStatus : std::int32_t { ACL_RT_DEVICE_STATUS_NORMAL = 0, ACL_RT_DEVICE_STATUS_ABNORMAL = 1 };
enum aclrtStreamStatus : std::int32_t { ACL_STREAM_STATUS_COMPLETE = 0, ACL_STREAM_STATUS_NOT_READY = 1 };
enum aclrtEventStatus : std::int32_t { ACL_EVENT_STATUS_COMPLETE = 0, ACL_EVENT_STATUS_NOT_READY = 1 };
enum aclrtEventRecordedStatus : std::int32_t {
  ACL_EVENT_RECORDED_STATUS_NOT_READY = 0,
  ACL_EVENT_RECORDED_STATUS_COMPLETE = 1
};
enum aclrtMemAttr : std::int32_t { ACL_DDR_MEM = 0, ACL_HBM_MEM = 1, ACL_MEM_ATTR_LAST_KNOWN = 17 };
enum aclrtMemMallocPolicy : std::int32_t { ACL_MEM_MALLOC_HUGE_FIRST = 0 };
enum aclrtMemcpyKind : std::int32_t {
  ACL_MEMCPY_HOST_TO_HOST = 0,
  ACL_MEMCPY_HOST_TO_DEVICE = 1,
  ACL_MEMCPY_DEVICE_TO_HOST = 2,
  ACL_MEMCPY_DEVICE_TO_DEVICE = 3,
  ACL_MEMCPY_DEFAULT = 4,
};
enum aclrtHostRegisterType : std::int32_t { ACL_HOST_REGISTER_MAPPED = 0 };
enum : std::uint32_t { ACL_HOST_REG_MAPPED = 0x2, ACL_HOST_REG_PINNED = 0x10000000 };
enum : std::uint32_t { ACL_STREAM_FLAGS_KNOWN = 0x3F, ACL_EVENT_FLAGS_KNOWN = 0x7B };
enum : std::uint32_t { ACL_EVENT_SYNC = 0x1, ACL_EVENT_TIME_LINE = 0x8 };
enum aclrtMemLocationType : std::int32_t {
  ACL_MEM_LOCATION_TYPE_HOST = 0,
  ACL_MEM_LOCATION_TYPE_DEVICE = 1,
  ACL_MEM_LOCATION_TYPE_UNREGISTERED = 2
};

struct aclCANNPackageVersion {
  char version[128];
  char majorVersion[64], minorVersion[64], releaseVersion[64], patchVersion[64];
  char reserved[128];
};
static_assert(sizeof(aclCANNPackageVersion) == 512);

struct aclrtUtilizationInfo {
  std::int32_t cubeUtilization, vectorUtilization, aicpuUtilization, memoryUtilization;
  void* utilizationExtend;
};
struct aclrtMemLocation {
  std::uint32_t id;
  aclrtMemLocationType type;
};
struct aclrtPtrAttributes {
  aclrtMemLocation location;
  std::uint32_t pageSize;
  std::uint32_t rsv[4];
};

enum aclDataType : std::int32_t { ACL_DT_UNDEFINED = -1, ACL_FLOAT = 0, ACL_FLOAT16 = 1, ACL_INT32 = 3, ACL_UINT8 = 4 };
enum aclFormat : std::int32_t { ACL_FORMAT_UNDEFINED = -1, ACL_FORMAT_NCHW = 0, ACL_FORMAT_NHWC = 1, ACL_FORMAT_ND = 2 };
constexpr std::size_t kUnknownRank = 0xFFFFFFFFFFFFFFFEULL;  // ACL_UNKNOWN_RANK

constexpr std::size_t kMaxDims = 128;  // ACL_MAX_DIM_CNT and the limits of every gear list
constexpr std::size_t kMaxName = 128;  // ACL_MAX_TENSOR_NAME_LEN
constexpr std::uint32_t kInvalidNodeIndex = 0xFFFFFFFF;
constexpr const char* kDynamicTensorName = "ascend_mbatch_shape_data";
constexpr const char* kDynamicAippName = "ascend_dynamic_aipp_data";

struct aclmdlIODims {
  char name[kMaxName];
  std::size_t dimCount;
  std::int64_t dims[kMaxDims];
};
struct aclmdlIODimsRange {
  std::size_t rangeCount;
  std::int64_t range[kMaxDims][2];
};
struct aclmdlBatch {
  std::size_t batchCount;
  std::uint64_t batch[kMaxDims];
};
struct aclmdlHW {
  std::size_t hwCount;
  std::uint64_t hw[kMaxDims][2];
};
static_assert(sizeof(aclmdlIODims) == 1160 && offsetof(aclmdlIODims, dimCount) == 128 && offsetof(aclmdlIODims, dims) == 136);
static_assert(sizeof(aclmdlIODimsRange) == 2056 && sizeof(aclmdlBatch) == 1032 && sizeof(aclmdlHW) == 2056);
static_assert(sizeof(aclrtUtilizationInfo) == 24 && sizeof(aclrtMemLocation) == 8 && sizeof(aclrtPtrAttributes) == 28);
static_assert(sizeof(aclrtMemcpyKind) == 4 && sizeof(aclDataType) == 4);

enum aclmdlConfigAttr : std::int32_t {
  ACL_MDL_PRIORITY_INT32 = 0,
  ACL_MDL_LOAD_TYPE_SIZET = 1,
  ACL_MDL_PATH_PTR = 2,
  ACL_MDL_MEM_ADDR_PTR = 3,
  ACL_MDL_MEM_SIZET = 4,
  ACL_MDL_WEIGHT_ADDR_PTR = 5,
  ACL_MDL_WEIGHT_SIZET = 6,
  ACL_MDL_WORKSPACE_ADDR_PTR = 7,
  ACL_MDL_WORKSPACE_SIZET = 8,
  ACL_MDL_WORKSPACE_MEM_OPTIMIZE = 13,
  ACL_MDL_WEIGHT_PATH_PTR = 14,
  ACL_MDL_WITHOUT_GRAPH_INT32 = 28,
};
enum : std::size_t {
  ACL_MDL_LOAD_FROM_FILE = 1,
  ACL_MDL_LOAD_FROM_FILE_WITH_MEM = 2,
  ACL_MDL_LOAD_FROM_MEM = 3,
  ACL_MDL_LOAD_FROM_MEM_WITH_MEM = 4,
};
enum aclmdlExecConfigAttr : std::int32_t {
  ACL_MDL_STREAM_SYNC_TIMEOUT = 0,
  ACL_MDL_EVENT_SYNC_TIMEOUT = 1,
  ACL_MDL_EXEC_ATTR_LAST_KNOWN = 9
};

enum aclAippInputFormat : std::int32_t { ACL_YUV420SP_U8 = 1, ACL_XRGB8888_U8 = 2, ACL_RGB888_U8 = 3, ACL_YUV400_U8 = 4 };
enum aclmdlInputAippType : std::int32_t {
  ACL_DATA_WITHOUT_AIPP = 0,
  ACL_DATA_WITH_STATIC_AIPP = 1,
  ACL_DATA_WITH_DYNAMIC_AIPP = 2,
  ACL_DYNAMIC_AIPP_NODE = 3,
};
