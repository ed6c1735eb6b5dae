// The tuning constants of native code, by part. Each comment says what the value trades off and, after "Measured:", what set
// it; docs/performance.md describes the measurements. "No effect" between two values: on two cores at a load of 7 to 13, an
// item of `map` with two inputs of 12 KiB took the same processor time, within 15 %. "A guess" was never measured by itself.
// Sizes and numbers of formats and of vendors' interfaces are not choices, so they are in the files that use them.
// ais_bench/tuning.py has the constants of Python.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace ais::tuning {

// ---- waiting: parent and workers ----

// How long a side spins before it blocks: the cost of a wake-up against processor time. Measured: a blocking wake-up between
// cores took about 50 us for both ways, a successful spin 0.4 us; so a failed spin costs no more than the saved wake-up. On two
// cores at a load of 8, one call took 15, 17 and 99 us of the parent's processor time with 12.5, 50 and 200 us.
constexpr std::int64_t kAutoSpinNs = 50'000;
// How long both sides of a stream of short tasks sleep instead of being woken for each task: fewer context switches against
// idle workers. Measured: a wake-up for each task took twice the processor time and 17 times the switches; a nap of 50 us
// really takes 130 us. From 12.5 to 200 us the processor time of a task stays the same, within 15 % (two cores, a load of 6).
constexpr std::int64_t kNapNs = 50'000;
// If at least this many replies arrive at once, the workers keep pace and a stream continues without a nap. Measured: this
// check gave 180,000 instead of 127,000 tasks per second. With 2, 8 and 32 a task took 8.0, 8.0 and 8.4 us of the parent.
constexpr std::size_t kEnoughToGoOn = 8;
// How many of its calls a thread leads in a row if others wait: their waiting against a wake-up for each change.
// Measured with 16 threads: the slowest makes 0.93 of the fastest's calls; 0.25 without a limit. At a load of 9 on two cores it
// makes 0.85 of them with 4, 16 and 64.
constexpr int kLeadsInARow = 16;
// How long the background thread lets callers lead after they leave: delay of futures against thread switches.
// Measured beside a thread of calls: a future took 250, 300 and 170 us with 0.25, 1 and 4 ms, and single runs differ as much.
constexpr std::int64_t kStandByNs = 1'000'000;
// Answers between two checks whether a worker's tasks are short enough for naps; a check costs a division. Measured: no effect
// from 2 to 32.
constexpr std::uint64_t kAdaptEvery = 8;
// How long a caller is assumed to stay on its processor: a move that is noticed late against a query for each task.
// Measured: no effect from 5 to 80 ms, without moves.
constexpr std::int64_t kStayNs = 20'000'000;
// Task time up to which one worker keeps up with the sending thread, so that the worker on that thread's processor gets no
// tasks. Measured: a small task takes 5.3 us of the parent and 5.2 us of one worker; 15 us allow for slower callers. No effect
// from 3.75 to 60 us.
constexpr std::int64_t kShortTaskNs = 15'000;

// ---- ending unwanted tasks ----

// For this time an unwanted task may end by itself, before its worker gets a message. A guess: longer than most tasks.
constexpr std::int64_t kEndsItselfNs = 10'000'000;
// Time between two such messages; the run may not have begun at the first: messages against a busy device. A guess.
constexpr std::int64_t kTellAgainNs = 100'000'000;
// If a task past its time limit, for example in a callable, runs for this long after the message, its worker is killed. Not
// measured: docs/pool.md promises half a second.
constexpr std::int64_t kToldLongAgoNs = 500'000'000;
// How often a wanted task runs again after it was ended together with another one, or after memory was released for its
// outputs: a limit for a faulty driver, and for workers that take the memory from each other. A guess.
constexpr int kMostStops = 8;
// Time between two checks of a worker that makes no progress while its ring is full. A guess.
constexpr std::int64_t kCrowdedNs = 10'000'000;
// How soon a call notices that it must end. Not measured: people do not notice it; each check costs a few microseconds.
constexpr std::int64_t kSignalCheckNs = 50'000'000;        // a long iteration
constexpr std::chrono::milliseconds kSignalLookEvery{50};  // the thread that watches for signals
constexpr std::chrono::milliseconds kStopLookEvery{50};    // a run of ONNX Runtime in a thread of its own
constexpr std::int64_t kAclSignalLookNs = 100'000'000;     // a wait for an NPU
// A run that ends within this time after a signal is not stopped. A guess.
constexpr std::int64_t kSignalGraceNs = 100'000'000;
// Checks without a run after which the watching thread ends: a new start against an idle thread. A guess.
constexpr int kIdleLooks = 2;
// Without pidfds: time between two checks whether a child still lives. A guess; newer kernels report it at once.
constexpr int kChildLookMs = 200;

