// AscendCL: streams and events.
#include "emulator/call.hpp"
#include "emulator/report.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {
namespace {

// Reaches its mark when the stream comes to it, or, when the stream drops it after a failure, with that knowledge.
class Recording {
 public:
  explicit Recording(std::shared_ptr<EventMark> mark) : mark_(std::move(mark)) {}
  ~Recording() {
    if (!mark_->reached()) mark_->reach(monotonic_ns(), ACL_ERROR_RT_INTERNAL_ERROR, "work of the stream before the event failed");
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
  return *out != nullptr ? ACL_SUCCESS : fail(ACL_ERROR_RT_PARAM_INVALID, handle_name(handle) + " was not recorded; waiting for it would not end");
}

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

aclError make_event(const Scope& scope, aclrtEvent* out, bool timed) {
  if (out == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the event to fill is NULL");
  auto event = std::make_shared<Event>();
  event->context = scope.context;
  event->timed = timed;
  *out = events().add(std::move(event));
  return ACL_SUCCESS;
}

aclError record_event(const Scope& scope, aclrtEvent handle, aclrtStream stream) {
  std::shared_ptr<Event> event;
  std::shared_ptr<Stream> target;
  if (const aclError code = find_event(handle, &event)) return code;
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  auto mark = std::make_shared<EventMark>();
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    event->mark = mark;
  }
  target->submit([recording = std::make_shared<Recording>(mark)](std::int64_t ready_ns) {
    recording->reach(ready_ns);
    return TaskResult{ACL_SUCCESS, "", ready_ns};
  });
  return ACL_SUCCESS;
}

aclError wait_event(const Scope& scope, aclrtStream stream, aclrtEvent handle, int timeout_ms) {
  std::shared_ptr<EventMark> mark;
  std::shared_ptr<Stream> target;
  if (const aclError code = find_mark(handle, &mark)) return code;
  if (const aclError code = find_stream(scope, stream, &target)) return code;
  target->submit([mark, timeout_ms](std::int64_t ready_ns) {
    if (!mark->wait(timeout_ms)) return TaskResult{ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, "a stream waited too long for an event", monotonic_ns()};
    return TaskResult{mark->code(), mark->text(), mark->time_ns() > ready_ns ? mark->time_ns() : ready_ns};
  });
  return ACL_SUCCESS;
}

aclError synchronize_event(aclrtEvent handle, int timeout_ms) {
  std::shared_ptr<EventMark> mark;
  if (const aclError code = find_mark(handle, &mark)) return code;
  if (!mark->wait(timeout_ms)) {
    return fail(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, handle_name(handle) + " is not reached after " + std::to_string(timeout_ms) + " ms");
  }
  return mark->code() == ACL_SUCCESS ? ACL_SUCCESS : fail(mark->code(), mark->text());
}

aclError event_reached(aclrtEvent handle, bool* out) {
  std::shared_ptr<Event> event;
  if (const aclError code = find_event(handle, &event)) return code;
  const std::lock_guard<std::mutex> lock(event->mutex);
  *out = event->mark != nullptr && event->mark->reached();
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
    if (!event->timed) return fail(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, handle_name(handle) + " was made without ACL_EVENT_TIME_LINE");
    if (event->mark == nullptr || !event->mark->reached()) {
      return fail(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, handle_name(handle) + " is not reached yet; synchronise first");
    }
    times[i] = event->mark->time_ns();
  }
  if (times[1] < times[0]) return fail(ACL_ERROR_RT_EVENT_TIMESTAMP_REVERSAL, "the end event was reached before the start event");
  *out = static_cast<float>(static_cast<double>(times[1] - times[0]) / 1e6);
  return ACL_SUCCESS;
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
  return first;
}

aclError find_stream(const Scope& scope, aclrtStream handle, std::shared_ptr<Stream>* out) {
  if (handle == nullptr) {
    *out = scope.context->default_stream;
    return ACL_SUCCESS;
  }
  *out = streams().find(handle);
  if (*out == nullptr) return fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living stream (destroyed before?)");
  if ((*out)->context() != scope.context) {
    return fail(ACL_ERROR_RT_STREAM_CONTEXT, handle_name(handle) + " belongs to another context than " + handle_name(scope.context->handle));
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
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    if (timeout < -1) return fail(ACL_ERROR_INVALID_PARAM, "a timeout is -1 or more");
    std::shared_ptr<Stream> found;
    const aclError code = find_stream(scope, stream, &found);
    return code == ACL_SUCCESS ? found->synchronize(timeout, ACL_ERROR_RT_STREAM_SYNC_TIMEOUT) : code;
  }, stream, timeout);
}

