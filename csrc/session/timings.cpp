// The process-wide log.
#include "session/timings.hpp"

namespace ais::session {

MemoryTimes& memory_times() {
  static PerProcess<MemoryTimes> times;
  return times.get();
}

}  // namespace ais::session
