// Reads the JSON file of aclInit, and the dump section for aclmdlSetDump.
#pragma once

#include <string>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

struct InitConfig {
  std::string text;  // the file's content; "" without a file
  bool share_errors = false;
  bool profiling = false;
  bool dumping = false;
};

// Reads and checks the file. Returns 100003 if it is missing, 100006 if it is not JSON, 100009 for an invalid dump section,
// 100010 for an invalid profiler section, 100000 for another invalid value. NULL and "" mean no configuration.
aclError read_init_config(const char* path, InitConfig* out);

// Checks the file for aclmdlSetDump: it must have a valid dump section.
aclError check_dump_file(const char* path);

}  // namespace ais::emulator
