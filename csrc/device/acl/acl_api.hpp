// AscendCL's functions, resolved at run time, and its failures as ours.
//
// acl_symbols.inc lists the functions; it is included once to declare the struct below and once to fill it, so the two cannot
// drift.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/dylib.hpp"
#include "base/status.hpp"
#include "device/acl/acl_types.hpp"

namespace ais::acl {

struct Api {
#define ACL_REQUIRED(ret, name, params) ret(*name) params = nullptr;
#define ACL_OPTIONAL(ret, name, params) ret(*name) params = nullptr;
#include "device/acl/acl_symbols.inc"
#undef ACL_REQUIRED
#undef ACL_OPTIONAL

  Dylib library;
  std::vector<Dylib> companions;  // newer CANN spreads the functions over several libraries

  // Ok, or what `call` failed with: its number, the number's name and the library's own text, which this takes (so call it at
  // once, on the same thread). `fallback` is the code for numbers that say nothing more precise.
  Status check(aclError number, const char* call, Code fallback = Code::kExecution) const;
  // For functions that answer null on failure.
  Status failed(const char* call, Code fallback = Code::kExecution) const;
};

// Opens the library and resolves the functions. One that lacks required ones is refused and they are named.
Result<std::unique_ptr<Api>> load_api(const std::vector<std::string>& libraries);

// "ACL_ERROR_RT_CONTEXT_NULL", or "" for a number that is not listed.
const char* error_name(aclError number);

}  // namespace ais::acl

// A call as a Status: AIS_TRY(ACL_CALL(api, aclrtFree, pointer)).
#define ACL_CALL(api, function, ...) (api).check((api).function(__VA_ARGS__), #function)
// A call that gives something back, in a destructor or on an error path: nobody can be told, and a call that failed may have
// given it back all the same, so it is left at that.
#define ACL_RELEASE(api, function, ...) static_cast<void>((api).function(__VA_ARGS__))
