// AscendCL: streams.
#include "emulator/call.hpp"
#include "emulator/report.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {
namespace {

aclError make_stream(const Scope& scope, aclrtStream* out, std::uint32_t flag) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the stream to fill is NULL");
  if ((flag & ~ACL_STREAM_FLAGS_KNOWN) != 0) return fail(ACL_ERROR_INVALID_PARAM, "unknown stream flags");
  *out = streams().add(std::make_shared<Stream>(scope.context, "the stream"));
  return ACL_SUCCESS;
}

aclError destroy_stream(aclrtStream handle, bool force) {
  if (handle == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "a default stream cannot be destroyed");
  const std::shared_ptr<Stream> stream = streams().take(handle);
  if (stream == nullptr) return fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living stream (destroyed before?)");
  if (!force && !stream->idle()) violation(handle_name(handle) + " was destroyed with work in progress; synchronise it first");
  stream->stop(force);
  return ACL_SUCCESS;
}

// Prefers the stream's own failure to the error of its context, because it has more information.
aclError synchronize_stream(const Scope& scope, Stream* stream, int timeout_ms) {
  const aclError code = stream->synchronize(timeout_ms, ACL_ERROR_RT_STREAM_SYNC_TIMEOUT);
  return code == ACL_SUCCESS ? usable(scope) : code;
}

}  // namespace

aclError synchronize_device(const Scope& scope, int timeout_ms) {
  aclError first = scope.context->default_stream->synchronize(timeout_ms, ACL_ERROR_RT_STREAM_SYNC_TIMEOUT);
  for (const auto& entry : streams().all()) {
    const std::shared_ptr<Context> context = entry.second->context();
    if (context == nullptr || context->device != scope.device_id) continue;
    const aclError code = entry.second->synchronize(timeout_ms, ACL_ERROR_RT_STREAM_SYNC_TIMEOUT);
    if (first == ACL_SUCCESS) first = code;
  }
  return first == ACL_SUCCESS ? usable(scope) : first;
}

aclError find_stream(const Scope& scope, aclrtStream handle, std::shared_ptr<Stream>* out) {
  if (handle == nullptr) {
    *out = scope.context->default_stream;
    return ACL_SUCCESS;
  }
  *out = streams().find(handle);
  if (*out == nullptr) return fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living stream (destroyed before?)");
  if ((*out)->context() != scope.context) {
    return fail(ACL_ERROR_RT_STREAM_CONTEXT,
                handle_name(handle) + " belongs to another context than " + handle_name(scope.context->handle));
  }
  return ACL_SUCCESS;
}

}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclrtCreateStream(aclrtStream* stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return make_stream(scope, stream, 0); }, filled(stream));
}

ACL_API aclError aclrtCreateStreamWithConfig(aclrtStream* stream, std::uint32_t priority, std::uint32_t flag) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return make_stream(scope, stream, flag); }, filled(stream), priority, flag);
}

ACL_API aclError aclrtDestroyStream(aclrtStream stream) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope&) { return destroy_stream(stream, false); }, stream);
}

ACL_API aclError aclrtDestroyStreamForce(aclrtStream stream) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope&) { return destroy_stream(stream, true); }, stream);
}

ACL_API aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, std::int32_t timeout) {
  static Function fn(__func__, Need::kRelease);
  return fn.call(
      [&](const Scope& scope) {
        if (timeout < -1) return fail(ACL_ERROR_INVALID_PARAM, "the timeout must be at least -1");
        std::shared_ptr<Stream> found;
        const aclError code = find_stream(scope, stream, &found);
        return code == ACL_SUCCESS ? synchronize_stream(scope, found.get(), timeout) : code;
      },
      stream, timeout);
}

ACL_API aclError aclrtSynchronizeStream(aclrtStream stream) {
  static Function fn(__func__, Need::kRelease);
  return fn.call(
      [&](const Scope& scope) {
        std::shared_ptr<Stream> found;
        const aclError code = find_stream(scope, stream, &found);
        return code == ACL_SUCCESS ? synchronize_stream(scope, found.get(), -1) : code;
      },
      stream);
}

ACL_API aclError aclrtSynchronizeDevice() {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return synchronize_device(scope, -1); });
}

ACL_API aclError aclrtSynchronizeDeviceWithTimeout(std::int32_t timeout) {
  static Function fn(__func__, Need::kRelease);
  return fn.call(
      [&](const Scope& scope) {
        return timeout < -1 ? fail(ACL_ERROR_INVALID_PARAM, "the timeout must be at least -1")
                            : synchronize_device(scope, timeout);
      },
      timeout);
}

ACL_API aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (status == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the status to fill is NULL");
        std::shared_ptr<Stream> found;
        if (const aclError code = find_stream(scope, stream, &found)) return code;
        *status = found->idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
        return aclError{ACL_SUCCESS};
      },
      stream, filled(status));
}

ACL_API aclError aclrtStreamAbort(aclrtStream stream) {
  static Function fn(__func__, Need::kRelease);
  return fn.call(
      [&](const Scope& scope) {
        std::shared_ptr<Stream> found;
        if (const aclError code = find_stream(scope, stream, &found)) return code;
        if (!settings().product.stream_abort) return refused_by_product("aclrtStreamAbort");
        found->abort();
        return aclError{ACL_SUCCESS};
      },
      stream);
}

ACL_API aclError aclrtStreamGetId(aclrtStream stream, std::int32_t* id) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (id == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the id to fill is NULL");
        std::shared_ptr<Stream> found;
        if (const aclError code = find_stream(scope, stream, &found)) return code;
        *id = static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(stream) & 0x7FFFFFFF);
        return aclError{ACL_SUCCESS};
      },
      stream, filled(id));
}