// ---- streams: how far to draw ahead ----

// A draw that takes longer makes the caller wait, so the stream checks for results before it. A guess.
constexpr std::int64_t kSlowDrawNs = 500'000;
// Items that are drawn at most before a finished result is yielded: supply of the workers against delay. Measured: no effect
// from 4 to 64.
constexpr int kTopUp = 16;
// If this number plus twice the number of workers of finished results wait, nothing is drawn: memory against the workers'
// supply. Measured: no effect from 2 to 32; without a limit the number grew up to the window.
constexpr std::size_t kReadyForTheCaller = 8;
// Bytes that a stream holds from which on one finished result for each worker is enough: more slots in use are more pages that
// are new, or were given back meanwhile. Measured with 19 MiB in and out on two workers: at most 8 items in progress instead of
// 15, no page fault instead of 120 on each side of an item, and 4.1 ms an item instead of 4.5.
constexpr std::uint64_t kReadyBytes = std::uint64_t{128} << 20;
// A pause before a slow draw takes at most the draw's time divided by this. A guess: the worst loss is a sixth of the rate.
constexpr std::int64_t kPartOfADraw = 6;
// Failed pauses after which no more are made, and items until the next attempt. Guesses.
constexpr int kMissesInARow = 4;
constexpr std::int64_t kTryPauseEvery = 64;

// ---- scheduler ----

// If the number of tasks in flight is automatic, a worker gets this much work in advance: no idle time during naps and
// switches, against tasks that must be taken back. Measured: small tasks have the same rate with 200 and 400 us. On two
// cores at a load of 7 such a task took 9.3, 7.8 and 7.5 us of the parent with 100, 400 and 1,600 us. It must be longer than a
// nap, which really takes 130 us.
constexpr std::int64_t kWorkInHandNs = 400'000;
// The maximum number of tasks for this; a lane takes 256. Measured: no effect, from 32 to 512 in the simulator, and from
// 32 to 256 on small tasks.
constexpr int kMostInHand = 128;
// From this number of tasks in hand on (tasks of 25 us), a wake-up costs more than the task: it takes about 50 us. Measured on
// two cores at a load of 8: a small task took 6.8, 7.2 and 8.6 us of the parent with 4, 16 and 64.
constexpr int kManyInHand = 16;
// Consecutive faults of a device after which its worker is killed, if another device works. A guess.
constexpr int kFaultsInARow = 5;
// The cost of taking a task back and sending it again, and the cost for each byte: two wake-ups, and copies at 2 GB/s. If the
// gain is smaller, tasks stay. Measured with the simulator, as a share of the ideal rate, 8 devices, uneven tasks of 50 us:
// 0.998, 0.996 and 0.991 with 25, 100 and 400 us. Tasks of 10 ms: no effect. The cost for each byte is a guess.
constexpr std::int64_t kMoveCostNs = 100'000;
constexpr double kMoveCostPerByte = 0.5;
// How much later a worker begins if it is pinned to the caller's processor. A guess: a thread switch.
constexpr std::int64_t kSameProcessorNs = 20'000;
// Weight of the newest time in an estimate, and the limit of one time as a multiple of the mean: fast adaptation against
// outliers. Measured with the simulator, as a share of the ideal rate, 8 devices, uneven tasks of 50 us: 0.997, 0.996 and 0.988
// with weights of 1/16, 1/4 and 1 (a small weight follows changes slowly, which this does not show). With a limit of 2 a third
// more tasks are taken back than with 8; 32 changes nothing.
constexpr double kLearn = 0.25;
constexpr double kOutlier = 8;
// Number of kinds of tasks whose times a worker keeps, and of rankings that are kept: memory, against estimates and rankings
// that are made anew for each task if more kinds alternate. Each stream has its own kinds. Measured with the simulator: 24
// streams on 8 devices cost 2.8 us for each task with 64 and 64, and 13 us with 24 and 16; 40 streams on 64 devices 3.7 and 66
// to 90 us. For more streams than that, larger numbers would help.
constexpr std::size_t kKindsKept = 64;
constexpr std::size_t kRankings = 64;
// Changes after which an incremental sum is computed again: rounding errors against time. Measured with the simulator: from
// 16 Ki to 256 Ki neither the decisions nor the time change.
constexpr std::uint32_t kSumAgain = 1 << 16;
// Busy intervals of a worker that are kept, so that none is counted twice. A guess: more than run at once.
constexpr std::size_t kCoveredKept = 64;

