// Streams: work in order, on a thread of its own, behind the thread that submits it. Events between them.
//
// Time is the device's (engine.hpp): a stream knows when, by that clock, its last work ended, and an event carries the time at
// which it was reached. After a failed task the stream drops its work, unrun, until a synchronisation has reported the failure.
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
// `ready_ns` is when the task could have begun.
using Task = std::function<TaskResult(std::int64_t ready_ns)>;

// How far the host has dealt with a stream's work: the number of the last task that a synchronisation covered. Outlives the
// stream, because recordings of events refer to it.
using DealtWith = std::atomic<std::uint64_t>;

class Stream {
 public:
  Stream(std::weak_ptr<Context> context, std::string name) : context_(std::move(context)), name_(std::move(name)) {}
  ~Stream();

  std::shared_ptr<Context> context() const { return context_.lock(); }
  // Returns the task's number on this stream, from 1.
  std::uint64_t submit(Task task);
  const std::shared_ptr<const DealtWith>& dealt_with() const { return dealt_view_; }
  // Waits until everything submitted before is done; -1 waits without limit, another timeout answers `timeout_code`. The code
  // and text of the first failure since the last synchronisation are left for the calling thread.
  aclError synchronize(int timeout_ms, aclError timeout_code);
  // Waits for everything submitted; leaves a failure for the next synchronisation and returns ACL_SUCCESS, or the failure's
  // code.
  aclError wait_submitted();
  bool idle() const;
  // Drops queued work, and ends an injected hang in the work in progress; the stream can be used again.
  void abort();
  // Ends the thread: after the queued work, or with `drop` without it. Work in progress is waited for; an injected hang ends.
  void stop(bool drop);

 private:
  void work();

  const std::weak_ptr<Context> context_;
  const std::string name_;
  const std::shared_ptr<DealtWith> dealt_ = std::make_shared<DealtWith>(0);
  const std::shared_ptr<const DealtWith> dealt_view_ = dealt_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Task, std::int64_t>> queue_;  // with the time of submission
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
  // False when `timeout_ms` (-1: no limit) passed first.
  bool wait(int timeout_ms);
  bool reached() const;
  // CANN reads the time of a recording when the host deals with its end: by a synchronisation of the event, of its stream or of
  // the device, or by a query that says "reached". That another stream waited for it does not count.
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

// What the calls that make events give them. A stream may wait only for an event that was made to be waited for, and that is
// what a device has few of: such an event holds one of its numbers.
struct EventKind {
  bool timed = true;       // a time can be asked for
  bool waitable = true;    // by a stream
  bool renumbered = true;  // takes a new number at each recording; else it stays "recorded" until aclrtResetEvent
};

struct Event {
  EventKind kind;
  std::weak_ptr<Context> context;
  std::mutex mutex;                 // guards what follows
  std::shared_ptr<EventMark> mark;  // the latest recording; null: not recorded, or reset
  std::shared_ptr<EventMark> gate;  // what a stream waits for: the first recording since the reset, if not renumbered
  std::shared_ptr<void> number;     // one of the device's, if it holds one
};

using Events = HandleTable<Event, Kind::kEvent>;

Streams& streams();
Events& events();

// The stream of that handle, or (NULL) the current context's default stream. 107003 for a stream of another context.
struct Scope;
aclError find_stream(const Scope& scope, aclrtStream handle, std::shared_ptr<Stream>* out);
// All streams of the current context's device.
aclError synchronize_device(const Scope& scope, int timeout_ms);

}  // namespace ais::emulator
