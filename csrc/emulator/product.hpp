// What differs between Ascend products, by the name that aclrtGetSocName answers. docs/emulator.md has the table with sources.
#pragma once

#include <string>

namespace ais::emulator {

struct Product {
  const char* name;
  int events;          // that a stream can wait for, on one device
  bool stream_abort;   // aclrtStreamAbort works; else it answers 207000
  bool host_register;  // aclrtHostRegister and its relatives work; else they answer 207000
};

// The product of a SoC such as "Ascend310P3"; for a name that is not known one on which everything works.
const Product& product_of(const std::string& soc);

}  // namespace ais::emulator
