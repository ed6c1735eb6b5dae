// Records calls in memory and, if asked for, in a file to which several processes may append.
#include "emulator/record.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include "emulator/report.hpp"

namespace ais::emulator {
namespace {

struct Recording {
  std::mutex mutex;
  std::string lines;
  int file = -1;
};

Recording& recording_state() {
  static auto* const instance = new Recording;
  return *instance;
}
std::atomic<bool> g_on{false};
std::atomic<int> g_threads{0};

int thread_number() {
  thread_local const int number = g_threads.fetch_add(1) + 1;
  return number;
}

}  // namespace

bool recording() { return g_on.load(std::memory_order_relaxed); }

void start_recording(const std::string& path) {
  stop_recording();
  Recording& state = recording_state();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.lines.clear();
  if (!path.empty()) {
    state.file = open(expand_path(path).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (state.file < 0) std::fprintf(stderr, "AscendCL emulator: cannot record to '%s': %m\n", path.c_str());
  }
  g_on = true;
}

void stop_recording() {
  Recording& state = recording_state();
  const std::lock_guard<std::mutex> lock(state.mutex);
  g_on = false;
  if (state.file >= 0) close(state.file);
  state.file = -1;
}

std::string recorded_calls() {
  const std::lock_guard<std::mutex> lock(recording_state().mutex);
  return recording_state().lines;
}

void record_call(const char* function, const std::string& arguments, const std::string& result, int device) {
  const std::string line = std::string("{\"call\": \"") + function + "\", \"args\": [" + arguments +
                           "], \"result\": " + result + ", \"device\": " + std::to_string(device) +
                           ", \"thread\": " + std::to_string(thread_number()) + "}\n";
  Recording& state = recording_state();
  const std::lock_guard<std::mutex> lock(state.mutex);
  if (!g_on) return;
  state.lines += line;
  // One write for each line: with O_APPEND the lines of several processes are not mixed.
  if (state.file >= 0 && write(state.file, line.data(), line.size()) < 0) {
    std::fprintf(stderr, "AscendCL emulator: a recorded call could not be written: %m\n");
  }
}

std::string json_quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", c);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace ais::emulator
