// Stores the recent error, for each thread or for the process.
#include "emulator/error.hpp"

#include <atomic>
#include <mutex>

namespace ais::emulator {
namespace {

struct Store {
  std::string recent;
  bool set = false;
  std::string handed_out;  // the last returned text, which the caller may still read
};

thread_local Store t_store;
std::atomic<bool> g_shared{false};

std::mutex& shared_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}
Store& shared_store() {
  static auto* const store = new Store;
  return *store;
}

}  // namespace

std::string code_name(aclError code) {
  switch (code) {
    case ACL_SUCCESS:
      return "ACL_SUCCESS";
#define AIS_ACL_CODE(name, number) \
  case number:                     \
    return "ACL_ERROR_" #name;
      AIS_ACL_CODES(AIS_ACL_CODE)
#undef AIS_ACL_CODE
    default:
      return std::to_string(code);
  }
}

aclError fail(aclError code, const std::string& text) {
  const std::string number = "E" + std::to_string(code) + ": ";
  // The failure of a stream's task already has the form of this function.
  std::string full = text.compare(0, number.size(), number) == 0 ? text : number + code_name(code) + ": " + text;
  if (g_shared) {
    const std::lock_guard<std::mutex> lock(shared_mutex());
    shared_store().recent = std::move(full);
    shared_store().set = true;
  } else {
    t_store.recent = std::move(full);
    t_store.set = true;
  }
  return code;
}

const char* take_recent_error() {
  Store& own = t_store;
  if (g_shared) {
    const std::lock_guard<std::mutex> lock(shared_mutex());
    own.set = shared_store().set;
    own.recent = std::move(shared_store().recent);
    shared_store().set = false;
  }
  if (!own.set) return nullptr;
  own.set = false;
  own.handed_out = std::move(own.recent);
  return own.handed_out.c_str();
}

void share_errors(bool process_wide) { g_shared = process_wide; }

}  // namespace ais::emulator
