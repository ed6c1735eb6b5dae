// The result of a call in csrc/ that can fail: a Status, or a Result<T> with a value or a Status.
//
// Functions in csrc/ do not throw; only csrc/bind turns a Status into a Python exception. One list of codes makes the enum and
// the names. Choose a code by what the caller can do about the error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace ais {

// X(name, when to choose it)
#define AIS_STATUS_CODES(X)                                                                     \
  X(Ok, "it worked")                                                                            \
  X(InvalidArgument, "an option or argument is wrong; nothing was done")                        \
  X(FeedMismatch, "the inputs given do not fit the model")                                      \
  X(Unavailable, "no such library, driver or device here; installing something may help")       \
  X(ModelLoad, "this file does not load on this device")                                        \
  X(Unsupported, "this device, library or model cannot do it, now or later")                    \
  X(OutOfMemory, "memory ran out, on the host or the device; less of it may work")              \
  X(NoRoom, "shared memory would exceed a limit of this process; other tasks may release some") \
  X(Execution, "this run failed; the session may still be good")                                \
  X(Cancelled, "the run was asked to stop")                                                     \
  X(DeviceLost, "the device or its context is gone; only a new process helps")                  \
  X(Closed, "the caller has closed or freed it")                                                \
  X(ForkedChild, "the object belongs to the parent process; open a new one here")               \
  X(Timeout, "the deadline passed first")                                                       \
  X(Corrupt, "shared memory has an impossible value; another process may have written to it")   \
  X(System, "the operating system refused; the message has its error number")

enum class Code : std::int32_t {
#define AIS_CODE(name, when) k##name,
  AIS_STATUS_CODES(AIS_CODE)
#undef AIS_CODE
};

constexpr std::string_view code_name(Code code) {
  switch (code) {
#define AIS_CODE(name, when) \
  case Code::k##name:        \
    return #name;
    AIS_STATUS_CODES(AIS_CODE)
#undef AIS_CODE
  }
  return "Unknown";
}

class [[nodiscard]] Status {
 public:
  Status() = default;  // Ok
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  // `vendor_code`: the error number of the vendor's library; 0 if there is none.
  Status(Code code, std::string message, std::int64_t vendor_code)
      : code_(code), message_(std::move(message)), vendor_code_(vendor_code) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  std::int64_t vendor_code() const { return vendor_code_; }

  // Returns the same error with `context` before its message.
  Status with_context(std::string_view context) && {
    if (!ok()) message_.insert(0, std::string(context) + ": ");
    return std::move(*this);
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
  std::int64_t vendor_code_ = 0;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}  // NOLINT: implicit, so that `return value;` reads well
  Result(Status status) : state_(std::move(status)) {}

  bool ok() const { return std::holds_alternative<T>(state_); }
  T& value() { return std::get<T>(state_); }
  const T& value() const { return std::get<T>(state_); }
  T take() { return std::move(std::get<T>(state_)); }
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  Status take_status() { return ok() ? Status() : std::move(std::get<Status>(state_)); }

 private:
  std::variant<T, Status> state_;
};

// Return on an error. `AIS_ASSIGN(auto x, f());` declares x from a Result.
#define AIS_TRY(expr)                                            \
  do {                                                           \
    if (::ais::Status ais_status_ = (expr); !ais_status_.ok()) { \
      return ais_status_;                                        \
    }                                                            \
  } while (0)
#define AIS_CONCAT_(a, b) a##b
#define AIS_CONCAT(a, b) AIS_CONCAT_(a, b)
#define AIS_ASSIGN(decl, expr) AIS_ASSIGN_(AIS_CONCAT(ais_result_, __COUNTER__), decl, expr)
#define AIS_ASSIGN_(tmp, decl, expr)       \
  auto tmp = (expr);                       \
  if (!tmp.ok()) return tmp.take_status(); \
  decl = tmp.take()

}  // namespace ais
