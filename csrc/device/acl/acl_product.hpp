// What an NPU and its host can do, by the SoC's name and the kernel's release: what AscendCL's manual says of each product,
// since the functions are exported everywhere.
#pragma once

#include <string>

#include "base/status.hpp"

namespace ais::acl {

struct Product {
  bool aborts_streams;  // aclrtStreamAbort
  bool registers_host;  // aclrtHostRegisterV2, aclrtHostUnregister
};

// Of a SoC such as "Ascend310P3"; a name that is not known is taken for a newer product, which can do both.
Product product_of(const std::string& soc);

// Whether host memory that many copies use is registered with the device, so that it copies from and to it by itself, or copied
// through page-locked memory of aclrtMallocHost, which works everywhere.
enum class HostRegister { kAuto, kOff, kOn };
// InvalidArgument names the texts that there are.
Result<HostRegister> parse_host_register(const std::string& text);

// Whether a kernel of that release ("5.10.0-60.18.0.50.oe2203") lets AscendCL pin memory that is not page-locked already.
bool kernel_pins(const std::string& release);
// The same of the kernel that runs, and its release.
bool kernel_pins();
std::string kernel_release();

}  // namespace ais::acl
