// Reports the errors of a program: violations of AscendCL's rules, leaks, and waits that timed out.
//
// A violation is an error that the real library does not report, or that corrupts its state. It is reported at once, and the
// call continues like that of the real library. AIS_EMULATOR_ON_VIOLATION=abort aborts the process instead, for a stack trace.
//
// A wait that times out is an error for CANN: it writes ERROR lines and takes a snapshot each time. So it is reported, too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ais::emulator {

void violation(const std::string& text);

// Reports objects that were alive when their owner was released.
void leaks(const std::string& when, const std::vector<std::string>& objects);

void timed_out(const std::string& text);

std::uint64_t violation_count();
std::uint64_t timeout_count();
std::uint64_t leak_count();

// Returns everything that was reported since clear_report, in lines.
std::string report_text();
void clear_report();

// Returns `path` with "%p" replaced by the process id.
std::string expand_path(const std::string& path);

}  // namespace ais::emulator
