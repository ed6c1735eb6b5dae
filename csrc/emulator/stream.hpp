// Streams run work in order, in their own threads. Events connect them.
//
// Times are those of the device's clock (engine.hpp): a stream has the time at which its last work ended, and an event the time
// at which it was reached. After a failed task the stream drops its work until a synchronisation has reported the failure.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "emulator/acl_types.hpp"
#include "emulator/machine.hpp"

namespace ais::emulator {

struct TaskResult {
  aclError code = ACL_SUCCESS;
  std::string text;         // of the failure
  std::int64_t end_ns = 0;  // the device's time
};
// `ready_ns`: when the task could have begun.
using StreamTask = std::function<TaskResult(std::int64_t ready_ns)>;

// The number of a stream's last task that a synchronisation has covered. It outlives the stream, because recordings of events
// refer to it.
using DealtWith = std::atomic<std::uint64_t>;

class Stream {
 public:
  Stream(std::weak_ptr<Context> context, std::string name) : context_(std::move(context)), name_(std::move(name)) {}
  ~Stream();

  std::shared_ptr<Context> context() const { return context_.lock(); }
  // Returns the task's number on this stream, from 1.
  std::uint64_t submit(StreamTask task);
  const std::shared_ptr<const DealtWith>& dealt_with() const { return dealt_view_; }
  // Waits until all work submitted before is done. -1: without limit; otherwise a timeout returns `timeout_code`. Stores the
  // code and text of the first failure since the last synchronisation for the calling thread.
  aclError synchronize(int timeout_ms, aclError timeout_code);
  // Waits for all submitted work. Returns ACL_SUCCESS, or the code of a failure, which the next synchronisation reports.
  aclError wait_submitted();
  bool idle() const;
  // Drops queued work, and ends an injected hang of the work in progress. The stream stays usable.
  void abort();
  // Ends the thread after the queued work; with `drop`, without it. Waits for work in progress; ends an injected hang.
  void stop(bool drop);

 private:
  void work();

  const std::weak_ptr<Context> context_;
  const std::string name_;
  const std::shared_ptr<DealtWith> dealt_ = std::make_shared<DealtWith>(0);
  const std::shared_ptr<const DealtWith> dealt_view_ = dealt_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<StreamTask, std::int64_t>> queue_;  // with the time of submission
  std::uint64_t submitted_ = 0;
  std::uint64_t done_ = 0;
  std::int64_t last_end_ns_ = 0;
  aclError error_ = ACL_SUCCESS;
  std::string error_text_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> end_hangs_{false};
  std::thread thread_;
};

using Streams = HandleTable<Stream, Kind::kStream>;

// One recording of an event: reached once, waited for by many.
class EventMark {
 public:
  void reach(std::int64_t end_ns, aclError code, const std::string& text);
  // Returns false after `timeout_ms` (-1: no limit).
  bool wait(int timeout_ms);
  bool reached() const;
  // CANN reads the time of a recording when the host learns of its end: by a synchronisation of the event, its stream or the
  // device, or by a query that returns "reached". A wait of another stream does not count.
  void on_stream(std::shared_ptr<const DealtWith> stream, std::uint64_t task);
  void deal_with() { dealt_ = true; }
  bool dealt_with() const;
  std::int64_t time_ns() const;
  aclError code() const;
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  std::atomic<bool> dealt_{false};
  std::shared_ptr<const DealtWith> stream_;
  std::uint64_t task_ = 0;
  std::int64_t time_ns_ = 0;
  aclError code_ = ACL_SUCCESS;
  std::string text_;
};

// The properties of an event, set by the call that creates it. A stream may wait only for an event that was created for this. A
// device has few of them: such an event holds one of the device's numbers.
struct EventKind {
  bool timed = true;       // has a time
  bool waitable = true;    // by a stream
  bool renumbered = true;  // takes a new number at each recording; otherwise it stays "recorded" until aclrtResetEvent
};

struct Event {
  EventKind kind;
  std::weak_ptr<Context> context;
  std::mutex mutex;                 // guards the members below
  std::shared_ptr<EventMark> mark;  // the latest recording; null: not recorded, or reset
  std::shared_ptr<EventMark> gate;  // the recording that a stream waits for: the first since the reset, if not renumbered
  std::shared_ptr<void> number;     // one of the device's numbers, if the event needs one
};

using Events = HandleTable<Event, Kind::kEvent>;

Streams& streams();
Events& events();

// Returns the stream of a handle, or (NULL) the current context's default stream; 107003 for a stream of another context.
struct Scope;
aclError find_stream(const Scope& scope, aclrtStream handle, std::shared_ptr<Stream>* out);
// Synchronises all streams of the current context's device.
aclError synchronize_device(const Scope& scope, int timeout_ms);

}  // namespace ais::emulator
