// The signal handler that runs before Python's, and the thread that checks its count.
#include "bind/signal_watch.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/interrupt.hpp"
#include "base/process.hpp"
#include "base/tuning.hpp"

namespace ais::bind {
namespace {

// Signals with which programs end something. Others, such as those of profilers, are not touched.
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGQUIT};

std::atomic<std::uint64_t> g_signals{0};
struct sigaction g_before[64];  // by signal: the former handler; written before the new one is installed

void count_signal(int number, siginfo_t* info, void* context) {
  g_signals.fetch_add(1, std::memory_order_relaxed);
  const struct sigaction& before = g_before[number];
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  }
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == count_signal;
}

// Installs the handler for each signal that the program handles. It may have changed its handlers since the last time.
void stand_in_front() {
  for (const int number : kSignals) {
    struct sigaction now{};
    if (sigaction(number, nullptr, &now) != 0 || is_ours(now)) continue;
    if ((now.sa_flags & SA_SIGINFO) == 0 && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) continue;
    g_before[number] = now;
    struct sigaction ours = now;
    ours.sa_flags |= SA_SIGINFO;
    ours.sa_sigaction = count_signal;
    sigaction(number, &ours, nullptr);
  }
}

void step_aside() {
  for (const int number : kSignals) {
    struct sigaction now{};
    if (sigaction(number, nullptr, &now) == 0 && is_ours(now)) sigaction(number, &g_before[number], nullptr);
  }
}

bool in_main_thread() {
  static thread_local std::uint64_t generation = ~std::uint64_t{0};
  static thread_local bool is_main = false;
  if (generation != fork_generation()) {
    generation = fork_generation();
    is_main = syscall(SYS_gettid) == getpid();
  }
  return is_main;
}

class Watcher {
 public:
  // Returns false if no thread can be started now.
  bool arm() {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!alive_ && !start()) return false;
    ++runs_;
    armed_ = true;
    return true;
  }

  void disarm() {
    const std::lock_guard<std::mutex> guard(lock_);
    armed_ = false;
  }

 private:
  bool start() {
    stand_in_front();
    sigset_t all;
    sigset_t before;
    sigfillset(&all);  // block signals in that thread, because a handler there would interrupt no wait
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { watch(); }).detach();
      alive_ = true;
    } catch (const std::system_error&) {
      step_aside();
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return alive_;
  }

  void watch() {
    pthread_setname_np(pthread_self(), "ais_bench watch");
    std::uint64_t seen_runs = 0;
    std::uint64_t seen_signals = g_signals.load(std::memory_order_relaxed);
    for (int idle = 0; idle < tuning::kIdleLooks;) {
      std::this_thread::sleep_for(tuning::kSignalLookEvery);
      if (seen_signals != g_signals.load(std::memory_order_relaxed)) {
        seen_signals = g_signals.load(std::memory_order_relaxed);
        stop_what_runs(tuning::kSignalGraceNs);
      }
      const std::lock_guard<std::mutex> guard(lock_);
      if (armed_) stand_in_front();
      idle = armed_ || runs_ != seen_runs ? 0 : idle + 1;
      seen_runs = runs_;
      if (idle == tuning::kIdleLooks) {  // with the lock held: the next run starts another thread
        step_aside();
        alive_ = false;
      }
    }
  }

  std::mutex lock_;
  bool alive_ = false;  // guarded by lock_, like the rest
  bool armed_ = false;
  std::uint64_t runs_ = 0;
};

Watcher& watcher() {
  static PerProcess<Watcher> watcher;
  return watcher.get();
}

}  // namespace

SignalWatch::SignalWatch() {
  if (is_watched() || in_handler() || !in_main_thread() || !watcher().arm()) return;
  set_watched(true);
  active_ = true;
}

SignalWatch::~SignalWatch() {
  if (!active_) return;
  set_watched(false);
  watcher().disarm();
}

}  // namespace ais::bind
