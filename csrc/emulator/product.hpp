// The differences between Ascend products, by the name that aclrtGetSocName returns. docs/emulator.md has a table with sources.
#pragma once

#include <string>

namespace ais::emulator {

struct Product {
  const char* name;
  int events;          // number of events of one device that a stream can wait for
  bool stream_abort;   // aclrtStreamAbort works; otherwise it returns 207000
  bool host_register;  // aclrtHostRegister and related functions work; otherwise they return 207000
};

// Returns the product of a SoC such as "Ascend310P3"; for an unknown name a product on which everything works.
const Product& product_of(const std::string& soc);

}  // namespace ais::emulator
