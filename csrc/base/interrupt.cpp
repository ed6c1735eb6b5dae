// The check as a pointer: the waits are in layers that know of no interpreter.
#include "base/interrupt.hpp"

#include <atomic>

namespace ais {
namespace {

std::atomic<InterruptCheck> g_check{nullptr};
thread_local bool t_checking = false;

}  // namespace

void set_interrupt_check(InterruptCheck check) { g_check.store(check, std::memory_order_release); }

bool interrupted() {
  const InterruptCheck check = g_check.load(std::memory_order_acquire);
  if (check == nullptr || t_checking) return false;
  t_checking = true;
  const bool result = check();
  t_checking = false;
  return result;
}

bool in_handler() { return t_checking; }

Status check_not_in_handler() {
  if (!t_checking) return Status();
  return Status(Code::kExecution,
                "a signal handler cannot use the device while the thread that it interrupted waits for a run; raise an "
                "exception in it, which ends that run, and go on after it");
}

}  // namespace ais
