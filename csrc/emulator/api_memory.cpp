// AscendCL: memory and copies.
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/copy.hpp"
#include "emulator/report.hpp"

using namespace ais::emulator;

namespace {

aclError malloc_device(const Scope& scope, void** out, std::size_t size, std::size_t extra,
                       MemoryKind kind = MemoryKind::kDevice) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the address to fill is NULL");
  if (size == 0) return fail(ACL_ERROR_INVALID_PARAM, "the size must be at least 1, got 0");
  if (size > SIZE_MAX - 63) return fail(ACL_ERROR_INVALID_PARAM, "size is too large");
  const std::size_t charged = (size + 31) / 32 * 32 + extra;
  return memory().allocate_device(scope.device_id, kind, size, charged, out);
}

aclError free_device(void* address, MemoryKind kind) {
  if (address == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the address is NULL");
  return memory().release(address, kind);
}

aclError malloc_host(const Scope& scope, void** out, std::size_t size) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the address to fill is NULL");
  if (size == 0) return fail(ACL_ERROR_INVALID_PARAM, "the size must be at least 1, got 0");
  return memory().allocate_pinned(scope.device_id, size, out);
}

aclError copy_now(const Copy& copy) {
  const TaskResult result = run_copy(copy, ais::monotonic_ns());
  return result.code == ACL_SUCCESS ? ACL_SUCCESS : fail(result.code, result.text);
}

aclError copy_later(const Scope& scope, const Copy& copy, aclrtStream stream) {
  if (copy.host_only && !settings().host_is_device) {
    return fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "an asynchronous copy from host to host is not supported");
  }
  std::shared_ptr<Stream> target;
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  target->submit([copy](std::int64_t ready_ns) { return run_copy(copy, ready_ns); });
  // The device cannot access pageable memory by itself, so the call returns when the copy is done.
  return copy.pageable ? target->wait_submitted() : ACL_SUCCESS;
}

struct Fill {
  Range target;
  int value;
  std::size_t count;
};

aclError plan_fill(const Scope& scope, void* address, std::size_t max, int value, std::size_t count, Fill* out) {
  if (address == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the address is NULL");
  if (count > max)
    return fail(ACL_ERROR_RT_PARAM_INVALID, "count is " + std::to_string(count) + ", maxCount " + std::to_string(max));
  if (const aclError code = memory().resolve(address, count, "the memory to set", &out->target)) return code;
  if (out->target.kind == MemoryKind::kPageable) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, "memory that AscendCL did not allocate cannot be set");
  }
  if (out->target.on_device() && out->target.device != scope.device_id) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, "the memory belongs to device " + std::to_string(out->target.device));
  }
  out->value = value;
  out->count = count;
  return ACL_SUCCESS;
}

TaskResult run_fill(const Fill& fill, std::int64_t ready_ns) {
  const std::string freed = freed_under_task(fill.target);
  if (!freed.empty()) return {ACL_ERROR_RT_DEVICE_MEM_ERROR, freed, ais::monotonic_ns()};
  std::memset(fill.target.bytes, fill.value, fill.count);
  const std::int64_t now = ais::monotonic_ns();
  return {ACL_SUCCESS, "", now > ready_ns ? now : ready_ns};
}

// Older kernels accept the call, but copies fail later.
aclError check_registering(const char* function) {
  if (!settings().product.host_register) return refused_by_product(function);
  if (!settings().kernel_pins) {
    violation(std::string(function) + " of memory that is not page-locked on kernel " + settings().kernel +
              "; kernels up to 5.10 need memory of aclrtMallocHost");
  }
  return ACL_SUCCESS;
}

}  // namespace

ACL_API aclError aclrtMalloc(void** devPtr, std::size_t size, aclrtMemMallocPolicy policy) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_device(scope, devPtr, size, 32); }, filled(devPtr), size, policy);
}

ACL_API aclError aclrtMallocAlign32(void** devPtr, std::size_t size, aclrtMemMallocPolicy policy) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_device(scope, devPtr, size, 0); }, filled(devPtr), size, policy);
}

ACL_API aclError aclrtMallocCached(void** devPtr, std::size_t size, aclrtMemMallocPolicy policy) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_device(scope, devPtr, size, 32); }, filled(devPtr), size, policy);
}

