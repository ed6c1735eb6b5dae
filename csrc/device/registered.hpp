// The host memory that is registered with a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace ais::device {

using Registered = std::map<std::uintptr_t, std::size_t>;  // addresses and sizes of the ranges

// Returns whether all of the memory is in one range.
inline bool is_in_one_range(const Registered& ranges, const void* host, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(host);
  auto after = ranges.upper_bound(address);
  if (after == ranges.begin()) return false;
  const auto& [begin, size] = *--after;
  return address - begin <= size && bytes <= size - (address - begin);
}

}  // namespace ais::device
