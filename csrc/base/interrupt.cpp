// The check is a function pointer, because the layers that wait do not know the interpreter.
#include "base/interrupt.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/process.hpp"

namespace ais {
namespace {

std::atomic<InterruptCheck> g_check{nullptr};
thread_local bool t_checking = false;
thread_local bool t_watched = false;

struct Computation {
  std::mutex lock;
  std::condition_variable ended;
  void (*stop)(void*) = nullptr;  // guarded by lock, like the rest; null: nothing runs
  void* what = nullptr;
  std::int64_t since_ns = 0;
  std::uint64_t count = 0;  // of the computations so far
};

Computation& running() {
  static PerProcess<Computation> running;
  return running.get();
}

}  // namespace

void set_interrupt_check(InterruptCheck check) { g_check.store(check, std::memory_order_release); }

bool interrupted() {
  const InterruptCheck check = g_check.load(std::memory_order_acquire);
  if (check == nullptr || t_checking) return false;
  t_checking = true;
  const bool result = check();
  t_checking = false;
  return result;
}

bool is_watched() { return t_watched; }
void set_watched(bool watched) { t_watched = watched; }

// A computation inside another StopPoint (in a signal handler that runs a model) is not watched.
StopPoint::StopPoint(void (*stop)(void*), void* what) : watched_(t_watched && !t_checking) {
  if (!watched_) return;
  Computation& run = running();
  const std::lock_guard<std::mutex> guard(run.lock);
  run.stop = stop;
  run.what = what;
  run.since_ns = monotonic_ns();
  ++run.count;
}

StopPoint::~StopPoint() {
  if (!watched_) return;
  Computation& run = running();
  const std::lock_guard<std::mutex> guard(run.lock);
  run.stop = nullptr;
  run.ended.notify_all();
}

void stop_what_runs(std::int64_t grace_ns) {
  Computation& run = running();
  std::unique_lock<std::mutex> lock(run.lock);
  if (run.stop == nullptr) return;
  const std::uint64_t which = run.count;
  const auto left = std::chrono::nanoseconds(run.since_ns + grace_ns - monotonic_ns());
  const bool ended = run.ended.wait_for(lock, left, [&] { return run.stop == nullptr || run.count != which; });
  if (!ended) run.stop(run.what);
}

bool in_handler() { return t_checking; }

Status check_not_in_handler() {
  if (!t_checking) return Status();
  return Status(Code::kExecution,
                "a signal handler cannot use the device while the thread that it interrupted waits for a run; raise an "
                "exception in it, which ends that run, and go on after it");
}

}  // namespace ais
