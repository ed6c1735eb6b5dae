// Reads small files of the kernel. This takes some tens of microseconds.
#include "base/memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <sstream>

namespace ais {
namespace {

constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

// Returns a number from a file; `absent` if there is none, or the file has "max".
std::uint64_t number_in(const std::string& path, std::uint64_t absent) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? value : absent;
}

// Returns a file's "name value" lines, with or without a colon.
std::map<std::string, std::uint64_t> table_in(const std::string& path) {
  std::map<std::string, std::uint64_t> table;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (!(words >> name >> value)) continue;
    if (name.back() == ':') name.pop_back();
    table[name] = value;
  }
  return table;
}

MemoryRoom of_machine(const MemoryFiles& files) {
  auto table = table_in(files.machine);
  MemoryRoom room;
  room.limit = table["MemTotal"] * 1024;
  room.available = (table["MemAvailable"] + table["SwapFree"]) * 1024;
  room.of = "the memory of this machine";
  return room;
}

// Returns the limit and the available memory of one cgroup's folder; limit 0 if there is no limit.
MemoryRoom in_folder(const std::string& folder, bool second_version) {
  const std::string limit_file = folder + (second_version ? "/memory.max" : "/memory.limit_in_bytes");
  const std::uint64_t limit = number_in(limit_file, kNone);
  MemoryRoom room;
  if (limit >= kNone / 2) return room;  // version 1 has a number near 2^63 for "no limit"
  const std::uint64_t used = number_in(folder + (second_version ? "/memory.current" : "/memory.usage_in_bytes"), 0);
  auto table = table_in(folder + "/memory.stat");
  const std::string prefix = second_version ? "" : "total_";
  const std::uint64_t cached = table[prefix + "inactive_file"] + table[prefix + "active_file"];
  room.limit = limit;
  const std::uint64_t kept = used > cached ? used - cached : 0;
  room.available = limit > kept ? limit - kept : 0;
  return room;
}

// Calls `visit` with the folder, name and version of every cgroup, from this process's own up to the root.
void each_cgroup(const MemoryFiles& files, const std::function<void(const std::string&, const std::string&, bool)>& visit) {
  std::ifstream own(files.own);
  std::string line;
  while (std::getline(own, line)) {  // "0::/path" (version 2) or "4:memory:/path" (version 1)
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool second_version = controllers == ",,";
    if (!second_version && controllers.find(",memory,") == std::string::npos) continue;
    const std::string root = files.cgroups + (second_version ? "" : "/memory");
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    while (true) {  // in a container the upper folders may be missing, or show the same group
      visit(root + path, path.empty() ? "/" : path, second_version);
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
}

}  // namespace

MemoryRoom memory_room(const MemoryFiles& files) {
  MemoryRoom least = of_machine(files);
  each_cgroup(files, [&least](const std::string& folder, const std::string& name, bool second_version) {
    MemoryRoom room = in_folder(folder, second_version);
    if (room.limit == 0 || (least.limit != 0 && room.available >= least.available)) return;
    room.of = "the memory limit of cgroup " + name;
    least = room;
  });
  return least;
}

std::uint64_t memory_limit(const MemoryFiles& files) {
  std::uint64_t lowest = of_machine(files).limit;
  if (lowest == 0) {  // /proc is not readable
    lowest = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  }
  each_cgroup(files, [&lowest](const std::string& folder, const std::string&, bool second_version) {
    const std::uint64_t limit = in_folder(folder, second_version).limit;
    if (limit != 0 && (lowest == 0 || limit < lowest)) lowest = limit;
  });
  return lowest;
}

Status with_one_page(const std::function<Status(void* page, std::size_t bytes)>& use) {
  const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const page = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (page == MAP_FAILED) return Status(Code::kSystem, "there is no memory to try it with");
  Status status = use(page, bytes);
  munmap(page, bytes);
  return status;
}

}  // namespace ais