ACL_API aclError aclrtSynchronizeStream(aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    std::shared_ptr<Stream> found;
    const aclError code = find_stream(scope, stream, &found);
    return code == ACL_SUCCESS ? found->synchronize(-1, 0) : code;
  }, stream);
}

ACL_API aclError aclrtSynchronizeDevice() {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return synchronize_device(scope, -1); });
}

ACL_API aclError aclrtSynchronizeDeviceWithTimeout(std::int32_t timeout) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    return timeout < -1 ? fail(ACL_ERROR_INVALID_PARAM, "a timeout is -1 or more") : synchronize_device(scope, timeout);
  }, timeout);
}

ACL_API aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    if (status == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the status to fill is NULL");
    std::shared_ptr<Stream> found;
    if (const aclError code = find_stream(scope, stream, &found)) return code;
    *status = found->idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
    return aclError{ACL_SUCCESS};
  }, stream, filled(status));
}

ACL_API aclError aclrtStreamAbort(aclrtStream stream) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) {
    std::shared_ptr<Stream> found;
    if (const aclError code = find_stream(scope, stream, &found)) return code;
    found->abort();
    return aclError{ACL_SUCCESS};
  }, stream);
}

ACL_API aclError aclrtStreamGetId(aclrtStream stream, std::int32_t* id) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    if (id == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the id to fill is NULL");
    std::shared_ptr<Stream> found;
    if (const aclError code = find_stream(scope, stream, &found)) return code;
    *id = static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(stream) & 0x7FFFFFFF);
    return aclError{ACL_SUCCESS};
  }, stream, filled(id));
}

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
  return fn.call([&](const Scope& scope) { return make_event(scope, event, true); }, filled(event));
}

ACL_API aclError aclrtCreateEventWithFlag(aclrtEvent* event, std::uint32_t flag) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    if (flag == 0 || (flag & ~ACL_EVENT_FLAGS_KNOWN) != 0) return fail(ACL_ERROR_INVALID_PARAM, "unknown event flags");
    return make_event(scope, event, (flag & ACL_EVENT_TIME_LINE) != 0);
  }, filled(event), flag);
}

ACL_API aclError aclrtDestroyEvent(aclrtEvent event) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope&) {
    std::shared_ptr<Event> found;
    if (const aclError code = find_event(event, &found)) return code;
    events().take(event);
    return aclError{ACL_SUCCESS};
  }, event);
}

ACL_API aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return record_event(scope, event, stream); }, event, stream);
}

ACL_API aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) {
    std::shared_ptr<Event> found;
    std::shared_ptr<Stream> target;
    if (const aclError code = find_event(event, &found)) return code;
    if (const aclError code = find_stream(scope, stream, &target)) return code;
    target->submit([found](std::int64_t ready_ns) {
      const std::lock_guard<std::mutex> lock(found->mutex);
      found->mark.reset();
      return TaskResult{ACL_SUCCESS, "", ready_ns};
    });
    return aclError{ACL_SUCCESS};
  }, event, stream);
}

ACL_API aclError aclrtQueryEvent(aclrtEvent event, aclrtEventStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) {
    bool reached = false;
    if (status == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the status to fill is NULL");
    if (const aclError code = event_reached(event, &reached)) return code;
    *status = reached ? ACL_EVENT_STATUS_COMPLETE : ACL_EVENT_STATUS_NOT_READY;
    return aclError{ACL_SUCCESS};
  }, event, filled(status));
}

ACL_API aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus* status) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) {
    bool reached = false;
    if (status == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the status to fill is NULL");
    if (const aclError code = event_reached(event, &reached)) return code;
    *status = reached ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY;
    return aclError{ACL_SUCCESS};
  }, event, filled(status));
}

ACL_API aclError aclrtSynchronizeEvent(aclrtEvent event) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return synchronize_event(event, -1); }, event);
}

ACL_API aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, std::int32_t timeout) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return synchronize_event(event, timeout); }, event, timeout);
}

ACL_API aclError aclrtEventElapsedTime(float* ms, aclrtEvent startEvent, aclrtEvent endEvent) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope&) { return elapsed(ms, startEvent, endEvent); }, ms, startEvent, endEvent);
}
