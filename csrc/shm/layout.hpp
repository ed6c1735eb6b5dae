// The layout of an arena: the memory that a parent and one process of one worker share.
//
//   offset  size        field                          written by            read by
//        0    64        Geometry                       parent, before share  worker, once
//       64     8        tasks.write_pos                parent                worker
//      128     8        tasks.read_pos                 worker                parent
//      192     8        results.write_pos              worker                parent
//      256     8        results.read_pos               parent                worker
//      320     8        worker's doorbell (futex.hpp)  both, RMW only        worker sleeps here
//      384     4        closed (0 -> 1, a latch)       anyone                both
//      448     4        spin_ns, a hint                parent                worker
//      452     4        nap_ns, a hint                 parent                worker
//      456     8        punched                        parent                worker
//     4096     ...      task descriptors, kRingSlots x 64       (ring.hpp)
//      ...     ...      result descriptors, kRingSlots x 64
//   kDataOffset ...     slots (slots.hpp): virtual ranges, which only the parent allocates
//
// The parent picks a feed slot and a result slot for a task, writes the feeds and their table (frame.hpp) into the feed slot,
// and publishes a TaskDescriptor. The worker reads the feeds in place, writes outputs and their table into the result slot, and
// publishes a ResultDescriptor. Both slots belong to the worker from the claim to the published result, and to the parent
// before and after. The parent may withdraw a task until it is claimed (claim.hpp). A worker never chooses a slot, so it never
// waits for room.
//
// L1  The arena contains no pointer, lock or descriptor number. Offsets count from the start of the arena.
// L2  A reader copies a value from the other side to a local variable, checks the copy, and uses only the copy.
// L3  One arena serves one process of a worker. If the parent has given up a worker, it does not read what this worker writes.
// L4  `closed` is never reset. The worker takes the published tasks, then stops.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ais::shm {

constexpr std::uint64_t kMagic = 0x414e455241534941;  // "AISARENA" in memory
constexpr std::uint32_t kVersion = 3;
// Twice the number of tasks in flight, because descriptors of withdrawn tasks stay until the worker skips them.
constexpr std::uint32_t kRingSlots = 512;
constexpr std::uint32_t kMostInFlight = 256;
constexpr std::size_t kCacheLine = 64;

// The kind of a result or a task; Python uses the same numbers.
enum class Kind : std::uint16_t {
  kTensors = 0,   // arrays
  kObject = 1,    // the buffers of one pickled object
  kRaised = 2,    // the buffers of one pickled exception
  kError = 3,     // two tensors: the text (uint8), and {code, vendor code} (int64)
  kTooLarge = 4,  // no frame: the outputs need `needed_bytes`, more than the result slot has
  kRetry = 5,     // like kRaised, and another run may succeed
};

struct Geometry {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t ring_slots;
  std::uint64_t arena_bytes;
  std::uint64_t data_offset;
  std::uint64_t warm_bytes;    // bytes of the data area whose pages the worker creates when it attaches
  std::uint64_t epoch;         // number of the worker's process within its seat; for messages
  std::uint64_t plain_copies;  // 1: both sides copy payloads with ordinary stores (copy.hpp)
};

struct TaskDescriptor {
  std::uint64_t seq;
  std::uint64_t table_offset;  // the feeds' table
  std::uint32_t table_bytes;
  std::uint16_t mode;
  std::uint16_t kind;
  std::uint64_t result_offset;  // the result slot
  std::uint64_t result_bytes;
  std::int64_t submitted_ns;  // CLOCK_MONOTONIC, like all times
  std::uint64_t option;       // passed to the handler
  std::uint64_t claim;        // the task's owner, see claim.hpp; both sides write it while the entry is in the ring
};

// Durations that a device did not report; their values are 0 and have no meaning.
enum UnknownTime : std::uint16_t { kCopyInUnknown = 1, kExecuteUnknown = 2, kCopyOutUnknown = 4 };

struct ResultDescriptor {
  std::uint64_t seq;
  union {
    std::uint64_t table_offset;
    std::uint64_t needed_bytes;  // kTooLarge
  };
  std::uint32_t table_bytes;
  std::uint16_t kind;
  std::uint16_t unknown;   // bits of UnknownTime, for the durations below
  std::int64_t picked_ns;  // when the worker took the task
  std::int64_t done_ns;    // when the worker published this
  float copy_in_ns;        // durations; 24 bits are enough for them, and a descriptor is one cache line
  float execute_ns;
  float copy_out_ns;
  float preprocess_ns;
  float postprocess_ns;
  std::uint32_t unused2;
};

// L2: returns a duration that the other side wrote; 0 if it is not a number, or negative.
inline std::int64_t duration_ns(float written) {
  constexpr float kLongest = 9e18F;
  return written > 0 ? static_cast<std::int64_t>(written < kLongest ? written : kLongest) : 0;
}

struct alignas(kCacheLine) Position {
  std::atomic<std::uint64_t> value;
};

struct Header {
  alignas(kCacheLine) Geometry geometry;
  Position task_write;
  Position task_read;
  Position result_write;
  Position result_read;
  Position worker_bell;
  alignas(kCacheLine) std::atomic<std::uint32_t> closed;
  alignas(kCacheLine) std::atomic<std::uint32_t> spin_ns;
  std::atomic<std::uint32_t> nap_ns;
  // How often the parent has released memory of slots. The worker learns it with the next task, see port.hpp.
  std::atomic<std::uint64_t> punched;
};

constexpr std::size_t kTaskRingOffset = 4096;
constexpr std::size_t kResultRingOffset = kTaskRingOffset + kRingSlots * sizeof(TaskDescriptor);
constexpr std::size_t kDataOffset = 1 << 17;

static_assert(sizeof(TaskDescriptor) == kCacheLine && std::is_trivially_copyable_v<TaskDescriptor>);
static_assert(sizeof(ResultDescriptor) == kCacheLine && std::is_trivially_copyable_v<ResultDescriptor>);
static_assert(std::is_trivially_copyable_v<Geometry> && sizeof(Geometry) <= kCacheLine);
static_assert(std::is_standard_layout_v<Header> && sizeof(Header) <= kTaskRingOffset);
static_assert(offsetof(Header, task_write) == 64 && offsetof(Header, task_read) == 128);
static_assert(offsetof(Header, result_write) == 192 && offsetof(Header, result_read) == 256);
static_assert(offsetof(Header, worker_bell) == 320 && offsetof(Header, closed) == 384 && offsetof(Header, spin_ns) == 448);
static_assert(kResultRingOffset + kRingSlots * sizeof(ResultDescriptor) <= kDataOffset);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);
static_assert((kRingSlots & (kRingSlots - 1)) == 0);

// L2: copies a value out of shared memory once. Without the barrier the compiler may read the original again later.
inline void fetch(void* local, const void* shared, std::size_t bytes) {
  std::memcpy(local, shared, bytes);
  asm volatile("" ::: "memory");
}

}  // namespace ais::shm
