// The only file that calls dlopen and dlsym.
#include "base/dylib.hpp"

#include <dlfcn.h>

namespace ais {

void* Dylib::symbol(const char* name) const { return handle_ == nullptr ? nullptr : dlsym(handle_, name); }

Result<Dylib> Dylib::open_first(const std::string& what, const std::vector<std::string>& candidates,
                                const std::function<std::string(const Dylib&)>& accept) {
  std::string tried;
  for (const std::string& path : candidates) {
    // RTLD_LOCAL: another copy of the library in this process (the vendor's own Python module) keeps its symbols.
    std::string reason;
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      Dylib library(handle, path);
      reason = accept(library);
      if (reason.empty()) return library;
    } else {
      const char* error = dlerror();
      reason = error != nullptr ? error : "no reason given";
    }
    tried += "\n  tried " + path + ": " + reason;
  }
  if (candidates.empty()) tried = "\n  there was nowhere to look";
  return Status(Code::kUnavailable, what + " could not be loaded" + tried);
}

Dylib Dylib::find_loaded(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)) return Dylib(handle, name);
  }
  return Dylib();
}

}  // namespace ais
