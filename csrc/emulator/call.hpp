// The common part of all functions of the ABI, before and after their own work.
//
//   ACL_API aclError aclrtFree(void* devPtr) {
//     static Function fn(__func__, Need::kInit);
//     return fn.call([&](const Scope&) { return ...; }, devPtr);
//   }
//
// In this order: refuse in a forked child; count the call; apply fault rules; check what the function needs; run it; record it.
// The arguments after the body are only for the recording; `filled(p)` marks an argument that the call writes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "emulator/acl_types.hpp"
#include "emulator/error.hpp"
#include "emulator/machine.hpp"
#include "emulator/memory.hpp"
#include "emulator/record.hpp"

namespace ais::emulator {

enum class Need {
  kNothing,  // works before aclInit
  kInit,     // after aclInit
  kContext,  // with a current context that is alive and has had no exception
  kRelease,  // with a current context, which may have had an exception: for calls that release something, or wait
};

struct Scope;

// Returns ACL_SUCCESS; after a lost device or an exception of the context, the code with which every later call fails.
aclError usable(const Scope& scope);

// Returns 207000 for a function that this product does not have.
aclError refused_by_product(const char* function);

// The calling thread's context and device; empty and -1 if there are none and the function does not need them.
struct Scope {
  std::shared_ptr<Context> context;
  int device_id = -1;
  Device& device() const { return *machine().device(device_id); }
};

template <typename T>
struct Filled {
  T* target;
};
template <typename T>
Filled<T> filled(T* target) {
  return {target};
}

// Numbers in the caller's memory, recorded as "2,3".
struct Numbers {
  const std::int64_t* values;
  std::size_t count;
};

std::string describe(const char* text);
std::string describe(const Numbers& numbers);
std::string describe(const void* pointer);
std::string describe(double value);
template <typename T, std::enable_if_t<std::is_integral_v<T> || std::is_enum_v<T>, int> = 0>
std::string describe(T value) {
  return std::to_string(static_cast<long long>(value));
}
template <typename T>
std::string describe(const Filled<T>& argument) {
  return argument.target == nullptr ? describe(static_cast<const void*>(nullptr)) : describe(*argument.target);
}

class Function {
 public:
  Function(const char* name, Need need);

  // `body(const Scope&)` returns the code.
  template <typename Body, typename... Args>
  aclError call(Body body, const Args&... args) {
    return call_on(-1, body, args...);
  }

  // For functions with the device as an argument: fault rules use this device.
  template <typename Body, typename... Args>
  aclError call_on(int device_id, Body body, const Args&... args) {
    Scope scope;
    aclError code = enter(device_id, &scope);
    if (code == ACL_SUCCESS) code = body(static_cast<const Scope&>(scope));
    if (recording()) record(scope, describe(code), code == ACL_SUCCESS, args...);
    return code;
  }

  // For functions that do not return a code: `otherwise` is the value that they return after a failure before the body.
  template <typename T, typename Body, typename... Args>
  T call_or(T otherwise, Body body, const Args&... args) {
    Scope scope;
    const bool entered = enter(-1, &scope) == ACL_SUCCESS;
    T result = entered ? body(static_cast<const Scope&>(scope)) : otherwise;
    if (recording()) record(scope, describe(result), entered, args...);
    return result;
  }

  static std::uint64_t calls_of(const std::string& name);

 private:
  aclError enter(int device_id, Scope* scope);

  template <typename... Args>
  void record(const Scope& scope, const std::string& result, bool succeeded, const Args&... args) {
    std::string text;
    [[maybe_unused]] const auto add = [&](const auto& argument) {
      text += (text.empty() ? "" : ", ") + argument_text(argument, succeeded);
    };
    (add(args), ...);
    record_call(name_, text, result, scope.device_id);
  }
  template <typename T>
  static std::string argument_text(const T& argument, bool) {
    return describe(argument);
  }
  template <typename T>
  static std::string argument_text(const Filled<T>& argument, bool succeeded) {
    return succeeded ? describe(argument) : "\"unfilled\"";
  }

  const char* name_;
  Need need_;
  std::atomic<std::uint64_t> calls_{0};
  Function* next_;
};

}  // namespace ais::emulator
