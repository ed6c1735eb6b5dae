// AscendCL: the version of the installation.
#include <cstring>
#include <string>

#include "emulator/call.hpp"

using namespace ais::emulator;

namespace {

constexpr const char* kVersion = "8.5.0";
constexpr const char* kPackages[] = {"cann", "runtime", "compiler", "hccl", "toolkit", "opp", "opp_kernel", "driver"};

aclError no_package() { return fail(ACL_ERROR_INVALID_FILE, "no such package is installed"); }

}  // namespace

ACL_API aclError aclsysGetVersionStr(char* pkgName, char* versionStr) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        if (pkgName == nullptr || versionStr == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL");
        for (const char* package : kPackages) {
          if (std::strcmp(package, pkgName) != 0) continue;
          std::strcpy(versionStr, kVersion);
          return aclError{ACL_SUCCESS};
        }
        return no_package();
      },
      static_cast<const char*>(pkgName), static_cast<const void*>(versionStr));
}

ACL_API aclError aclsysGetCANNVersion(std::int32_t name, aclCANNPackageVersion* version) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        if (version == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL");
        if (name < 0 || static_cast<std::size_t>(name) >= std::size(kPackages)) return no_package();
        *version = {};
        std::strcpy(version->version, kVersion);
        std::strcpy(version->majorVersion, "8");
        std::strcpy(version->minorVersion, "5");
        std::strcpy(version->releaseVersion, "0");
        std::strcpy(version->patchVersion, "0");
        return aclError{ACL_SUCCESS};
      },
      name, static_cast<const void*>(version));
}
