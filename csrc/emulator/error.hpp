// What a failing call leaves behind: a code, and a text for aclGetRecentErrMsg.
#pragma once

#include <string>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

// "ACL_ERROR_RT_CONTEXT_NULL", or the number where it has no name here.
std::string code_name(aclError code);

// Stores the text for the calling thread (for the process in err_msg_mode 1) and returns the code, so that a failure is one
// expression: `return fail(ACL_ERROR_INVALID_PARAM, "size is 0");`.
aclError fail(aclError code, const std::string& text);

// The text of the calling thread, and forgets it; NULL when there is none. Valid until the thread's next call of it.
const char* take_recent_error();

// err_msg_mode of the aclInit configuration: one text a thread (false) or one for the process (true).
void share_errors(bool process_wide);

}  // namespace ais::emulator
