// How much memory this process may use, and how much of it is left.
#pragma once

#include <cstdint>
#include <string>

namespace ais {

// One limit: of a cgroup, or of the machine.
struct MemoryRoom {
  std::uint64_t limit = 0;      // bytes; 0: not known
  std::uint64_t available = 0;  // bytes that can still be allocated; file caches, which the kernel gives up, count as free
  std::string of;               // whose limit: "the memory limit of cgroup /a/b" or "the memory of this machine"
};

// Where the kernel tells about it; others are for tests.
struct MemoryFiles {
  std::string cgroups = "/sys/fs/cgroup";
  std::string own = "/proc/self/cgroup";
  std::string machine = "/proc/meminfo";
};

// The limit that leaves least, of the machine and the cgroups (version 1 and 2) from this process's own up to the root.
MemoryRoom memory_room(const MemoryFiles& files = MemoryFiles());

// The lowest limit, in bytes.
std::uint64_t memory_limit(const MemoryFiles& files = MemoryFiles());

}  // namespace ais
