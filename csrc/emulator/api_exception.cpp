// AscendCL: the callback for device exceptions, and its queries.
#include <cstring>

#include "emulator/call.hpp"
#include "emulator/exception.hpp"
#include "emulator/objects.hpp"

using namespace ais::emulator;

namespace {

// Returns one handle for an array of descs: the first one, which the program destroys for all.
aclTensorDesc* publish(const std::vector<std::shared_ptr<TensorDesc>>& descs) {
  std::vector<const void*> handles;
  handles.reserve(descs.size());
  for (const auto& desc : descs) handles.push_back(objects().tensor_descs.add(std::make_shared<TensorDesc>(*desc)));
  if (handles.empty()) return nullptr;
  objects().tensor_descs.find(handles[0])->array = handles;
  return static_cast<aclTensorDesc*>(const_cast<void*>(handles[0]));
}

}  // namespace

ACL_API aclError aclrtSetExceptionInfoCallback(aclrtExceptionInfoCallback callback) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        set_exception_callback(callback);
        return aclError{ACL_SUCCESS};
      },
      reinterpret_cast<const void*>(callback) == nullptr ? "NULL" : "callback");
}

namespace {

std::uint32_t exception_field(const aclrtExceptionInfo* info, std::uint32_t Exception::* field) {
  const Exception* exception = exception_of(info);
  return exception == nullptr ? 0xFFFFFFFF : exception->*field;
}

}  // namespace

ACL_API std::uint32_t aclrtGetTaskIdFromExceptionInfo(const aclrtExceptionInfo* info) {
  return exception_field(info, &Exception::task);
}
ACL_API std::uint32_t aclrtGetStreamIdFromExceptionInfo(const aclrtExceptionInfo* info) {
  return exception_field(info, &Exception::stream);
}
ACL_API std::uint32_t aclrtGetThreadIdFromExceptionInfo(const aclrtExceptionInfo* info) {
  return exception_field(info, &Exception::thread);
}
ACL_API std::uint32_t aclrtGetDeviceIdFromExceptionInfo(const aclrtExceptionInfo* info) {
  return exception_field(info, &Exception::device);
}
ACL_API std::uint32_t aclrtGetErrorCodeFromExceptionInfo(const aclrtExceptionInfo* info) {
  return exception_field(info, &Exception::code);
}

ACL_API aclError aclmdlCreateAndGetOpDesc(std::uint32_t deviceId, std::uint32_t streamId, std::uint32_t taskId, char* opName,
                                          std::size_t opNameLen, aclTensorDesc** inputDesc, std::size_t* numInputs,
                                          aclTensorDesc** outputDesc, std::size_t* numOutputs) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        const Exception* exception = exception_at(deviceId, streamId, taskId);
        if (exception == nullptr)
          return fail(ACL_ERROR_INVALID_PARAM, "no such task is being reported by the exception callback");
        if (opName == nullptr || opNameLen == 0 || inputDesc == nullptr || numInputs == nullptr || outputDesc == nullptr ||
            numOutputs == nullptr) {
          return fail(ACL_ERROR_INVALID_PARAM, "a place to fill is NULL");
        }
        std::strncpy(opName, exception->op_name.c_str(), opNameLen - 1);
        opName[opNameLen - 1] = '\0';
        *inputDesc = publish(exception->inputs);
        *numInputs = exception->inputs.size();
        *outputDesc = publish(exception->outputs);
        *numOutputs = exception->outputs.size();
        return aclError{ACL_SUCCESS};
      },
      deviceId, streamId, taskId);
}
