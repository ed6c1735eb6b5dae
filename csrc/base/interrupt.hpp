// Whether the caller of a long wait wants it to end: Ctrl-C, for a wait that the interpreter's main thread makes.
//
// The check may run the interpreter's signal handlers, and it is made in the middle of a run, with locks held. So what waits in
// this way refuses to be entered by such a handler.
#pragma once

#include "base/status.hpp"

namespace ais {

// Asks in the calling thread; true when a signal handler raised.
using InterruptCheck = bool (*)();

// Set once, before anybody waits. Without one nothing is ever interrupted.
void set_interrupt_check(InterruptCheck check);
bool interrupted();

// Execution where the caller is a signal handler that runs inside interrupted().
Status check_not_in_handler();
bool in_handler();

}  // namespace ais
