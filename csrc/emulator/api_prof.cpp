// AscendCL: profiling and dumping by calls.
#include <sys/stat.h>

#include <cstring>
#include <mutex>

#include "emulator/call.hpp"
#include "emulator/config.hpp"
#include "emulator/objects.hpp"
#include "emulator/profiling.hpp"

namespace ais::emulator {
namespace {

struct State {
  std::mutex mutex;
  bool by_configuration = false;
  bool dump_by_configuration = false;
  bool initialised = false;
  bool dumping = false;
  int running = 0;
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

aclError prof_init(const char* path, std::size_t length) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (path == nullptr || length == 0 || length > 4096)
    return fail(ACL_ERROR_INVALID_PARAM, "the folder for results is NULL, empty or too long");
  if (state().by_configuration) return fail(ACL_ERROR_PROF_API_CONFLICT, "aclInit's configuration profiles already");
  if (state().initialised) return fail(ACL_ERROR_PROF_ALREADY_RUN, "aclprofInit was called before");
  struct stat info = {};
  const std::string folder(path, length);
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return fail(ACL_ERROR_INVALID_FILE, "the folder for results must exist, got '" + folder + "'");
  state().initialised = true;
  return ACL_SUCCESS;
}

aclError prof_finalize() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (!state().initialised) return fail(ACL_ERROR_PROF_NOT_RUN, "aclprofInit was not called");
  if (state().running > 0) return fail(ACL_ERROR_PROF_ALREADY_RUN, "profiling was started and not stopped");
  state().initialised = false;
  return ACL_SUCCESS;
}

aclError prof_switch(const aclprofConfig* handle, bool on) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const std::shared_ptr<ProfConfig> config = objects().prof_configs.find(handle);
  if (config == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "not a living profiling config");
  if (!state().initialised) return fail(ACL_ERROR_PROF_NOT_RUN, "aclprofInit was not called");
  if (config->running == on)
    return fail(on ? ACL_ERROR_PROF_ALREADY_RUN : ACL_ERROR_PROF_NOT_RUN, on ? "started before" : "not started");
  config->running = on;
  state().running += on ? 1 : -1;
  return ACL_SUCCESS;
}

aclprofConfig* prof_config(const std::uint32_t* devices, std::uint32_t count, std::uint64_t data_types) {
  if ((devices == nullptr) != (count == 0)) {
    fail(ACL_ERROR_INVALID_PARAM, "a device list without devices, or devices without a list");
    return nullptr;
  }
  auto config = std::make_shared<ProfConfig>();
  for (std::uint32_t i = 0; i < count; ++i) {
    if (machine().device(static_cast<int>(devices[i])) == nullptr) return nullptr;
    config->devices.push_back(devices[i]);
  }
  config->data_types = data_types;
  return static_cast<aclprofConfig*>(objects().prof_configs.add(std::move(config)));
}

aclError with_stamp(const void* stamp) {
  return objects().prof_stamps.find(stamp) != nullptr ? ACL_SUCCESS : fail(ACL_ERROR_INVALID_PARAM, "not a living stamp");
}

}  // namespace

void profiling_begins(bool profiling, bool dumping) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().by_configuration = profiling;
  state().dump_by_configuration = dumping;
  state().initialised = state().dumping = false;
  state().running = 0;
}

}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclprofInit(const char* profilerResultPath, std::size_t length) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return prof_init(profilerResultPath, length); }, profilerResultPath, length);
}

ACL_API aclError aclprofFinalize() {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return prof_finalize(); });
}

ACL_API aclprofConfig* aclprofCreateConfig(std::uint32_t* deviceIdList, std::uint32_t deviceNums, int aicoreMetrics,
                                           const aclprofAicoreEvents* aicoreEvents, std::uint64_t dataTypeConfig) {
  static Function fn(__func__, Need::kInit);
  return fn.call_or(
      static_cast<aclprofConfig*>(nullptr), [&](const Scope&) { return prof_config(deviceIdList, deviceNums, dataTypeConfig); },
      deviceIdList, deviceNums, aicoreMetrics, aicoreEvents, dataTypeConfig);
}

ACL_API aclError aclprofDestroyConfig(const aclprofConfig* profilerConfig) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return objects().prof_configs.take(profilerConfig) != nullptr
                   ? aclError{ACL_SUCCESS}
                   : fail(ACL_ERROR_INVALID_PARAM, "not a living profiling config");
      },
      profilerConfig);
}

ACL_API aclError aclprofSetConfig(int configType, const char* config, std::size_t configLength) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        const bool known = configType >= 1 && configType <= 12 && configType != 2;
        return known && config != nullptr && configLength > 0
                   ? aclError{ACL_SUCCESS}
                   : fail(ACL_ERROR_INVALID_PARAM, "an unknown setting, or one without a value");
      },
      configType, config, configLength);
}

ACL_API aclError aclprofStart(const aclprofConfig* profilerConfig) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return prof_switch(profilerConfig, true); }, profilerConfig);
}

ACL_API aclError aclprofStop(const aclprofConfig* profilerConfig) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return prof_switch(profilerConfig, false); }, profilerConfig);
}

ACL_API void* aclprofCreateStamp() {
  static Function fn(__func__, Need::kInit);
  return fn.call_or(static_cast<void*>(nullptr),
                    [&](const Scope&) { return objects().prof_stamps.add(std::make_shared<std::string>()); });
}

ACL_API aclError aclprofSetStampTraceMessage(void* stamp, const char* msg, std::uint32_t msgLen) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) { return msg == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the message is NULL") : with_stamp(stamp); },
      stamp, msg, msgLen);
}

ACL_API void aclprofDestroyStamp(void* stamp) {
  static Function fn(__func__, Need::kNothing);
  fn.call(
      [&](const Scope&) { return objects().prof_stamps.take(stamp) != nullptr ? aclError{ACL_SUCCESS} : with_stamp(stamp); },
      stamp);
}

ACL_API aclError aclprofPush(void* stamp) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return with_stamp(stamp); }, stamp);
}

ACL_API aclError aclprofPop() {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return aclError{ACL_SUCCESS}; });
}

ACL_API aclError aclprofRangeStart(void* stamp, std::uint32_t* rangeId) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        if (rangeId == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the range to fill is NULL");
        *rangeId = static_cast<std::uint32_t>(reinterpret_cast<std::uint64_t>(stamp));
        return with_stamp(stamp);
      },
      stamp, filled(rangeId));
}

ACL_API aclError aclprofRangeStop(std::uint32_t rangeId) {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) { return aclError{ACL_SUCCESS}; }, rangeId);
}

ACL_API aclError aclmdlInitDump() {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (state().dumping || state().dump_by_configuration) return fail(ACL_ERROR_DUMP_ALREADY_RUN, "dumping was begun before");
    state().dumping = true;
    return aclError{ACL_SUCCESS};
  });
}

ACL_API aclError aclmdlSetDump(const char* dumpCfgPath) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        const std::lock_guard<std::mutex> lock(state().mutex);
        if (!state().dumping) return fail(ACL_ERROR_DUMP_NOT_RUN, "aclmdlInitDump was not called");
        return dumpCfgPath == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the configuration's path is NULL")
                                      : check_dump_file(dumpCfgPath);
      },
      dumpCfgPath);
}

ACL_API aclError aclmdlFinalizeDump() {
  static Function fn(__func__, Need::kInit);
  return fn.call([&](const Scope&) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (!state().dumping) return fail(ACL_ERROR_DUMP_NOT_RUN, "aclmdlInitDump was not called");
    state().dumping = false;
    return aclError{ACL_SUCCESS};
  });
}
