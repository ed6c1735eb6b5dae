// The states of profiling and dumping. Nothing is measured: the emulator checks that they are driven as AscendCL wants.
#pragma once

namespace ais::emulator {

// Called by aclInit: profiling or dumping through its configuration excludes driving them by calls.
void profiling_begins(bool profiling, bool dumping);

}  // namespace ais::emulator
