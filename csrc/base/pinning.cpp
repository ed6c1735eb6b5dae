// /proc/self/schedstat has the time for which the main thread was ready and did not run.
#include "base/pinning.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/process.hpp"
#include "base/tuning.hpp"

namespace ais {
namespace {

struct Pinned {
  std::vector<int> own;
  std::vector<int> all;
  std::int64_t ran_ns = 0;     // of the main thread, at the last check
  std::int64_t waited_ns = 0;  // the same
  std::int64_t parent_ns = 0;  // processor time of the parent, at the last check
  std::int64_t away_ns = tuning::kPinFirstAwayNs;
  bool away = false;
};

std::atomic<bool> g_yields{false};
std::atomic<bool> g_looking{false};
std::atomic<bool> g_pinned{false};
std::atomic<std::int64_t> g_next_look_ns{0};
Pinned g_state;  // guarded by g_looking

std::size_t read_file(const char* path, char* text, std::size_t size) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t got = read(fd, text, size - 1);
  close(fd);
  text[got > 0 ? got : 0] = 0;
  return got > 0 ? static_cast<std::size_t>(got) : 0;
}

// Returns how long this process's main thread ran, and waited to run. False if the kernel does not count this.
bool read_own(std::int64_t* ran_ns, std::int64_t* waited_ns) {
  char text[128];
  long long ran = 0;
  long long waited = 0;
  if (read_file("/proc/self/schedstat", text, sizeof text) == 0 || std::sscanf(text, "%lld %lld", &ran, &waited) != 2)
    return false;
  *ran_ns = ran;
  *waited_ns = waited;
  return ran != 0;
}

// Returns the processor time of all threads of the parent.
std::int64_t read_parent() {
  char path[64];
  char text[1024];
  std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(getppid()));
  if (read_file(path, text, sizeof text) == 0) return 0;
  const char* after_name = std::strrchr(text, ')');  // the name may contain any character
  unsigned long user = 0;
  unsigned long system = 0;
  if (after_name == nullptr ||
      std::sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
    return 0;
  }
  static const long ticks = sysconf(_SC_CLK_TCK);
  return static_cast<std::int64_t>(user + system) * (1'000'000'000 / ticks);
}

int move_to(const std::vector<int>& cpus) {
  int highest = 0;
  for (const int cpu : cpus) highest = cpu > highest ? cpu : highest;
  cpu_set_t* const set = CPU_ALLOC(highest + 1);
  const std::size_t bytes = CPU_ALLOC_SIZE(highest + 1);
  CPU_ZERO_S(bytes, set);
  for (const int cpu : cpus) CPU_SET_S(cpu, bytes, set);
  const int failed = sched_setaffinity(0, bytes, set) == 0 ? 0 : errno;
  DIR* const threads = failed == 0 ? opendir("/proc/self/task") : nullptr;
  if (threads != nullptr) {
    while (const dirent* entry = readdir(threads)) {
      const int thread = std::atoi(entry->d_name);
      if (thread > 0) (void)sched_setaffinity(thread, bytes, set);  // the thread may have ended
    }
    closedir(threads);
  }
  CPU_FREE(set);
  return failed;
}

void move(Pinned* state, bool away) {
  state->away = away;
  g_pinned.store(!away, std::memory_order_relaxed);
  (void)move_to(away ? state->all : state->own);
}

void look(Pinned* state, std::int64_t now_ns) {
  if (state->away) {  // the pause is over: try again
    move(state, false);
  } else {
    std::int64_t ran = 0;
    std::int64_t waited = 0;
    if (!read_own(&ran, &waited)) return;
    const std::int64_t parent = read_parent();
    const std::int64_t ran_now = ran - state->ran_ns;
    const std::int64_t by_others = waited - state->waited_ns - (parent - state->parent_ns);
    state->ran_ns = ran;
    state->waited_ns = waited;
    state->parent_ns = parent;
    const double ready = static_cast<double>(ran_now) + static_cast<double>(by_others);
    if (by_others > tuning::kPinLookEveryNs / 10 && static_cast<double>(by_others) > tuning::kPinOthersShare * ready) {
      move(state, true);
      g_next_look_ns.store(now_ns + state->away_ns, std::memory_order_relaxed);
      state->away_ns = state->away_ns * 2 < tuning::kPinLongestAwayNs ? state->away_ns * 2 : tuning::kPinLongestAwayNs;
      return;
    }
    if (ran_now > tuning::kPinLookEveryNs / 2) state->away_ns = tuning::kPinFirstAwayNs;  // no other program used its processor
  }
  read_own(&state->ran_ns, &state->waited_ns);
  state->parent_ns = read_parent();
  g_next_look_ns.store(now_ns + tuning::kPinLookEveryNs, std::memory_order_relaxed);
}

}  // namespace

int pin(const std::vector<int>& cpus, bool yields) {
  g_state = Pinned();
  g_state.own = cpus;
  g_state.all = allowed_cpus();
  const int failed = move_to(cpus);
  if (failed != 0) return failed;
  g_pinned.store(true, std::memory_order_relaxed);
  if (!read_own(&g_state.ran_ns, &g_state.waited_ns)) yields = false;
  g_state.parent_ns = read_parent();
  g_next_look_ns.store(monotonic_ns() + tuning::kPinLookEveryNs, std::memory_order_relaxed);
  g_yields.store(yields && g_state.all.size() > cpus.size(), std::memory_order_release);
  return 0;
}

void look_around() {
  if (!g_yields.load(std::memory_order_acquire)) return;
  timespec coarse{};  // a few milliseconds late at most, and much cheaper
  clock_gettime(CLOCK_MONOTONIC_COARSE, &coarse);
  const std::int64_t now_ns = std::int64_t{coarse.tv_sec} * 1'000'000'000 + coarse.tv_nsec;
  if (now_ns < g_next_look_ns.load(std::memory_order_relaxed)) return;
  if (g_looking.exchange(true, std::memory_order_acquire)) return;
  look(&g_state, now_ns);
  g_looking.store(false, std::memory_order_release);
}

bool is_pinned() { return g_pinned.load(std::memory_order_relaxed); }

}  // namespace ais