// ---- copies ----

// Bytes from which on a copy to the other side uses non-temporal stores. Measured: 24 KiB took 0.5 instead of 8.3 us, a call
// 14.5 instead of 29, between cores without a common cache; with one, ordinary stores are faster (shm/copy.hpp). The threshold
// is a guess: four cache lines.
constexpr std::size_t kNonTemporalBytes = 256;
// Bytes from which on it always uses them, since the data would leave a core's cache before it is read; and the pages that it
// copies at the same time. Measured on two cores with a common cache and 2 MiB each, in processor time of the copy and of a
// reader that writes as many bytes: 19 MiB took 3.4 and 3.8 ms with memcpy, 2.5 and 3.6 with one page, 2.1 and 3.8 with four
// pages, 1.9 and 3.5 with eight (which may not fit one set of a smaller first cache). 4 MiB took 1.2 ms in all with memcpy, and
// 0.95 with four pages; 2 MiB took 0.31 and 0.39.
constexpr std::size_t kPastCacheBytes = std::size_t{4} << 20;
constexpr std::size_t kPagesAtOnce = 4;
// Bytes from which on a copy releases the GIL, and a result is lent. Measured, the best of three: a call with two inputs of 128
// KiB took 30, 25 and 33 us of the parent with 16, 64 and 256 KiB.
constexpr std::size_t kLargeBytes = std::size_t{64} << 10;
// Results of one lane that can be lent at a time; further results are copied. Measured with 19 MiB in and out: if the caller
// keeps the last 8 results, 5.1 ms an item with 32 loans, 7.5 ms with 8; if it keeps 400, 15 ms with 400 loans, 29 ms with 8.
// The limit is for results of a few pages, whose slots cost more than their copies: a guess.
constexpr std::size_t kLoans = 256;
// The share of the arena (its reciprocal) that can be lent; the rest is for tasks if the caller keeps everything. A guess.
constexpr std::size_t kLentShare = 4;
// Between processors without a common cache, outputs between these sizes are computed in the worker's private memory, and then
// copied with non-temporal stores. Measured: a gain of 1.4 us for a small call's result; with a common cache, a loss of 4 us.
// For other sizes the second copy costs more than it saves; the bounds are guesses.
constexpr std::size_t kBounceFrom = 1 << 10;
constexpr std::size_t kBounceUpTo = 64 << 10;
// Blocks of small outputs that are reused instead of freed: step between sizes, number of sizes, and total bytes. The C library
// keeps smaller blocks for each thread; larger outputs are lent. Measured: no effect from 2 to 32 MiB in total. The others are
// guesses.
constexpr std::size_t kRecycledStep = 4096;
constexpr std::size_t kRecycledFrom = 1024;
constexpr std::size_t kRecycledClasses = 16;
constexpr std::size_t kRecycledBytes = std::size_t{8} << 20;

// ---- shared memory: slots and the arena ----

