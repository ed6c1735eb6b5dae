// A stand-in for the CUDA runtime library, for the stand-in provider when it is built as one for CUDA.
//
// It has the calls that register host memory. Like CUDA, it keeps the error of a call until cudaGetLastError, for each thread,
// and every thread begins on device 0. STANDIN_LOG is a file for a line "register" or "unregister" for each call that did
// something; with STANDIN_REGISTER=0 memory cannot be registered.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace {

constexpr int kInvalidValue = 1;
constexpr int kAlreadyRegistered = 712;
constexpr int kNotRegistered = 713;
constexpr int kNotSupported = 801;

thread_local int t_error = 0;
thread_local int t_device = 0;
std::mutex g_lock;
std::map<std::uintptr_t, std::size_t> g_ranges;  // guarded by g_lock

int fail(int error) { return t_error = error; }

void log(const char* line) {
  const char* name = std::getenv("STANDIN_LOG");
  if (name == nullptr) return;
  const int fd = open(name, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (fd < 0 || write(fd, line, std::strlen(line)) < 0) std::abort();
  close(fd);
}

// The range that begins at or before an address and has it; end() if there is none. The caller holds g_lock.
auto range_of(std::uintptr_t address) {
  auto next = g_ranges.upper_bound(address);
  if (next == g_ranges.begin()) return g_ranges.end();
  --next;
  return address < next->first + next->second ? next : g_ranges.end();
}

}  // namespace

extern "C" {

int cudaSetDevice(int device) {
  t_device = device;
  return 0;
}

int cudaHostRegister(void* host, std::size_t bytes, unsigned flags) {
  if (host == nullptr || bytes == 0 || flags != 1) return fail(kInvalidValue);
  const char* allowed = std::getenv("STANDIN_REGISTER");
  if (allowed != nullptr && std::atoi(allowed) == 0) return fail(kNotSupported);
  const auto begin = reinterpret_cast<std::uintptr_t>(host);
  const std::lock_guard<std::mutex> guard(g_lock);
  const auto after = g_ranges.lower_bound(begin);
  if (range_of(begin) != g_ranges.end() || (after != g_ranges.end() && after->first < begin + bytes)) {
    return fail(kAlreadyRegistered);
  }
  g_ranges[begin] = bytes;
  log("register\n");
  return 0;
}

int cudaHostUnregister(void* host) {
  const std::lock_guard<std::mutex> guard(g_lock);
  if (g_ranges.erase(reinterpret_cast<std::uintptr_t>(host)) == 0) return fail(kNotRegistered);
  log("unregister\n");
  return 0;
}

int cudaGetLastError() {
  const int error = t_error;
  t_error = 0;
  return error;
}

const char* cudaGetErrorString(int error) { return error == kNotSupported ? "operation not supported" : "an error"; }

// For the stand-in provider.
int fakeCudaError() { return t_error; }
int fakeCudaDevice() { return t_device; }
bool fakeCudaIsRegistered(const void* host, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(host);
  const std::lock_guard<std::mutex> guard(g_lock);
  const auto range = range_of(begin);
  return range != g_ranges.end() && begin + bytes <= range->first + range->second;
}
}
