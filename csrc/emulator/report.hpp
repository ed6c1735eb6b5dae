// What a program did wrong: violations of AscendCL's rules, and what it left behind.
//
// A violation is something that the real library lets pass (or answers with corruption): it is written down at once, and the
// call goes on as the real one would. AIS_EMULATOR_ON_VIOLATION=abort ends the process there instead, for a stack trace.
//
// A wait that times out is an error to CANN: it writes ERROR lines and takes a snapshot, each time. So they are written down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ais::emulator {

void violation(const std::string& text);

// Adds objects that were alive when what they belong to ended.
void leaks(const std::string& when, const std::vector<std::string>& objects);

void timed_out(const std::string& text);

std::uint64_t violation_count();
std::uint64_t timeout_count();
std::uint64_t leak_count();

// Everything written down since clear_report, a line each.
std::string report_text();
void clear_report();

// `path` with "%p" replaced by the process id.
std::string expand_path(const std::string& path);

}  // namespace ais::emulator
