// Copies into memory that another processor read last and will read next.
//
// An ordinary store first fetches the cache line from the other processor's cache, and then overwrites all of it. Between two
// cores without a common cache, this makes a copy of 24 KiB more than ten times slower. Non-temporal stores write whole lines
// without fetching them. They are weakly ordered even on x86, so the copy ends with a fence: a later publication is ordered
// after the copy. But they write to memory, and the reader waits for it. So if the processors share a cache, ordinary stores
// are faster on both sides, except for data that a core's own cache cannot hold: non-temporal stores then halve the copy's
// time.
#pragma once

#include <cstddef>

namespace ais::shm {

// Whether copy_across uses ordinary stores in this process for all but large data. At first it does if all processors of the
// process share a cache. A worker, which may be pinned to one of them, takes over its parent's choice.
bool plain_copies();
void set_plain_copies(bool plain);

// Like memcpy. Fast for whole cache lines; `to` should be 64-byte aligned, as payloads in a slot are.
void copy_across(void* to, const void* from, std::size_t bytes);

}  // namespace ais::shm
