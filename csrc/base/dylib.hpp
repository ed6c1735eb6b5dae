// A shared library opened at run time. If none can be opened, the error lists what was tried.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.hpp"

namespace ais {

// A dlopen handle that is never closed, because the vendors' libraries leave threads running.
class Dylib {
 public:
  Dylib() = default;

  bool loaded() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }

  // Returns the symbol's address, or nullptr.
  void* symbol(const char* name) const;

  // Opens the first of `candidates` that loads and that `accept` accepts (it returns "", or the reason for a refusal). The
  // error is Unavailable, names `what`, and lists every candidate with the reason.
  static Result<Dylib> open_first(const std::string& what, const std::vector<std::string>& candidates,
                                  const std::function<std::string(const Dylib&)>& accept);

  // Returns the first of `names` that other code has loaded into this process already; without a handle if there is none.
  static Dylib find_loaded(const std::vector<std::string>& names);

 private:
  Dylib(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace ais
