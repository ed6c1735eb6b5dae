// The rules of aclrtMemcpy.
#include "emulator/copy.hpp"

#include <cstring>

#include "emulator/faults.hpp"

namespace ais::emulator {
namespace {

aclrtMemcpyKind direction_of(const Copy& copy) {
  if (copy.dst.on_device()) return copy.src.on_device() ? ACL_MEMCPY_DEVICE_TO_DEVICE : ACL_MEMCPY_HOST_TO_DEVICE;
  return copy.src.on_device() ? ACL_MEMCPY_DEVICE_TO_HOST : ACL_MEMCPY_HOST_TO_HOST;
}

const char* direction_text(aclrtMemcpyKind kind) {
  static const char* const kTexts[] = {"host to host", "host to device", "device to host", "device to device"};
  return kTexts[kind];
}

aclError check_sides(const Scope& scope, aclrtMemcpyKind kind, Copy* copy) {
  for (const Range* side : {&copy->dst, &copy->src}) {
    if (side->kind == MemoryKind::kMapped) {
      return fail(ACL_ERROR_RT_PARAM_INVALID,
                  "the device's address of registered memory is for kernels; copies take the host's address");
    }
    if (!side->on_device() || side->device == scope.device_id) continue;
    const bool both = copy->dst.on_device() && copy->src.on_device();
    if (both && machine().has_peer(scope.device_id, side->device)) continue;
    return fail(ACL_ERROR_RT_PARAM_INVALID, "the memory belongs to device " + std::to_string(side->device) +
                                                ", the current context to device " + std::to_string(scope.device_id) +
                                                (both ? " (aclrtDeviceEnablePeerAccess was not called)" : ""));
  }
  const aclrtMemcpyKind actual = direction_of(*copy);
  // If host and device memory are the same, any direction is valid.
  if (kind != ACL_MEMCPY_DEFAULT && kind != actual && !settings().host_is_device) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, std::string("the direction given is ") + direction_text(kind) +
                                                ", the addresses are " + direction_text(actual));
  }
  copy->host_only = actual == ACL_MEMCPY_HOST_TO_HOST;
  copy->pageable = copy->dst.kind == MemoryKind::kPageable || copy->src.kind == MemoryKind::kPageable;
  return ACL_SUCCESS;
}

aclError check_arguments(const CopyRequest& request) {
  if (request.dst == nullptr || request.src == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "an address is NULL");
  if (request.kind < ACL_MEMCPY_HOST_TO_HOST || request.kind > ACL_MEMCPY_DEFAULT) {
    return fail(ACL_ERROR_INVALID_PARAM, "unknown direction " + std::to_string(request.kind));
  }
  if (request.count > request.dst_max) {
    return fail(ACL_ERROR_RT_PARAM_INVALID,
                "count is " + std::to_string(request.count) + ", destMax " + std::to_string(request.dst_max));
  }
  return ACL_SUCCESS;
}

}  // namespace

aclError plan_copy(const Scope& scope, const CopyRequest& request, Copy* out) {
  if (const aclError code = check_arguments(request)) return code;
  if (const aclError code = memory().resolve(request.dst, request.count, "the destination", &out->dst)) return code;
  if (const aclError code = memory().resolve(request.src, request.count, "the source", &out->src)) return code;
  if (const aclError code = check_sides(scope, request.kind, out)) return code;
  out->device = scope.device_id;
  out->width = request.dst == request.src ? 0 : request.count;
  return ACL_SUCCESS;
}

aclError plan_copy_2d(const Scope& scope, const CopyRequest& row, std::size_t dst_pitch, std::size_t src_pitch,
                      std::size_t height, Copy* out) {
  if (row.count == 0 || height == 0 || row.count > dst_pitch || row.count > src_pitch) {
    return fail(ACL_ERROR_INVALID_PARAM, "width and height must not be 0, and width not more than a pitch");
  }
  if (height > SIZE_MAX / (dst_pitch > src_pitch ? dst_pitch : src_pitch))
    return fail(ACL_ERROR_INVALID_PARAM, "the copy is too large");
  if (const aclError code = check_arguments(row)) return code;
  const std::size_t before = height - 1;
  if (const aclError code = memory().resolve(row.dst, before * dst_pitch + row.count, "the destination", &out->dst))
    return code;
  if (const aclError code = memory().resolve(row.src, before * src_pitch + row.count, "the source", &out->src)) return code;
  if (const aclError code = check_sides(scope, row.kind, out)) return code;
  out->device = scope.device_id;
  out->dst_pitch = dst_pitch;
  out->src_pitch = src_pitch;
  out->width = row.count;
  out->height = height;
  return ACL_SUCCESS;
}

std::string freed_under_task(const Range& range) {
  return range.freed() ? memory().name(range.owner->address) + " was freed while a task used it" : "";
}

TaskResult task_failure(aclError code) {
  const char* text = take_recent_error();
  return {code, text == nullptr ? "" : text, monotonic_ns()};
}

TaskResult run_copy(const Copy& copy, std::int64_t ready_ns) {
  if (const aclError code = fault_at("device.copy", copy.device)) return task_failure(code);
  for (const Range* side : {&copy.dst, &copy.src}) {
    const std::string freed = freed_under_task(*side);
    if (!freed.empty()) return {ACL_ERROR_RT_DEVICE_MEM_ERROR, freed, monotonic_ns()};
  }
  const auto work = [&copy] {
    if (copy.width == 0) return;
    for (std::size_t row = 0; row < copy.height; ++row) {
      std::memmove(copy.dst.bytes + row * copy.dst_pitch, copy.src.bytes + row * copy.src_pitch, copy.width);
    }
  };
  Device& device = *machine().device(copy.device);
  TaskResult result;
  if (copy.dst.on_device() == copy.src.on_device()) {  // within the device or within the host: the link is not used
    work();
    const std::int64_t now = monotonic_ns();
    result.end_ns = now > ready_ns ? now : ready_ns;
  } else {
    Engine& engine = copy.dst.on_device() ? device.copy_in : device.copy_out;
    result.end_ns = engine.run(ready_ns, device.copy_ns(copy.width * copy.height), work);
  }
  return result;
}

}  // namespace ais::emulator
