// How much memory this process may use, and how much of it is available.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/status.hpp"

namespace ais {

// One limit: of a cgroup, or of the machine.
struct MemoryRoom {
  std::uint64_t limit = 0;      // bytes; 0: unknown
  std::uint64_t available = 0;  // bytes that can still be allocated; file caches count as free
  std::string of;               // the limit's name: "the memory limit of cgroup /a/b" or "the memory of this machine"
};

// The kernel's files with these numbers. Tests use other files.
struct MemoryFiles {
  std::string cgroups = "/sys/fs/cgroup";
  std::string own = "/proc/self/cgroup";
  std::string machine = "/proc/meminfo";
};

// Returns the limit with the least available memory: of the machine and of all cgroups (v1 and v2) from this process's own up.
MemoryRoom memory_room(const MemoryFiles& files = MemoryFiles());

// Returns the lowest limit in bytes.
std::uint64_t memory_limit(const MemoryFiles& files = MemoryFiles());

// Calls `use` with a page of shared memory, which is unmapped afterwards. For an attempt to register memory with a device.
Status with_one_page(const std::function<Status(void* page, std::size_t bytes)>& use);

}  // namespace ais
