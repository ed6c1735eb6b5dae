// Finds AscendCL, resolves its functions, and translates its error numbers.
#include "device/acl/acl_api.hpp"

#include <utility>

namespace ais::acl {
namespace {

// Newer CANN has moved functions to other libraries, and announces their removal from libascendcl.so.
constexpr const char* kCompanions[] = {"libacl_rt.so", "libacl_mdl.so", "libmsprofiler.so"};

std::string beside(const std::string& path, const char* name) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? name : path.substr(0, slash + 1) + name;
}

// Opens the existing companions: beside the library, or on the loader's path.
std::vector<Dylib> open_companions(const std::string& path) {
  std::vector<Dylib> found;
  for (const char* name : kCompanions) {
    auto companion = Dylib::open_first(name, {beside(path, name), name}, [](const Dylib&) { return std::string(); });
    if (companion.ok()) found.push_back(companion.take());
  }
  return found;
}

void* find(const Dylib& library, const std::vector<Dylib>& companions, const char* name) {
  void* symbol = library.symbol(name);
  for (auto other = companions.begin(); symbol == nullptr && other != companions.end(); ++other) symbol = other->symbol(name);
  return symbol;
}

// Returns the required functions that neither the library nor its companions have.
std::string missing(const Dylib& library, const std::vector<Dylib>& companions) {
  std::string names;
#define ACL_REQUIRED(ret, name, params) \
  if (find(library, companions, #name) == nullptr) names += names.empty() ? #name : ", " #name;
#define ACL_OPTIONAL(ret, name, params)
#include "device/acl/acl_symbols.inc"
#undef ACL_REQUIRED
#undef ACL_OPTIONAL
  return names;
}

std::string unfit(const Dylib& library) {
  std::string names = missing(library, {});
  if (!names.empty()) names = missing(library, open_companions(library.path()));
  return names.empty() ? "" : "it lacks " + names + ", so it is not AscendCL, or one too old";
}

Code code_of(aclError number, Code fallback) {
  Code code = Code::kOk;
  switch (number) {
#define ACL_ERROR(value, name, ours) \
  case value:                        \
    code = Code::ours;               \
    break;
#include "device/acl/acl_errors.inc"
#undef ACL_ERROR
    default:
      break;
  }
  return code == Code::kOk ? fallback : code;
}

// Returns advice for the end of an error message; "" if there is none.
const char* advice(Code code, aclError number) {
  constexpr aclError kLostHeartbeat = 507010;
  constexpr aclError kSocketClosed = 507901;
  if (number == kLostHeartbeat || number == kSocketClosed)
    return "; the device is lost for this process, use it from a new one";
  if (code == Code::kDeviceLost) return "; what the session has on the device is lost, free the session and make a new one";
  if (number == 207005 || (number >= 207007 && number <= 207012)) {
    return "; the device has no more of what the call needs, free sessions on it or open fewer at a time";
  }
  if (number == 107023) return "; the stream that the work was on was aborted";
  return "";
}

}  // namespace

const char* error_name(aclError number) {
  switch (number) {
#define ACL_ERROR(value, name, ours) \
  case value:                        \
    return "ACL_ERROR_" #name;
#include "device/acl/acl_errors.inc"
#undef ACL_ERROR
    default:
      return "";
  }
}

Status AclApi::check(aclError number, const char* call, Code fallback) const {
  if (number == 0) return Status();
  std::string text = std::string(call) + " failed with " + std::to_string(number);
  if (*error_name(number) != '\0') text += std::string(" (") + error_name(number) + ")";
  if (const char* recent = aclGetRecentErrMsg(); recent != nullptr && *recent != '\0') text += std::string(": ") + recent;
  const Code code = code_of(number, fallback);
  return Status(code, text + advice(code, number), number);
}

Status AclApi::failed(const char* call, Code fallback) const {
  std::string text = std::string(call) + " failed";
  if (const char* recent = aclGetRecentErrMsg(); recent != nullptr && *recent != '\0') text += std::string(": ") + recent;
  return Status(fallback, std::move(text));
}

Result<std::unique_ptr<AclApi>> load_api(const std::vector<std::string>& libraries) {
  Result<Dylib> library = Dylib::open_first("AscendCL's library", libraries, unfit);
  if (!library.ok()) {
    return Status(Code::kUnavailable,
                  library.take_status().message() +
                      "\nInstall CANN and load its settings (source set_env.sh), or name the library file in the "
                      "environment variable AIS_BENCH_ACL_LIBRARY. Without an NPU, ais_bench.emulator can stand in.");
  }
  auto api = std::make_unique<AclApi>();
  api->library = library.take();
  bool complete = true;
#define ACL_REQUIRED(ret, name, params) complete = complete && api->library.symbol(#name) != nullptr;
#define ACL_OPTIONAL(ret, name, params) ACL_REQUIRED(ret, name, params)
#include "device/acl/acl_symbols.inc"
#undef ACL_REQUIRED
#undef ACL_OPTIONAL
  if (!complete) api->companions = open_companions(api->library.path());
#define ACL_REQUIRED(ret, name, params) \
  api->name = reinterpret_cast<decltype(api->name)>(find(api->library, api->companions, #name));
#define ACL_OPTIONAL(ret, name, params) ACL_REQUIRED(ret, name, params)
#include "device/acl/acl_symbols.inc"
#undef ACL_REQUIRED
#undef ACL_OPTIONAL
  return api;
}

}  // namespace ais::acl