ACL_API aclError aclrtMallocWithCfg(void** devPtr, std::size_t size, aclrtMemMallocPolicy policy, void* cfg) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_device(scope, devPtr, size, 32); }, filled(devPtr), size, policy, cfg);
}

ACL_API aclError aclrtMemFlush(void* devPtr, std::size_t size) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) {
        Range range;
        return memory().resolve(devPtr, size, "the memory to flush", &range);
      },
      devPtr, size);
}

ACL_API aclError aclrtMemInvalidate(void* devPtr, std::size_t size) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) {
        Range range;
        return memory().resolve(devPtr, size, "the memory to invalidate", &range);
      },
      devPtr, size);
}

ACL_API aclError aclrtFree(void* devPtr) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return free_device(devPtr, MemoryKind::kDevice); }, devPtr);
}

ACL_API aclError aclrtFreeWithDevSync(void* devPtr) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        const aclError code = synchronize_device(scope, -1);
        return code == ACL_SUCCESS ? free_device(devPtr, MemoryKind::kDevice) : code;
      },
      devPtr);
}

ACL_API aclError aclrtFreeHostWithDevSync(void* hostPtr) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        const aclError code = synchronize_device(scope, -1);
        return code == ACL_SUCCESS ? free_device(hostPtr, MemoryKind::kPinned) : code;
      },
      hostPtr);
}

ACL_API aclError acldvppMalloc(void** devPtr, std::size_t size) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_device(scope, devPtr, size, 32, MemoryKind::kDvpp); }, filled(devPtr),
                 size);
}

ACL_API aclError acldvppFree(void* devPtr) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return free_device(devPtr, MemoryKind::kDvpp); }, devPtr);
}

ACL_API aclError aclrtMallocHost(void** hostPtr, std::size_t size) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_host(scope, hostPtr, size); }, filled(hostPtr), size);
}

ACL_API aclError aclrtMallocHostWithCfg(void** hostPtr, std::uint64_t size, void* cfg) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return malloc_host(scope, hostPtr, size); }, filled(hostPtr), size, cfg);
}

ACL_API aclError aclrtFreeHost(void* hostPtr) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return free_device(hostPtr, MemoryKind::kPinned); }, hostPtr);
}

ACL_API aclError aclrtMemcpy(void* dst, std::size_t destMax, const void* src, std::size_t count, aclrtMemcpyKind kind) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Copy copy;
        const aclError code = plan_copy(scope, {dst, destMax, src, count, kind}, &copy);
        return code == ACL_SUCCESS ? copy_now(copy) : code;
      },
      dst, destMax, src, count, kind);
}

ACL_API aclError aclrtMemcpyAsync(void* dst, std::size_t destMax, const void* src, std::size_t count, aclrtMemcpyKind kind,
                                  aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Copy copy;
        const aclError code = plan_copy(scope, {dst, destMax, src, count, kind}, &copy);
        return code == ACL_SUCCESS ? copy_later(scope, copy, stream) : code;
      },
      dst, destMax, src, count, kind, stream);
}

ACL_API aclError aclrtMemcpy2d(void* dst, std::size_t dpitch, const void* src, std::size_t spitch, std::size_t width,
                               std::size_t height, aclrtMemcpyKind kind) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Copy copy;
        const aclError code = plan_copy_2d(scope, {dst, dpitch, src, width, kind}, dpitch, spitch, height, &copy);
        return code == ACL_SUCCESS ? copy_now(copy) : code;
      },
      dst, dpitch, src, spitch, width, height, kind);
}

ACL_API aclError aclrtMemcpy2dAsync(void* dst, std::size_t dpitch, const void* src, std::size_t spitch, std::size_t width,
                                    std::size_t height, aclrtMemcpyKind kind, aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Copy copy;
        const aclError code = plan_copy_2d(scope, {dst, dpitch, src, width, kind}, dpitch, spitch, height, &copy);
        return code == ACL_SUCCESS ? copy_later(scope, copy, stream) : code;
      },
      dst, dpitch, src, spitch, width, height, kind, stream);
}

