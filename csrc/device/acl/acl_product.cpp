// The products, by the beginning of the SoC's name; the first match counts.
#include "device/acl/acl_product.hpp"

#include <sys/utsname.h>

#include <cstdio>
#include <tuple>
#include <utility>

namespace ais::acl {

Product product_of(const std::string& soc) {
  static const std::pair<const char*, Product> kProducts[] = {
      {"Ascend310", {false, false}},   // 310, 310P, 310B
      {"Ascend910_93", {true, true}},  // Atlas A3
      {"Ascend910B", {true, true}},    // Atlas A2
      {"Ascend910", {false, false}},   // Atlas training
  };
  for (const auto& [prefix, product] : kProducts) {
    if (soc.rfind(prefix, 0) == 0) return product;
  }
  return {true, true};
}

Result<HostRegister> parse_host_register(const std::string& text) {
  if (text == "auto") return HostRegister::kAuto;
  if (text == "off") return HostRegister::kOff;
  if (text == "on") return HostRegister::kOn;
  return Status(Code::kInvalidArgument, "host_register must be one of 'auto', 'off', 'on', got '" + text + "'");
}

bool kernel_pins(const std::string& release) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(release.c_str(), "%d.%d", &major, &minor) != 2) return false;
  return std::make_tuple(major, minor) > std::make_tuple(5, 10);
}

bool kernel_pins() { return kernel_pins(kernel_release()); }

std::string kernel_release() {
  utsname name = {};
  return uname(&name) == 0 ? name.release : "unknown";
}

}  // namespace ais::acl
