// AscendCL: events.
#include "emulator/call.hpp"
#include "emulator/report.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {
namespace {

// Reaches its mark when the stream comes to it; if the stream drops it after a failure, the mark gets this error.
class PendingRecord {
 public:
  explicit PendingRecord(std::shared_ptr<EventMark> mark) : mark_(std::move(mark)) {}
  ~PendingRecord() {
    if (!mark_->reached())
      mark_->reach(monotonic_ns(), ACL_ERROR_RT_INTERNAL_ERROR, "work of the stream before the event failed");
  }
  void reach(std::int64_t end_ns) { mark_->reach(end_ns, ACL_SUCCESS, ""); }

 private:
  std::shared_ptr<EventMark> mark_;
};

aclError find_event(aclrtEvent handle, std::shared_ptr<Event>* out) {
  *out = events().find(handle);
  if (*out != nullptr) return ACL_SUCCESS;
  return handle == nullptr ? fail(ACL_ERROR_INVALID_PARAM, "the event is NULL")
                           : fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living event (destroyed before?)");
}

aclError find_mark(aclrtEvent handle, std::shared_ptr<EventMark>* out) {
  std::shared_ptr<Event> event;
  if (const aclError code = find_event(handle, &event)) return code;
  const std::lock_guard<std::mutex> lock(event->mutex);
  *out = event->mark;
  return *out != nullptr
             ? ACL_SUCCESS
             : fail(ACL_ERROR_RT_PARAM_INVALID, handle_name(handle) + " was not recorded; waiting for it would not end");
}

aclError refuse_unwaitable(aclrtEvent handle, const char* what) {
  return fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
              std::string(what) + " " + handle_name(handle) +
                  ", which was made without ACL_EVENT_SYNC: only aclrtCreateEvent, or that flag, makes an event for it");
}

aclError no_number(const Scope& scope, const std::string& consequence) {
  return fail(ACL_ERROR_RT_NO_EVENT_RESOURCE, "all " + std::to_string(settings().product.events) + " events of device " +
                                                  std::to_string(scope.device_id) + " (" + settings().soc +
                                                  ") that a stream can wait for are in use" + consequence);
}

aclError make_event(const Scope& scope, aclrtEvent* out, EventKind kind) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the event to fill is NULL");
  auto event = std::make_shared<Event>();
  event->context = scope.context;
  event->kind = kind;
  if (kind.waitable && !kind.renumbered) {
    event->number = scope.device().take_event();
    if (event->number == nullptr) return no_number(scope, "");
  }
  *out = events().add(std::move(event));
  return ACL_SUCCESS;
}

// A renumbered event gets its number at the first recording, and keeps one from then on.
aclError take_number(const Scope& scope, Event* event) {
  if (!event->kind.waitable || event->number != nullptr) return ACL_SUCCESS;
  event->number = scope.device().take_event();
  return event->number != nullptr ? ACL_SUCCESS : no_number(scope, "; a real device would wait here until one is free");
}

aclError record_event(const Scope& scope, aclrtEvent handle, aclrtStream stream) {
  std::shared_ptr<Event> event;
  std::shared_ptr<Stream> target;
  if (const aclError code = find_event(handle, &event)) return code;
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  auto mark = std::make_shared<EventMark>();
  bool stale = false;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    if (const aclError code = take_number(scope, event.get())) return code;
    stale = event->kind.waitable && !event->kind.renumbered && event->gate != nullptr;
    if (!stale) event->gate = mark;
    event->mark = mark;
  }
  if (stale) {
    violation(handle_name(handle) +
              " was made by aclrtCreateEventWithFlag with ACL_EVENT_SYNC and recorded again without aclrtResetEvent; a stream "
              "that waits for it is let through by the earlier recording");
  }
  const std::uint64_t task = target->submit([recording = std::make_shared<PendingRecord>(mark)](std::int64_t ready_ns) {
    recording->reach(ready_ns);
    return TaskResult{ACL_SUCCESS, "", ready_ns};
  });
  mark->on_stream(target->dealt_with(), task);
  return ACL_SUCCESS;
}

aclError wait_event(const Scope& scope, aclrtStream stream, aclrtEvent handle, int timeout_ms) {
  std::shared_ptr<EventMark> mark;
  std::shared_ptr<Event> event;
  std::shared_ptr<Stream> target;
  if (const aclError code = find_mark(handle, &mark)) return code;
  if (const aclError code = find_event(handle, &event)) return code;
  if (!event->kind.waitable) return refuse_unwaitable(handle, "a stream cannot wait for");
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    mark = event->gate;
  }
  target->submit([mark, timeout_ms](std::int64_t ready_ns) {
    if (!mark->wait(timeout_ms))
      return TaskResult{ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, "a stream waited too long for an event", monotonic_ns()};
    return TaskResult{mark->code(), mark->text(), mark->time_ns() > ready_ns ? mark->time_ns() : ready_ns};
  });
  return ACL_SUCCESS;
}

