// dlopen and dlsym; nothing else in the project calls them.
#include "base/dylib.hpp"

#include <dlfcn.h>

namespace ais {

void* Dylib::symbol(const char* name) const { return handle_ == nullptr ? nullptr : dlsym(handle_, name); }

Result<Dylib> Dylib::open_first(const std::string& what, const std::vector<std::string>& candidates) {
  std::string tried;
  for (const std::string& path : candidates) {
    // RTLD_LOCAL: another copy of the library in this process (the vendor's own Python module) keeps its symbols.
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return Dylib(handle, path);
    const char* reason = dlerror();
    tried += "\n  tried " + path + ": " + (reason != nullptr ? reason : "no reason given");
  }
  if (candidates.empty()) tried = "\n  there was nowhere to look";
  return Status(Code::kUnavailable, what + " could not be loaded" + tried);
}

}  // namespace ais
