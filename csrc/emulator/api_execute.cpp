// AscendCL: executions.
#include <cstring>

#include "emulator/execute.hpp"

namespace ais::emulator {
namespace {

aclError execute_now(const Scope& scope, std::uint32_t id, const aclmdlDataset* input, aclmdlDataset* output) {
  std::shared_ptr<Execution> execution;
  if (const aclError code = Execution::plan(scope, id, input, output, nullptr, true, &execution)) return code;
  const TaskResult result = execution->run(monotonic_ns());
  return result.code == ACL_SUCCESS ? ACL_SUCCESS : fail(result.code, result.text);
}

aclError execute_later(const Scope& scope, std::uint32_t id, const aclmdlDataset* input, aclmdlDataset* output,
                       aclrtStream handle, bool synchronous) {
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Execution> execution;
  if (const aclError code = find_stream(scope, handle, &stream)) return code;
  if (const aclError code = Execution::plan(scope, id, input, output, stream.get(), synchronous, &execution)) return code;
  stream->submit([execution = std::move(execution)](std::int64_t ready_ns) { return execution->run(ready_ns); });
  return ACL_SUCCESS;
}

aclError execute_with(const Scope& scope, std::uint32_t id, const aclmdlDataset* input, aclmdlDataset* output,
                      aclrtStream handle, const aclmdlExecConfigHandle* config) {
  const std::shared_ptr<ExecConfig> found = objects().exec_configs.find(config);
  if (config != nullptr && found == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "not a living execution config");
  const int timeout_ms = found == nullptr ? -1 : found->stream_timeout_ms;
  if (timeout_ms < 0) return execute_now(scope, id, input, output);
  if (const aclError code = execute_later(scope, id, input, output, handle, true)) return code;
  std::shared_ptr<Stream> stream;
  const aclError code = find_stream(scope, handle, &stream);
  return code == ACL_SUCCESS ? stream->synchronize(timeout_ms, ACL_ERROR_RT_STREAM_SYNC_TIMEOUT) : code;
}

aclError set_exec_option(aclmdlExecConfigHandle* handle, aclmdlExecConfigAttr attr, const void* value, std::size_t size) {
  const std::shared_ptr<ExecConfig> config = objects().exec_configs.find(handle);
  if (config == nullptr || value == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "not a living execution config, or the value is NULL");
  if (attr < ACL_MDL_STREAM_SYNC_TIMEOUT || attr > ACL_MDL_EXEC_ATTR_LAST_KNOWN)
    return fail(ACL_ERROR_INVALID_PARAM, "unknown option");
  if (attr > ACL_MDL_EVENT_SYNC_TIMEOUT) return ACL_SUCCESS;  // hints for a scheduler, which the emulator does not have
  std::int32_t timeout = 0;
  if (size != sizeof(timeout))
    return fail(ACL_ERROR_INVALID_PARAM, "the option must have 4 bytes, got " + std::to_string(size));
  std::memcpy(&timeout, value, sizeof(timeout));
  if (timeout < -1) return fail(ACL_ERROR_INVALID_PARAM, "the timeout must be at least -1");
  (attr == ACL_MDL_STREAM_SYNC_TIMEOUT ? config->stream_timeout_ms : config->event_timeout_ms) = timeout;
  return ACL_SUCCESS;
}

}  // namespace
}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclmdlExecute(std::uint32_t modelId, const aclmdlDataset* input, aclmdlDataset* output) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return execute_now(scope, modelId, input, output); }, modelId, input, output);
}

ACL_API aclError aclmdlExecuteAsync(std::uint32_t modelId, const aclmdlDataset* input, aclmdlDataset* output,
                                    aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return execute_later(scope, modelId, input, output, stream, false); }, modelId,
                 input, output, stream);
}

ACL_API aclmdlExecConfigHandle* aclmdlCreateExecConfigHandle() {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(static_cast<aclmdlExecConfigHandle*>(nullptr), [&](const Scope&) {
    return static_cast<aclmdlExecConfigHandle*>(objects().exec_configs.add(std::make_shared<ExecConfig>()));
  });
}

ACL_API aclError aclmdlDestroyExecConfigHandle(const aclmdlExecConfigHandle* handle) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return objects().exec_configs.take(handle) != nullptr ? aclError{ACL_SUCCESS}
                                                              : fail(ACL_ERROR_INVALID_PARAM, "not a living execution config");
      },
      handle);
}

ACL_API aclError aclmdlSetExecConfigOpt(aclmdlExecConfigHandle* handle, aclmdlExecConfigAttr attr, const void* attrValue,
                                        std::size_t valueSize) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return set_exec_option(handle, attr, attrValue, valueSize); }, handle, attr, attrValue,
                 valueSize);
}

ACL_API aclError aclmdlExecuteV2(std::uint32_t modelId, const aclmdlDataset* input, aclmdlDataset* output, aclrtStream stream,
                                 const aclmdlExecConfigHandle* handle) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return execute_with(scope, modelId, input, output, stream, handle); }, modelId,
                 input, output, stream, handle);
}

ACL_API aclError aclmdlExecuteAsyncV2(std::uint32_t modelId, const aclmdlDataset* input, aclmdlDataset* output,
                                      aclrtStream stream, const aclmdlExecConfigHandle* handle) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (handle != nullptr && objects().exec_configs.find(handle) == nullptr)
          return fail(ACL_ERROR_INVALID_PARAM, "not a living execution config");
        return execute_later(scope, modelId, input, output, stream, false);
      },
      modelId, input, output, stream, handle);
}
