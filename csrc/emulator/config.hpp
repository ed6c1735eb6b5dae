// The JSON file of aclInit, and the dump section that aclmdlSetDump takes.
#pragma once

#include <string>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

struct InitConfig {
  std::string text;  // the file as it is; "" without one
  bool share_errors = false;
  bool profiling = false;
  bool dumping = false;
};

// Reads and checks the file: missing 100003, not JSON 100006, a bad dump section 100009, a bad profiler section 100010, another
// bad value 100000. NULL and "" mean no configuration.
aclError read_init_config(const char* path, InitConfig* out);

// For aclmdlSetDump: the file must have a valid dump section.
aclError check_dump_file(const char* path);

}  // namespace ais::emulator
