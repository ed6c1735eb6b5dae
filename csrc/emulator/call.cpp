// The checks before every call.
#include "emulator/call.hpp"

#include <algorithm>
#include <cstdio>

#include "emulator/faults.hpp"

namespace ais::emulator {
namespace {

std::atomic<Function*> g_functions{nullptr};

}  // namespace

std::string describe(const char* text) { return text == nullptr ? "\"null\"" : json_quote(text); }

std::string describe(const Numbers& numbers) {
  if (numbers.values == nullptr) return "\"null\"";
  std::string text;
  for (std::size_t i = 0; i < std::min(numbers.count, kMaxDims); ++i) {
    text += (i == 0 ? "" : ",") + std::to_string(numbers.values[i]);
  }
  return json_quote(text);
}

std::string describe(const void* pointer) { return json_quote(memory().name(pointer)); }

std::string describe(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

Function::Function(const char* name, Need need) : name_(name), need_(need), next_(g_functions.load()) {
  while (!g_functions.compare_exchange_weak(next_, this)) {
  }
}

std::uint64_t Function::calls_of(const std::string& name) {
  for (const Function* fn = g_functions.load(); fn != nullptr; fn = fn->next_) {
    if (name == fn->name_) return fn->calls_.load();
  }
  return 0;
}

aclError Function::enter(int device_id, Scope* scope) {
  Machine& all = machine();
  if (all.forked()) {
    return fail(ACL_ERROR_RT_INTERNAL_ERROR,
                std::string(name_) + " in a forked child: AscendCL was initialised by the parent and does not work here");
  }
  if (!all.complaint().empty()) return fail(ACL_ERROR_INVALID_PARAM, all.complaint());
  calls_.fetch_add(1, std::memory_order_relaxed);
  scope->context = all.current();
  if (scope->context != nullptr) scope->device_id = scope->context->device;
  if (const aclError injected = fault_at(name_, device_id >= 0 ? device_id : scope->device_id)) {
    if (scope->context != nullptr && is_device_exception(injected)) all.device_exception(scope->context.get(), injected);
    return injected;
  }
  if (need_ == Need::kNothing) return ACL_SUCCESS;
  if (!all.initialised()) return fail(ACL_ERROR_UNINITIALIZE, std::string(name_) + " before aclInit");
  if (need_ == Need::kInit) return ACL_SUCCESS;
  if (scope->context == nullptr) {
    return fail(ACL_ERROR_RT_CONTEXT_NULL,
                std::string(name_) + ": this thread has no current context (aclrtSetCurrentContext)");
  }
  if (!scope->context->alive) {
    return fail(ACL_ERROR_RT_INVALID_HANDLE, std::string(name_) + ": this thread's current context, " +
                                                 handle_name(scope->context->handle) + ", was destroyed");
  }
  if (need_ == Need::kRelease) return ACL_SUCCESS;
  return usable(*scope);
}

aclError refused_by_product(const char* function) {
  return fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
              std::string(function) + " does not work on " + settings().product.name + " (" + settings().soc + ")");
}

aclError usable(const Scope& scope) {
  if (const aclError lost = scope.device().lost) {
    return fail(lost, "device " + std::to_string(scope.device_id) + " was lost");
  }
  if (const aclError poison = scope.context->poison) {
    return fail(poison, "a device exception made " + handle_name(scope.context->handle) + " useless; reset the device");
  }
  return ACL_SUCCESS;
}

}  // namespace ais::emulator