ACL_API aclError aclrtMemset(void* devPtr, std::size_t maxCount, std::int32_t value, std::size_t count) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Fill fill;
        if (const aclError code = plan_fill(scope, devPtr, maxCount, value, count, &fill)) return code;
        const TaskResult result = run_fill(fill, ais::monotonic_ns());
        return result.code == ACL_SUCCESS ? ACL_SUCCESS : fail(result.code, result.text);
      },
      devPtr, maxCount, value, count);
}

ACL_API aclError aclrtMemsetAsync(void* devPtr, std::size_t maxCount, std::int32_t value, std::size_t count,
                                  aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        Fill fill;
        if (const aclError code = plan_fill(scope, devPtr, maxCount, value, count, &fill)) return code;
        std::shared_ptr<Stream> target;
        if (const aclError code = find_stream(scope, stream, &target)) return code;
        target->submit([fill](std::int64_t ready_ns) { return run_fill(fill, ready_ns); });
        return aclError{ACL_SUCCESS};
      },
      devPtr, maxCount, value, count, stream);
}

ACL_API aclError aclrtHostRegister(void* ptr, std::uint64_t size, aclrtHostRegisterType type, void** devPtr) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (const aclError code = check_registering("aclrtHostRegister")) return code;
        if (ptr == nullptr || devPtr == nullptr || size == 0)
          return fail(ACL_ERROR_INVALID_PARAM, "an address is NULL or the size 0");
        if (type != ACL_HOST_REGISTER_MAPPED) return fail(ACL_ERROR_INVALID_PARAM, "only the type MAPPED is supported");
        return memory().register_host(ptr, size, true, scope.device_id, devPtr);
      },
      ptr, size, type, filled(devPtr));
}

ACL_API aclError aclrtHostRegisterV2(void* ptr, std::uint64_t size, std::uint32_t flag) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (const aclError code = check_registering("aclrtHostRegisterV2")) return code;
        if (ptr == nullptr || size == 0) return fail(ACL_ERROR_INVALID_PARAM, "the address is NULL or the size 0");
        if (flag == 0 || (flag & ~(ACL_HOST_REG_MAPPED | ACL_HOST_REG_PINNED)) != 0) {
          return fail(ACL_ERROR_INVALID_PARAM, "the flags must be MAPPED, PINNED or both");
        }
        return memory().register_host(ptr, size, (flag & ACL_HOST_REG_MAPPED) != 0, scope.device_id, nullptr);
      },
      ptr, size, flag);
}

ACL_API aclError aclrtHostGetDevicePointer(void* pHost, void** pDevice, std::uint32_t flag) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) {
        if (pHost == nullptr || pDevice == nullptr || flag != 0)
          return fail(ACL_ERROR_INVALID_PARAM, "an address is NULL or the flag not 0");
        *pDevice = memory().mapped_address(pHost);
        return *pDevice != nullptr ? aclError{ACL_SUCCESS}
                                   : fail(ACL_ERROR_HOST_MEMORY_NOT_REGISTERED, "the memory was not registered with MAPPED");
      },
      pHost, filled(pDevice), flag);
}

ACL_API aclError aclrtHostUnregister(void* ptr) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        if (!settings().product.host_register) return refused_by_product("aclrtHostUnregister");
        return ptr == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the address is NULL") : memory().unregister_host(ptr);
      },
      ptr);
}

ACL_API aclError aclrtPointerGetAttributes(const void* ptr, aclrtPtrAttributes* attributes) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        if (ptr == nullptr || attributes == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "an address is NULL");
        Range range;
        if (const aclError code = memory().resolve(ptr, 0, "the address", &range)) return code;
        *attributes = {};
        attributes->pageSize = 4096;
        attributes->location.id = range.device < 0 ? 0 : static_cast<std::uint32_t>(range.device);
        attributes->location.type = range.on_device()                     ? ACL_MEM_LOCATION_TYPE_DEVICE
                                    : range.kind == MemoryKind::kPageable ? ACL_MEM_LOCATION_TYPE_UNREGISTERED
                                                                          : ACL_MEM_LOCATION_TYPE_HOST;
        return aclError{ACL_SUCCESS};
      },
      ptr, attributes);
}
