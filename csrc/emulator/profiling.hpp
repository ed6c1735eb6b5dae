// The states of profiling and dumping. Nothing is measured: the emulator checks the order of the calls, as AscendCL does.
#pragma once

namespace ais::emulator {

// Called by aclInit. If the configuration asks for profiling or dumping, the calls for it are refused.
void profiling_begins(bool profiling, bool dumping);

}  // namespace ais::emulator
