// Reports one exception at a time, in the thread where it occurred.
#include "emulator/exception.hpp"

#include <atomic>

#include "emulator/handles.hpp"
#include "emulator/objects.hpp"

namespace ais::emulator {
namespace {

std::atomic<aclrtExceptionInfoCallback> g_callback{nullptr};
std::atomic<std::uint32_t> g_last_task{0};
thread_local const Exception* t_telling = nullptr;

}  // namespace

void set_exception_callback(aclrtExceptionInfoCallback callback) { g_callback = callback; }

void raise_exception(Exception exception) {
  const aclrtExceptionInfoCallback callback = g_callback;
  if (callback == nullptr) return;
  exception.task = ++g_last_task;
  t_telling = &exception;
  callback(static_cast<aclrtExceptionInfo*>(make_handle(Kind::kException, exception.task)));
  t_telling = nullptr;
}

const Exception* exception_of(const aclrtExceptionInfo* info) {
  return t_telling != nullptr && info == make_handle(Kind::kException, t_telling->task) ? t_telling : nullptr;
}

const Exception* exception_at(std::uint32_t device, std::uint32_t stream, std::uint32_t task) {
  const bool same =
      t_telling != nullptr && t_telling->device == device && t_telling->stream == stream && t_telling->task == task;
  return same ? t_telling : nullptr;
}

}  // namespace ais::emulator
