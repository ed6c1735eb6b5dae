// The emulator's own functions, for tests and tools: ais_bench/emulator/control.py calls them. Texts belong to the calling
// thread and are valid until its next call here.
#include <string>

#include "emulator/call.hpp"
#include "emulator/error.hpp"
#include "emulator/faults.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"
#include "emulator/record.hpp"
#include "emulator/report.hpp"

using namespace ais::emulator;

namespace {

const char* hold(std::string text) {
  thread_local std::string held;
  held = std::move(text);
  return held.c_str();
}

}  // namespace

// Reads the environment's settings again; returns "" or an error. With `new_process` the state that AscendCL keeps for the life
// of a process is reset, too, unless AscendCL is initialised.
ACL_API const char* aisEmulatorConfigure(int new_process) { return hold(machine().configure(new_process != 0).message()); }

// Replaces the fault rules and resets their counts; returns "" or an error.
ACL_API const char* aisEmulatorSetFaults(const char* rules) {
  machine();  // first, so that the environment's rules do not replace these later
  return hold(set_faults(rules == nullptr ? "" : rules, "").message());
}

ACL_API std::uint64_t aisEmulatorFaultsFired() { return faults_fired(); }

// Returns how often a function of the ABI was called in this process.
ACL_API std::uint64_t aisEmulatorCallCount(const char* function) {
  return Function::calls_of(function == nullptr ? "" : function);
}

// Begins to record calls, in memory and (unless NULL or empty) in a file.
ACL_API void aisEmulatorStartRecording(const char* path) {
  machine();
  start_recording(path == nullptr ? "" : path);
}

// Ends the recording and returns it, with a JSON object in each line (record.hpp).
ACL_API const char* aisEmulatorStopRecording() {
  std::string calls = recorded_calls();
  stop_recording();
  return hold(std::move(calls));
}

// Returns violations, leaks and waits that timed out so far, one in each line.
ACL_API const char* aisEmulatorReport() { return hold(report_text()); }
ACL_API std::uint64_t aisEmulatorViolations() { return violation_count(); }
ACL_API std::uint64_t aisEmulatorLeaks() { return leak_count(); }
ACL_API std::uint64_t aisEmulatorTimeouts() { return timeout_count(); }
ACL_API void aisEmulatorClearReport() { clear_report(); }

// Returns all live objects, one in each line: memory, streams, models, datasets... Default contexts belong to the library.
ACL_API const char* aisEmulatorLiving() {
  std::string text;
  for (const std::string& name : memory().living()) text += name + "\n";
  for (const std::string& name : living_objects()) text += name + "\n";
  for (const auto& entry : machine().contexts().all()) {
    if (!entry.second->is_default) text += handle_name(entry.first) + "\n";
  }
  return hold(std::move(text));
}

// Returns the bytes of device memory in use, with padding, weights and workspaces.
ACL_API std::uint64_t aisEmulatorMemoryUsed(int device) { return memory().used(device); }
