// The thread of a stream, and events.
#include "emulator/stream.hpp"

#include <chrono>

#include "emulator/error.hpp"
#include "emulator/faults.hpp"
#include "emulator/report.hpp"

namespace ais::emulator {
namespace {

// Waits on `changed` until `ready`, or for `timeout_ms` (-1: no limit).
template <typename Ready>
bool wait_for(std::condition_variable* changed, std::unique_lock<std::mutex>* lock, int timeout_ms, Ready ready) {
  if (timeout_ms >= 0) return changed->wait_for(*lock, std::chrono::milliseconds(timeout_ms), ready);
  changed->wait(*lock, ready);
  return true;
}

}  // namespace

Streams& streams() {
  static auto* const table = new Streams;
  return *table;
}

Events& events() {
  static auto* const table = new Events;
  return *table;
}

Stream::~Stream() { stop(true); }

std::uint64_t Stream::submit(StreamTask task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.emplace_back(std::move(task), monotonic_ns());
  ++submitted_;
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  changed_.notify_all();
  return submitted_;
}

void Stream::work() {
  interrupt_hangs_by(&end_hangs_);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    auto [task, submitted_ns] = std::move(queue_.front());
    queue_.pop_front();
    const bool skip = error_ != ACL_SUCCESS;
    const std::int64_t ready_ns = submitted_ns > last_end_ns_ ? submitted_ns : last_end_ns_;
    lock.unlock();
    TaskResult result;
    if (!skip) result = task(ready_ns);
    task = nullptr;  // free its objects before a waiter learns that it is done
    lock.lock();
    ++done_;
    if (result.end_ns > last_end_ns_) last_end_ns_ = result.end_ns;
    if (result.code != ACL_SUCCESS) {
      error_ = result.code;
      error_text_ = std::move(result.text);
    }
    changed_.notify_all();
  }
}

aclError Stream::synchronize(int timeout_ms, aclError timeout_code) {
  std::unique_lock<std::mutex> lock(mutex_);
  const std::uint64_t goal = submitted_;
  if (!wait_for(&changed_, &lock, timeout_ms, [&] { return done_ >= goal; })) {
    timed_out(name_ + " is not done after " + std::to_string(timeout_ms) + " ms");
    return fail(timeout_code, name_ + " is not done after " + std::to_string(timeout_ms) + " ms");
  }
  if (*dealt_ < goal) *dealt_ = goal;
  if (error_ == ACL_SUCCESS) return ACL_SUCCESS;
  const aclError code = error_;
  error_ = ACL_SUCCESS;
  return fail(code, error_text_);
}

aclError Stream::wait_submitted() {
  std::unique_lock<std::mutex> lock(mutex_);
  const std::uint64_t goal = submitted_;
  changed_.wait(lock, [&] { return done_ >= goal; });
  return error_ == ACL_SUCCESS ? ACL_SUCCESS : fail(error_, error_text_);
}

void Stream::abort() {
  std::unique_lock<std::mutex> lock(mutex_);
  done_ += queue_.size();
  queue_.clear();
  end_hangs_ = true;
  changed_.wait(lock, [&] { return done_ == submitted_; });
  end_hangs_ = false;
  error_ = ACL_SUCCESS;
}

bool Stream::idle() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return done_ == submitted_;
}

void Stream::stop(bool drop) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    end_hangs_ = true;
    if (drop) {
      done_ += queue_.size();
      queue_.clear();
    }
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();  // never called in the thread itself, because tasks hold no reference to the stream
}

void EventMark::reach(std::int64_t end_ns, aclError code, const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reached_ = true;
  time_ns_ = end_ns;
  code_ = code;
  text_ = text;
  changed_.notify_all();
}

bool EventMark::wait(int timeout_ms) {
  std::unique_lock<std::mutex> lock(mutex_);
  return wait_for(&changed_, &lock, timeout_ms, [this] { return reached_; });
}

void EventMark::on_stream(std::shared_ptr<const DealtWith> stream, std::uint64_t task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stream_ = std::move(stream);
  task_ = task;
}

bool EventMark::dealt_with() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return reached_ && (dealt_ || (stream_ != nullptr && stream_->load() >= task_));
}

bool EventMark::reached() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return reached_;
}

std::int64_t EventMark::time_ns() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return time_ns_;
}

aclError EventMark::code() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return code_;
}

std::string EventMark::text() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return text_;
}

}  // namespace ais::emulator
