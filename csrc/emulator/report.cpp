// Writes lines to memory, and to the report file or stderr.
#include "emulator/report.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "emulator/settings.hpp"

namespace ais::emulator {
namespace {

struct Report {
  std::mutex mutex;
  std::string text;
  std::uint64_t violations = 0;
  std::uint64_t leaks = 0;
  std::uint64_t timeouts = 0;
};

Report& report() {
  static auto* const instance = new Report;
  return *instance;
}

void write_line(Report* out, const std::string& line) {
  out->text += line + "\n";
  std::FILE* file = settings().report.empty() ? nullptr : std::fopen(expand_path(settings().report).c_str(), "ae");
  std::fprintf(file == nullptr ? stderr : file, "AscendCL emulator: %s\n", line.c_str());
  if (file != nullptr) std::fclose(file);
}

}  // namespace

void violation(const std::string& text) {
  {
    const std::lock_guard<std::mutex> lock(report().mutex);
    ++report().violations;
    write_line(&report(), "violation: " + text);
  }
  if (settings().abort_on_violation) std::abort();
}

void leaks(const std::string& when, const std::vector<std::string>& objects) {
  const std::lock_guard<std::mutex> lock(report().mutex);
  for (const std::string& object : objects) {
    ++report().leaks;
    write_line(&report(), "leak at " + when + ": " + object);
  }
}

std::uint64_t violation_count() {
  const std::lock_guard<std::mutex> lock(report().mutex);
  return report().violations;
}

void timed_out(const std::string& text) {
  const std::lock_guard<std::mutex> lock(report().mutex);
  ++report().timeouts;
  write_line(&report(), "time-out: " + text);
}

std::uint64_t timeout_count() {
  const std::lock_guard<std::mutex> lock(report().mutex);
  return report().timeouts;
}

std::uint64_t leak_count() {
  const std::lock_guard<std::mutex> lock(report().mutex);
  return report().leaks;
}

std::string report_text() {
  const std::lock_guard<std::mutex> lock(report().mutex);
  return report().text;
}

void clear_report() {
  const std::lock_guard<std::mutex> lock(report().mutex);
  report().text.clear();
  report().violations = 0;
  report().leaks = 0;
  report().timeouts = 0;
}

std::string expand_path(const std::string& path) {
  const std::size_t at = path.find("%p");
  return at == std::string::npos ? path : path.substr(0, at) + std::to_string(getpid()) + path.substr(at + 2);
}

}  // namespace ais::emulator
