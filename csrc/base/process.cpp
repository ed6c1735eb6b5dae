// Affinity from sched_getaffinity, quotas from the cgroup files, forks from pthread_atfork.
#include "base/process.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace ais {
namespace {

std::atomic<std::uint64_t> g_generation{0};

// The library is loaded before any object that asks for the generation exists, so registering at load misses no fork.
const int g_registered = pthread_atfork(nullptr, nullptr, [] { g_generation.fetch_add(1, std::memory_order_relaxed); });

double quota_in(const std::string& folder) {
  std::ifstream v2(folder + "/cpu.max");
  std::string limit;
  double period = 0;
  if (v2 >> limit >> period) return limit == "max" || period <= 0 ? 0 : std::strtod(limit.c_str(), nullptr) / period;
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0;
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) return quota / period;
  return 0;
}

// Returns the lowest quota of the cgroups from this process's own up to the root; 0 if there is none.
double cgroup_quota() {
  double lowest = 0;
  auto take = [&lowest](double quota) {
    if (quota > 0 && (lowest == 0 || quota < lowest)) lowest = quota;
  };
  std::ifstream self("/proc/self/cgroup");
  std::string line;
  while (std::getline(self, line)) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    std::string root;
    if (controllers.empty()) {
      root = "/sys/fs/cgroup";
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      root = "/sys/fs/cgroup/cpu";
    } else {
      continue;
    }
    while (true) {
      take(quota_in(root + (path == "/" ? "" : path)));
      if (path.empty() || path == "/") break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return lowest;
}

}  // namespace

std::uint64_t fork_generation() {
  (void)g_registered;
  return g_generation.load(std::memory_order_relaxed);
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  for (int size = CPU_SETSIZE; cpus.empty() && size <= (1 << 20); size *= 4) {  // a kernel with more CPUs refuses a small set
    cpu_set_t* set = CPU_ALLOC(size);
    const std::size_t bytes = CPU_ALLOC_SIZE(size);
    CPU_ZERO_S(bytes, set);
    if (sched_getaffinity(0, bytes, set) == 0) {
      for (int cpu = 0; cpu < size; ++cpu) {
        if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
      }
    }
    CPU_FREE(set);
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

bool share_a_cache(const std::vector<int>& cpus) {
  std::string list;  // of the processors at the cache with the highest level: "0-3,8-11"
  for (int index = 0, highest = 0;; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu" + std::to_string(cpus.front()) + "/cache/index" + std::to_string(index);
    std::ifstream level_file(folder + "/level");
    int level = 0;
    if (!(level_file >> level)) break;
    if (level <= highest) continue;
    highest = level;
    list.clear();
    std::ifstream(folder + "/shared_cpu_list") >> list;
  }
  std::vector<int> missing = cpus;
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');) {
    int first = 0;
    int last = 0;
    const int numbers = std::sscanf(part.c_str(), "%d-%d", &first, &last);
    if (numbers < 1) return false;
    if (numbers == 1) last = first;
    missing.erase(std::remove_if(missing.begin(), missing.end(), [&](int cpu) { return first <= cpu && cpu <= last; }),
                  missing.end());
  }
  return missing.empty();
}

int current_cpu() { return sched_getcpu(); }

int usable_cpu_count() {
  const int allowed = static_cast<int>(allowed_cpus().size());
  const double quota = cgroup_quota();
  if (quota <= 0) return allowed;
  return std::clamp(static_cast<int>(quota + 0.999), 1, allowed);
}

bool die_with_parent(int parent) {
  // In this order: if the parent dies between the two calls, the second one notices it.
  return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

void ignore_interrupts() { ::signal(SIGINT, SIG_IGN); }

std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace ais
