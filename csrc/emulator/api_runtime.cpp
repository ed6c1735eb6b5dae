// AscendCL: initialisation, devices, contexts, errors.
#include <atomic>
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/config.hpp"
#include "emulator/profiling.hpp"

using namespace ais::emulator;

namespace {

template <typename T>
aclError give(T* out, T value) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL");
  *out = value;
  return ACL_SUCCESS;
}

aclError init(const char* path) {
  InitConfig config;
  if (const aclError code = machine().initialise(path, &config)) return code;
  share_errors(config.share_errors);
  profiling_begins(config.profiling, config.dumping);
  return ACL_SUCCESS;
}

aclError memory_info(const Scope& scope, aclrtMemAttr attr, std::size_t* free, std::size_t* total) {
  if (free == nullptr || total == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL");
  if (attr < ACL_DDR_MEM || attr > ACL_MEM_ATTR_LAST_KNOWN) return fail(ACL_ERROR_INVALID_PARAM, "unknown memory attribute");
  *total = scope.device().settings().memory_bytes;
  *free = *total - memory().used(scope.device_id);
  return ACL_SUCCESS;
}

std::atomic<aclrtFloatOverflowMode> g_overflow_mode{ACL_RT_OVERFLOW_MODE_SATURATION};

}  // namespace

ACL_API aclError aclInit(const char* configPath) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return init(configPath); }, configPath);
}

ACL_API aclError aclFinalize() {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return machine().finalise(true, nullptr); });
}

ACL_API aclError aclFinalizeReference(std::uint64_t* refCount) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return machine().finalise(false, refCount); }, refCount);
}

ACL_API aclError aclrtGetVersion(std::int32_t* majorVersion, std::int32_t* minorVersion, std::int32_t* patchVersion) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        if (const aclError code = give(majorVersion, std::int32_t{1})) return code;
        if (const aclError code = give(minorVersion, std::int32_t{17})) return code;
        return give(patchVersion, std::int32_t{0});
      },
      majorVersion, minorVersion, patchVersion);
}

// Not a Function, because it must also work in a forked child, and a fault rule for it could only hide another fault's text.
ACL_API const char* aclGetRecentErrMsg() { return take_recent_error(); }

ACL_API const char* aclrtGetSocName() {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(static_cast<const char*>(nullptr), [&](const Scope&) { return settings().soc.c_str(); });
}

ACL_API aclError aclrtSetDevice(std::int32_t deviceId) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(deviceId, [&](const Scope&) { return machine().set_device(deviceId); }, deviceId);
}

ACL_API aclError aclrtResetDevice(std::int32_t deviceId) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(deviceId, [&](const Scope&) { return machine().reset_device(deviceId, false); }, deviceId);
}

ACL_API aclError aclrtResetDeviceForce(std::int32_t deviceId) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(deviceId, [&](const Scope&) { return machine().reset_device(deviceId, true); }, deviceId);
}

ACL_API aclError aclrtGetDevice(std::int32_t* deviceId) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return give(deviceId, std::int32_t{scope.device_id}); }, filled(deviceId));
}

ACL_API aclError aclrtGetDeviceCount(std::uint32_t* count) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return give(count, static_cast<std::uint32_t>(machine().device_count())); },
                 filled(count));
}

ACL_API aclError aclrtGetRunMode(aclrtRunMode* runMode) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return give(runMode, settings().host_is_device ? ACL_DEVICE : ACL_HOST); },
                 filled(runMode));
}

ACL_API aclError aclrtSetDeviceSatMode(aclrtFloatOverflowMode mode) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) {
        if (mode < ACL_RT_OVERFLOW_MODE_SATURATION || mode >= ACL_RT_OVERFLOW_MODE_UNDEF) {
          return fail(ACL_ERROR_INVALID_PARAM, "unknown overflow mode");
        }
        g_overflow_mode = mode;
        return aclError{ACL_SUCCESS};
      },
      mode);
}

ACL_API aclError aclrtGetDeviceSatMode(aclrtFloatOverflowMode* mode) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return give(mode, g_overflow_mode.load()); }, filled(mode));
}

ACL_API aclError aclrtQueryDeviceStatus(std::int32_t deviceId, aclrtDeviceStatus* deviceStatus) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(
      deviceId,
      [&](const Scope&) {
        const Device* device = machine().device(deviceId);
        if (device == nullptr) return aclError{ACL_ERROR_RT_INVALID_DEVICEID};
        return give(deviceStatus, device->lost == ACL_SUCCESS ? ACL_RT_DEVICE_STATUS_NORMAL : ACL_RT_DEVICE_STATUS_ABNORMAL);
      },
      deviceId, filled(deviceStatus));
}

ACL_API aclError aclrtGetDeviceUtilizationRate(std::int32_t deviceId, aclrtUtilizationInfo* utilizationInfo) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(
      deviceId,
      [&](const Scope&) {
        const Device* device = machine().device(deviceId);
        if (device == nullptr) return aclError{ACL_ERROR_RT_INVALID_DEVICEID};
        if (utilizationInfo == nullptr || utilizationInfo->utilizationExtend != nullptr) {
          return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL, or its utilizationExtend is not");
        }
        const double used = static_cast<double>(memory().used(deviceId)) / static_cast<double>(device->settings().memory_bytes);
        *utilizationInfo = {-1, -1, -1, static_cast<std::int32_t>(100 * used), nullptr};
        return aclError{ACL_SUCCESS};
      },
      deviceId, utilizationInfo);
}

ACL_API aclError aclrtGetMemInfo(aclrtMemAttr attr, std::size_t* free, std::size_t* total) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return memory_info(scope, attr, free, total); }, attr, filled(free), filled(total));
}

ACL_API aclError aclrtCreateContext(aclrtContext* context, std::int32_t deviceId) {
  static Function fn(__func__, Need::kInit);
  return fn.call_on(
      deviceId,
      [&](const Scope&) {
        if (context == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the context to fill is NULL");
        return machine().create_context(deviceId, context);
      },
      filled(context), deviceId);
}

ACL_API aclError aclrtDestroyContext(aclrtContext context) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        return context == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the context is NULL") : machine().destroy_context(context);
      },
      context);
}

ACL_API aclError aclrtSetCurrentContext(aclrtContext context) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        return context == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the context is NULL") : machine().set_current(context);
      },
      context);
}

ACL_API aclError aclrtGetCurrentContext(aclrtContext* context) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return give(context, scope.context->handle); }, filled(context));
}

ACL_API aclError aclrtDeviceCanAccessPeer(std::int32_t* canAccessPeer, std::int32_t deviceId, std::int32_t peerDeviceId) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        if (machine().device(deviceId) == nullptr || machine().device(peerDeviceId) == nullptr)
          return aclError{ACL_ERROR_RT_INVALID_DEVICEID};
        if (deviceId == peerDeviceId) return fail(ACL_ERROR_INVALID_PARAM, "the peer must be another device");
        return give(canAccessPeer, std::int32_t{1});
      },
      filled(canAccessPeer), deviceId, peerDeviceId);
}

ACL_API aclError aclrtDeviceEnablePeerAccess(std::int32_t peerDeviceId, std::uint32_t flags) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (flags != 0) return fail(ACL_ERROR_INVALID_PARAM, "flags must be 0");
        return machine().set_peer(scope.device_id, peerDeviceId, true);
      },
      peerDeviceId, flags);
}

ACL_API aclError aclrtDeviceDisablePeerAccess(std::int32_t peerDeviceId) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return machine().set_peer(scope.device_id, peerDeviceId, false); }, peerDeviceId);
}
