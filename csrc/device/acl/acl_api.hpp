// AscendCL's functions, resolved at run time, and the conversion of its errors.
//
// acl_symbols.inc lists the functions. It is included twice: to declare the struct below, and to fill it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/dylib.hpp"
#include "base/status.hpp"
#include "device/acl/acl_types.hpp"

namespace ais::acl {

struct AclApi {
#define ACL_REQUIRED(ret, name, params) ret(*name) params = nullptr;
#define ACL_OPTIONAL(ret, name, params) ret(*name) params = nullptr;
#include "device/acl/acl_symbols.inc"
#undef ACL_REQUIRED
#undef ACL_OPTIONAL

  Dylib library;
  std::vector<Dylib> companions;  // newer CANN has the functions in several libraries

  // Returns Ok, or the error of `call`: its number, the number's name and the library's text. This call takes the text, so make
  // it at once and on the same thread. `fallback`: the code for numbers without a more precise one.
  Status check(aclError number, const char* call, Code fallback = Code::kExecution) const;
  // The same for functions that return null on failure.
  Status failed(const char* call, Code fallback = Code::kExecution) const;
};

// Opens the library and resolves the functions. The error for missing required functions names them.
Result<std::unique_ptr<AclApi>> load_api(const std::vector<std::string>& libraries);

// Returns "ACL_ERROR_RT_CONTEXT_NULL", or "" for an unknown number.
const char* error_name(aclError number);

}  // namespace ais::acl

// Makes a call with a Status as its result: AIS_TRY(ACL_CALL(api, aclrtFree, pointer)).
#define ACL_CALL(api, function, ...) (api).check((api).function(__VA_ARGS__), #function)
// Makes a call that releases something, in a destructor or on an error path. Its error is ignored: it cannot be reported, and
// the failed call may have released the object.
#define ACL_RELEASE(api, function, ...) static_cast<void>((api).function(__VA_ARGS__))
