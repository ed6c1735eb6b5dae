// Injected faults: rules for which call of which function fails, hangs or crashes, on which device.
//
// Rules are separated by ';', each `function[:calls]=action[@device]`:
//   function   a name of the ABI; `device.execute` or `device.copy` for the work itself (an asynchronous call then fails when
//              it runs, not when it is submitted); `*` for every function
//   calls      `3` the third, `3+` from the third on, `2-4` a range; default: every call. Only calls on `device` are counted
//   action     a code of CANN, `oom` (207001), `lost` (507010), `hang`, `delay(ms)`, `crash`, `exit`
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/status.hpp"
#include "emulator/acl_types.hpp"

namespace ais::emulator {

// Replaces all rules and resets the counters. `state`: a file with counters that all processes share; "": each process counts.
Status set_faults(const std::string& rules, const std::string& state);

// Applies the rules to one call. ACL_SUCCESS: the call continues. Does not return after a crash or an exit.
aclError fault_at(const char* function, int device);

// From now on hangs, executions and copies in the calling thread end with 107022 when `*stop` becomes true. For the threads of
// streams; in a thread of the program a hang never ends.
void interrupt_hangs_by(const std::atomic<bool>* stop);
// Returns whether work in the calling thread must stop now.
bool work_is_stopped();

// Returns how often a rule took effect since set_faults.
std::uint64_t faults_fired();

}  // namespace ais::emulator
