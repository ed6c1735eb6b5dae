// AscendCL. This build has no driver for it: asking for it says so.
#include "base/dylib.hpp"
#include "device/runtimes.hpp"

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_acl(const std::vector<std::string>& libraries) {
  AIS_ASSIGN(Dylib library, Dylib::open_first("AscendCL's library (libascendcl.so)", libraries, [](const Dylib&) { return std::string(); }));
  return Status(Code::kUnavailable, "AscendCL was found at " + library.path() + ", but this release drives ONNX models only");
}

}  // namespace ais::device
