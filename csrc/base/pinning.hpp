// Pins this process to its own processors, and unpins it while another program uses them.
//
// If another program uses the processor of a pinned process, each of them gets half of it, even if other processors are idle.
// So a pinned process checks from time to time how long it waited for its processor. If the wait was long, and the parent did
// not cause it, the process runs on any allowed processor and pins itself again later. The pause doubles after each failed
// attempt.
#pragma once

#include <cstdint>
#include <vector>

namespace ais {

// Pins all present and future threads of this process. `yields`: look_around() may unpin them, as above. Returns 0 or an errno.
int pin(const std::vector<int>& cpus, bool yields);

// Call this between two tasks. It takes some tens of microseconds every 25 ms, and almost nothing otherwise; without
// pin(..., true) it does nothing. Any thread; one thread at a time does the check.
void look_around();

// Returns whether this process is pinned now.
bool is_pinned();

}  // namespace ais