aclError reset_event(const Scope& scope, aclrtEvent handle, aclrtStream stream) {
  std::shared_ptr<Event> event;
  std::shared_ptr<Stream> target;
  if (const aclError code = find_event(handle, &event)) return code;
  if (!event->kind.waitable) return refuse_unwaitable(handle, "aclrtResetEvent is not for");
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  if (event->kind.renumbered) {
    violation("aclrtResetEvent of " + handle_name(handle) + ", which aclrtCreateEvent made; CANN does not say what that does");
  }
  std::shared_ptr<EventMark> mark;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    event->gate = nullptr;  // later recordings are reached after the reset
    mark = event->mark;
  }
  target->submit([event, mark](std::int64_t ready_ns) {
    const std::lock_guard<std::mutex> lock(event->mutex);
    if (event->mark == mark) event->mark = nullptr;  // otherwise it was recorded meanwhile
    return TaskResult{ACL_SUCCESS, "", ready_ns};
  });
  return ACL_SUCCESS;
}

aclError synchronize_event(const Scope& scope, aclrtEvent handle, int timeout_ms) {
  std::shared_ptr<EventMark> mark;
  if (const aclError code = find_mark(handle, &mark)) return code;
  if (!mark->wait(timeout_ms)) {
    const std::string text = handle_name(handle) + " is not reached after " + std::to_string(timeout_ms) + " ms";
    timed_out(text);
    return fail(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, text);
  }
  mark->deal_with();
  return mark->code() == ACL_SUCCESS ? usable(scope) : fail(mark->code(), mark->text());
}

// Writes the answer of a query: whether the event's latest recording was reached.
template <typename Status>
aclError query_event(aclrtEvent handle, Status* out, Status complete, Status not_ready) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the status to fill is NULL");
  std::shared_ptr<Event> event;
  if (const aclError code = find_event(handle, &event)) return code;
  const std::lock_guard<std::mutex> lock(event->mutex);
  const bool reached = event->mark != nullptr && event->mark->reached();
  if (reached) event->mark->deal_with();
  *out = reached ? complete : not_ready;
  return ACL_SUCCESS;
}

aclError elapsed(float* out, aclrtEvent start, aclrtEvent end) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the time to fill is NULL");
  std::int64_t times[2];
  for (int i = 0; i < 2; ++i) {
    const aclrtEvent handle = i == 0 ? start : end;
    std::shared_ptr<Event> event;
    if (const aclError code = find_event(handle, &event)) return code;
    const std::lock_guard<std::mutex> lock(event->mutex);
    if (!event->kind.timed)
      return fail(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, handle_name(handle) + " was made without ACL_EVENT_TIME_LINE");
    if (event->mark == nullptr || !event->mark->dealt_with()) {
      return fail(
          ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID,
          handle_name(handle) +
              " has no time yet: synchronise the event, or the stream that it was recorded on, before asking; that another "
              "stream waited for it is not enough");
    }
    times[i] = event->mark->time_ns();
  }
  if (times[1] < times[0])
    return fail(ACL_ERROR_RT_EVENT_TIMESTAMP_REVERSAL, "the end event was reached before the start event");
  *out = static_cast<float>(static_cast<double>(times[1] - times[0]) / 1e6);
  return ACL_SUCCESS;
}

}  // namespace
}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return wait_event(scope, stream, event, -1); }, stream, event);
}

ACL_API aclError aclrtStreamWaitEventWithTimeout(aclrtStream stream, aclrtEvent event, std::int32_t timeout) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return wait_event(scope, stream, event, timeout); }, stream, event, timeout);
}

ACL_API aclError aclrtCreateEvent(aclrtEvent* event) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return make_event(scope, event, {true, true, true}); }, filled(event));
}

ACL_API aclError aclrtCreateEventWithFlag(aclrtEvent* event, std::uint32_t flag) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        if (flag == 0 || (flag & ~ACL_EVENT_FLAGS_KNOWN) != 0) return fail(ACL_ERROR_INVALID_PARAM, "unknown event flags");
        return make_event(scope, event, {(flag & ACL_EVENT_TIME_LINE) != 0, (flag & ACL_EVENT_SYNC) != 0, false});
      },
      filled(event), flag);
}

ACL_API aclError aclrtDestroyEvent(aclrtEvent event) {
  static Function fn(__func__, Need::kRelease);
  return fn.call(
      [&](const Scope&) {
        std::shared_ptr<Event> found;
        if (const aclError code = find_event(event, &found)) return code;
        events().take(event);
        return aclError{ACL_SUCCESS};
      },
      event);
}

ACL_API aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return record_event(scope, event, stream); }, event, stream);
}

ACL_API aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return reset_event(scope, event, stream); }, event, stream);
}

ACL_API aclError aclrtQueryEvent(aclrtEvent event, aclrtEventStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) { return query_event(event, status, ACL_EVENT_STATUS_COMPLETE, ACL_EVENT_STATUS_NOT_READY); }, event,
      filled(status));
}

ACL_API aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope&) {
        return query_event(event, status, ACL_EVENT_RECORDED_STATUS_COMPLETE, ACL_EVENT_RECORDED_STATUS_NOT_READY);
      },
      event, filled(status));
}

ACL_API aclError aclrtSynchronizeEvent(aclrtEvent event) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return synchronize_event(scope, event, -1); }, event);
}

ACL_API aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, std::int32_t timeout) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return synchronize_event(scope, event, timeout); }, event, timeout);
}

ACL_API aclError aclrtEventElapsedTime(float* ms, aclrtEvent startEvent, aclrtEvent endEvent) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return elapsed(ms, startEvent, endEvent); }, ms, startEvent, endEvent);
}
