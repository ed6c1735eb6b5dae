// Pinning this process to processors of its own, and leaving them while another program has them.
//
// A pinned process whose processor another program uses gets half of it, whatever is free elsewhere. So a process that is
// pinned for speed looks from time to time for how long it had to wait for its processor. If that is much, and is not the doing
// of its own parent, it takes any processor that it may use, and comes back later to look again; later each time that it was in
// vain.
#pragma once

#include <cstdint>
#include <vector>

namespace ais {

// Pins all threads of this process, and those to come. `yields`: see above; then look_around() does it. 0 or an errno.
int pin(const std::vector<int>& cpus, bool yields);

// Call between two pieces of work: some tens of microseconds every 25 ms, next to nothing otherwise, and nothing at all without
// pin(..., true). Any thread; one at a time looks.
void look_around();

// Whether this process is on its own processors now.
bool is_pinned();

}  // namespace ais
