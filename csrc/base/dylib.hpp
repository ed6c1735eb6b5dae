// A shared library opened at run time, and the story of how it was looked for.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.hpp"

namespace ais {

// A dlopen handle that is never closed: the vendors' libraries leave threads behind that still run their code.
class Dylib {
 public:
  Dylib() = default;

  bool loaded() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }

  // The symbol's address, or nullptr.
  void* symbol(const char* name) const;

  // Opens the first of `candidates` that loads and in which `accept` finds no fault (it returns the fault, or ""). On failure
  // the status is Unavailable, names `what`, and lists every candidate with the reason.
  static Result<Dylib> open_first(const std::string& what, const std::vector<std::string>& candidates,
                                  const std::function<std::string(const Dylib&)>& accept);

 private:
  Dylib(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace ais
