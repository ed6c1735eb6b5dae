// Copying into memory that another processor read last and will read next.
//
// An ordinary store first fetches the line from the other processor's cache, only to overwrite all of it: between two cores
// that share no cache, 24 KiB then take ten times as long as they should. Non-temporal stores write whole lines without
// fetching them. They are weakly ordered even on x86, so the copy ends with a fence: what is published after it is ordered
// after it.
#pragma once

#include <cstddef>

namespace ais::shm {

// As memcpy. Worth it for whole lines; `to` is best 64-byte aligned, which payloads in a slot are.
void copy_across(void* to, const void* from, std::size_t bytes);

}  // namespace ais::shm
