// The result of a failed call: a code, and a text for aclGetRecentErrMsg.
#pragma once

#include <string>

#include "emulator/acl_types.hpp"

namespace ais::emulator {

// Returns "ACL_ERROR_RT_CONTEXT_NULL", or the number if it has no name here.
std::string code_name(aclError code);

// Stores the text for the calling thread (for the process in err_msg_mode 1) and returns the code:
// `return fail(ACL_ERROR_INVALID_PARAM, "size is 0");`.
aclError fail(aclError code, const std::string& text);

// Returns and clears the text of the calling thread; NULL if there is none. Valid until the thread's next call.
const char* take_recent_error();

// Sets err_msg_mode of the aclInit configuration: one text for each thread (false) or one for the process (true).
void share_errors(bool process_wide);

}  // namespace ais::emulator
