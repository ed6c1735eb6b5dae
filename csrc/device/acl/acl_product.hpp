// The abilities of an NPU and its host, by the SoC's name and the kernel's release. They are from AscendCL's manual, because
// the library exports the functions for all products.
#pragma once

#include <string>

#include "base/status.hpp"

namespace ais::acl {

struct Product {
  bool aborts_streams;  // aclrtStreamAbort
  bool registers_host;  // aclrtHostRegisterV2, aclrtHostUnregister
};

// Returns the product of a SoC such as "Ascend310P3". An unknown name is treated as a newer product, which has both abilities.
Product product_of(const std::string& soc);

// Whether host memory for many copies is registered with the device, which then copies directly, or copied through page-locked
// memory of aclrtMallocHost, which works for all products.
enum class HostRegister { kAuto, kOff, kOn };
// An InvalidArgument lists the allowed texts.
Result<HostRegister> parse_host_register(const std::string& text);

// Returns whether a kernel of this release ("5.10.0-60.18.0.50.oe2203") lets AscendCL pin memory that is not page-locked.
bool kernel_pins(const std::string& release);
// The same for the running kernel; and its release.
bool kernel_pins();
std::string kernel_release();

}  // namespace ais::acl
