// Faults on request: which call of which function fails, hangs or crashes, on which device.
//
// Rules are separated by ';', each `function[:calls]=action[@device]`:
//   function   a name of the ABI; `device.execute` or `device.copy` for the work itself (then an asynchronous call fails when
//              it runs, not when it is submitted); `*` for every function
//   calls      `3` the third, `3+` from the third on, `2-4` a range; every call when absent. Only calls on `device` are counted
//   action     a code of CANN, `oom` (207001), `lost` (507010), `hang`, `delay(ms)`, `crash`, `exit`
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/status.hpp"
#include "emulator/acl_types.hpp"

namespace ais::emulator {

// Replaces all rules and starts counting anew. `state` names a file whose counters all processes share, "" counts here.
Status set_faults(const std::string& rules, const std::string& state);

// Applies the rules to one call; ACL_SUCCESS lets it go on. Does not return from a crash or an exit.
aclError fault_at(const char* function, int device);

// From now on a hang in the calling thread ends, with 107022, when `*stop` becomes true, and so does an execution or copy that
// takes long. For the threads of streams; in a program's own thread a hang is for ever.
void interrupt_hangs_by(const std::atomic<bool>* stop);
// Whether that is so now, in the calling thread.
bool work_is_stopped();

// How many times a rule did something since set_faults.
std::uint64_t faults_fired();

}  // namespace ais::emulator