// The size of an arena: a range of addresses that needs memory only for touched pages, with room for any result. It is smaller
// if the system has a limit. Not measured: addresses cost nothing.
constexpr std::size_t kArenaBytes = std::size_t{1} << 38;
constexpr std::size_t kLeastArena = std::size_t{16} << 20;
// The minimum of the first large result slot: if a result slot is too small, the task runs a second time. A guess.
constexpr std::size_t kLeastResult = std::size_t{1} << 20;
// The smallest size of slots: few sizes against addresses. Measured: no effect from 16 to 256 KiB on calls.
constexpr std::size_t kSmallSlot = std::size_t{64} << 10;
// Small slots whose pages exist before the first task: time of a start and 512 KiB, against page faults. Measured: no
// effect from 2 to 32, neither on the first result nor on later calls.
constexpr std::size_t kWarmSlots = 8;
// Bytes that free slots keep: this number, or this multiple of the largest recent task. Page faults against memory. Guesses.
constexpr std::uint64_t kIdleBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kIdleTasks = 4;
// If a slot has more memory than twice its content plus this, the rest is released. A guess.
constexpr std::uint64_t kSlackBytes = std::uint64_t{4} << 20;
// Free slots that are checked for one with memory. A guess.
constexpr std::size_t kLookBack = 16;
// A file system with this much free space is used for an arena without a check of the others. A guess.
constexpr std::size_t kRoomyBytes = std::size_t{1} << 30;
// Below this number of bytes the available memory is not checked, because reading cgroups costs more than such a task; and the
// bytes that are left for everything else. Guesses.
constexpr std::size_t kAskForRoomFrom = std::size_t{16} << 20;
constexpr std::uint64_t kSpareBytes = std::uint64_t{16} << 20;

// ---- worker and session ----

// Runs in progress in a session's pipeline: one each is copied in, executed and copied out, and one is with the caller.
// Measured: with stages of equal length 3.0 to 3.1 times the rate of single runs, which is the maximum for three stages.
constexpr std::size_t kPipelineDepth = 4;
// Outputs that wait for the thread that takes them: overlap against memory. A guess: one is taken, one waits.
constexpr std::size_t kMostDone = 2;
// Times of each kind that a session keeps: history for callers against memory. A guess.
constexpr std::size_t kTimesKept = std::size_t{1} << 20;
// Memory that is registered with a device: the minimum size, the number of tasks, and the maximum in all. A host's copy of less
// is cheap, registering costs more than one copy, and pinned memory is not available to others. Guesses: no NPU was available.
constexpr std::size_t kRegisterFrom = std::size_t{32} << 10;
constexpr std::uint64_t kTasksBeforeRegister = 2;
constexpr std::size_t kMostRegistered = std::size_t{1} << 30;

// ---- pinned workers ----

// A pinned worker checks at this interval of work whether others use its processor. If it waited for more than this share of
// the time, it unpins itself, and pins itself again after a pause between these limits. Measured: beside a busy loop one infer
// took 0.95 of the time of unpinned workers, and a stream had 1.02 of their rate.
constexpr std::int64_t kPinLookEveryNs = 25'000'000;
constexpr double kPinOthersShare = 0.15;
constexpr std::int64_t kPinFirstAwayNs = 2'000'000'000;
constexpr std::int64_t kPinLongestAwayNs = 60'000'000'000;

// ---- AscendCL; measured on the emulator, because no NPU was available ----

// Limits of the pause between two queries whether a run has ended: delay against processor time. Measured: 75 to 125 us of
// processor time for a task of 0.5 ms, against 87 to 108 us with waits that time out. The limits are guesses; a cancel is
// noticed at the end of a pause.
constexpr std::int64_t kShortestPauseNs = 5'000;
constexpr std::int64_t kLongestPauseNs = 20'000'000;
// Shorter pauses use a timer slack of 1 ns: two more system calls against the usual delay of 50 us. A guess.
constexpr std::int64_t kPreciseBelowNs = 1'000'000;
// Device memory that is kept for the next allocation, and the multiple to which sizes are rounded up, so that nearly equal
// sizes share it. An allocation costs a call of the driver. Guesses.
constexpr std::size_t kDeviceCacheBytes = std::size_t{256} << 20;
constexpr std::size_t kDeviceBlock = 64;
// The largest size from `custom_sizes` that is used as a first guess. A guess: some callers pass 1e9 to be safe.
constexpr std::size_t kLargestGuess = std::size_t{64} << 20;
// Inputs up to which every order is tried for a model's gears: 5,040 orders. A guess: more would slow down the load.
constexpr std::size_t kMostPermuted = 7;

}  // namespace ais::tuning
