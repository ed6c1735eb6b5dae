// The tuning constants of native code, by part. Each comment says what the value trades off and, after "Measured:", what set
// it; docs/performance.md has the circumstances. "A guess" was never measured by itself. Sizes and numbers of formats and of
// vendors' interfaces are no choices, and stand where they are used. Python's are in ais_bench/tuning.py.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace ais::tuning {

// ---- waiting: parent and workers ----

// How long a side looks before it blocks: a waker's cost against a processor's time. Measured: a blocking wake between cores
// took about 50 us there and back, a successful spin 0.4 us; so a spin that fails costs no more than the wake that it saves.
constexpr std::int64_t kAutoSpinNs = 50'000;
// How long both sides of a stream of short tasks sleep instead of being woken for each: fewer switches against idle workers.
// Measured: waking for each task took twice the processor time and 17 times the switches; a nap of 50 us takes 130 us in fact.
constexpr std::int64_t kNapNs = 50'000;
// Replies at once from which on a stream goes on without a nap, because the workers keep pace. Measured: looking first gave
// 180,000 instead of 127,000 tasks a second. The 8 is a guess.
constexpr std::size_t kEnoughToGoOn = 8;
// How long the background leaves the lead to callers that come and go: futures' delay against threads that swap. A guess.
constexpr std::int64_t kStandByNs = 1'000'000;
// Answers between two looks at whether a worker's tasks are short enough for naps. A guess: a look is a division.
constexpr std::uint64_t kAdaptEvery = 8;
// How long a caller is assumed to stay on its processor: a late notice of a move against asking for each task. A guess.
constexpr std::int64_t kStayNs = 20'000'000;
// Task time up to which one worker keeps up with the sending thread, so that one pinned beside that thread is left alone.
// Measured: a small task takes 5.3 us of the parent and 5.2 us of one worker. The 15 leaves room for slower callers: a guess.
constexpr std::int64_t kShortTaskNs = 15'000;

// ---- ending what nobody wants ----

// A task that nobody wants may end by itself for this long, before its worker is told. A guess: longer than most tasks.
constexpr std::int64_t kEndsItselfNs = 10'000'000;
// How often the worker is told again, because the run may not have begun: messages against a device kept busy. A guess.
constexpr std::int64_t kTellAgainNs = 100'000'000;
// From here on a task past its own time that goes on, in a callable say, costs its worker. Not measured: docs/pool.md promises
// half a second.
constexpr std::int64_t kToldLongAgoNs = 500'000'000;
// How often a wanted task runs again after it was ended along with another one. A guess against a driver that never obeys.
constexpr int kMostStops = 8;
// Between two looks at a worker that stands still with a full ring. A guess.
constexpr std::int64_t kCrowdedNs = 10'000'000;
// How soon a call sees that it is to end. Not measured: under what people notice; each look costs a few microseconds.
constexpr std::int64_t kSignalCheckNs = 50'000'000;        // a long iteration
constexpr std::chrono::milliseconds kSignalLookEvery{50};  // the thread that watches for signals
constexpr std::chrono::milliseconds kStopLookEvery{50};    // a run of ONNX Runtime in a thread of its own
constexpr std::int64_t kAclSignalLookNs = 100'000'000;     // a wait for an NPU
// A run that takes no longer after a signal ends by itself. A guess.
constexpr std::int64_t kSignalGraceNs = 100'000'000;
// Looks without a run before the thread that watches ends: starting it anew against an idle thread. A guess.
constexpr int kIdleLooks = 2;
// Where the kernel has no pidfds: between two looks whether a child still lives. A guess; newer kernels tell at once.
constexpr int kChildLookMs = 200;

// ---- streams: how far to draw ahead ----

// A draw that takes longer keeps the caller waiting, so results are looked for before it. A guess.
constexpr std::int64_t kSlowDrawNs = 500'000;
// Items drawn at most before what is ready is yielded: the workers' supply against the caller's delay. A guess.
constexpr int kTopUp = 16;
// Results that lie ready, and twice the workers more, from which on nothing is drawn: memory against the workers' supply. A
// guess; without a limit what lay ready grew up to the window.
constexpr std::size_t kReadyForTheCaller = 8;
// A pause before a slow draw takes this part of what the draw takes, at most. A guess: a sixth of the rate is the worst loss.
constexpr std::int64_t kPartOfADraw = 6;
// Pauses in vain before they are given up, and items until they are tried again. Guesses.
constexpr int kMissesInARow = 4;
constexpr std::int64_t kTryPauseEvery = 64;

// ---- scheduler ----

// With the number of tasks in flight left open, a worker is handed so much work at a time: naps and switches that must not let
// it run dry, against tasks that would have to be taken back. A guess: longer than a nap, which takes 130 us in fact.
constexpr std::int64_t kWorkInHandNs = 400'000;
// And so many tasks at most. A guess; a lane takes 256.
constexpr int kMostInHand = 128;
// From so many in hand on, which is tasks of 25 us, waking somebody for one costs more than the task. Not measured by itself:
// a wake-up takes about 50 us.
constexpr int kManyInHand = 16;
// Faults of a device in a row, while another one works, that cost its worker. A guess.
constexpr int kFaultsInARow = 5;
// What taking a task back and sending it again costs, and for each byte: below such a gain tasks stay. A guess
// of two wake-ups, and of copies at 2 GB/s.
constexpr std::int64_t kMoveCostNs = 100'000;
constexpr double kMoveCostPerByte = 0.5;
// How much later a worker begins that is pinned to the caller's processor. A guess: a switch of threads.
constexpr std::int64_t kSameProcessorNs = 20'000;
// Weight of the newest time in an estimate, and how many times the mean one time counts at most: quick to learn, slow to be
// misled. Guesses; the simulator's tests hold with them.
constexpr double kLearn = 0.25;
constexpr double kOutlier = 8;
// Kinds of tasks whose times a worker keeps, and orders of workers that are kept: memory and time of a change against starting
// to learn again. Guesses.
constexpr std::size_t kKindsKept = 24;
constexpr std::size_t kRankings = 16;
// Changes after which a sum that is kept by differences is made anew: its rounding errors against the time. A guess.
constexpr std::uint32_t kSumAgain = 1 << 16;
// Stretches of a worker's busy time that are remembered, to count none twice. A guess: more than run at once.
constexpr std::size_t kCoveredKept = 64;

// ---- copies ----

// Bytes from which on a copy to the other side is written past the cache. Measured: 24 KiB took 0.5 instead of 8.3 us, a call
// 14.5 instead of 29. The threshold is a guess: four lines of a cache.
constexpr std::size_t kNonTemporalBytes = 256;
// Bytes from which on a copy is worth letting other threads run, and a result worth lending. A guess.
constexpr std::size_t kLargeBytes = std::size_t{64} << 10;
// Results of one lane that are lent at a time; more are copied. A lent slot is one whose pages the worker touches anew
// somewhere else, which costs more than a copy. A guess.
constexpr int kLoans = 8;
// Outputs between these sizes go through memory of the worker's own, then past the cache. Measured: 1.4 us for a small call's
// result. Below and beyond the second copy costs more than the other side's fetching; the bounds are guesses.
constexpr std::size_t kBounceFrom = 1 << 10;
constexpr std::size_t kBounceUpTo = 64 << 10;
// Blocks of small outputs that are used again instead of going back to the C library: steps of a size, classes, and bytes in
// all. Smaller blocks the library keeps for each thread anyway; larger outputs are lent. Guesses.
constexpr std::size_t kRecycledStep = 4096;
constexpr std::size_t kRecycledFrom = 1024;
constexpr std::size_t kRecycledClasses = 16;
constexpr std::size_t kRecycledBytes = std::size_t{8} << 20;

// ---- shared memory: slots and the arena ----

// An arena is a range of addresses, memory only where it is touched: room for any result. Smaller where the system has a limit.
// Not measured: addresses cost nothing.
constexpr std::size_t kArenaBytes = std::size_t{1} << 38;
constexpr std::size_t kLeastArena = std::size_t{16} << 20;
// The first large result slot has at least so much: a small result slot costs a second run. A guess.
constexpr std::size_t kLeastResult = std::size_t{1} << 20;
// The smallest class of slots: few classes against addresses. A guess; the small tasks of the benchmarks fit.
constexpr std::size_t kSmallSlot = std::size_t{64} << 10;
// Small slots whose pages are there before the first task: a start's time and 512 KiB against the first tasks' faults. A guess.
constexpr std::size_t kWarmSlots = 8;
// Bytes of memory that free slots keep: so many, or so many times the largest task of late. Page faults against memory.
// Guesses.
constexpr std::uint64_t kIdleBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kIdleTasks = 4;
// A slot that holds twice its content and this much more gives the rest back. A guess.
constexpr std::uint64_t kSlackBytes = std::uint64_t{4} << 20;
// Free slots that are looked at for one with memory. A guess.
constexpr std::size_t kLookBack = 16;
// A file system with so much room is taken for an arena without a look at the others. A guess.
constexpr std::size_t kRoomyBytes = std::size_t{1} << 30;
// Below so many bytes nobody asks how much memory is left: reading cgroups costs more than such a task. And so much of it is
// left for everything else. Guesses.
constexpr std::size_t kAskForRoomFrom = std::size_t{16} << 20;
constexpr std::uint64_t kSpareBytes = std::uint64_t{16} << 20;

// ---- worker and session ----

// Runs under way in a session's pipeline: one each copying in, executing and copying out, and one at the caller. Measured: with
// stages of equal length 3.0 to 3.1 times the rate of one at a time, as much as three stages can overlap.
constexpr std::size_t kPipelineDepth = 4;
// Outputs that wait for the thread that takes them: overlap against memory. A guess: one to take, one behind it.
constexpr std::size_t kMostDone = 2;
// Times that a session keeps of each kind: what a caller may ask for against memory. A guess.
constexpr std::size_t kTimesKept = std::size_t{1} << 20;
// Memory that is registered with a device: from this size, for a third task, and up to so much. A host's copy below it costs
// next to nothing, telling the device more than one copy, and pinned memory is missing elsewhere. Guesses: no NPU was at hand.
constexpr std::size_t kRegisterFrom = std::size_t{32} << 10;
constexpr std::uint64_t kTasksBeforeRegister = 2;
constexpr std::size_t kMostRegistered = std::size_t{1} << 30;

// ---- pinned workers ----

// A pinned worker looks every so often of its work whether others use its processor; from this share of its time on it runs
// anywhere, and comes back after the first pause, up to the longest. Measured: beside a busy loop one infer took 0.95 and a
// stream had 1.02 of what unpinned workers did.
constexpr std::int64_t kPinLookEveryNs = 25'000'000;
constexpr double kPinOthersShare = 0.15;
constexpr std::int64_t kPinFirstAwayNs = 2'000'000'000;
constexpr std::int64_t kPinLongestAwayNs = 60'000'000'000;

// ---- AscendCL; on the emulator, as no NPU was at hand ----

// Pauses between two questions whether a run has ended: its delay against processor time. Measured: 75 to 125 us of processor
// time for a task of 0.5 ms, against 87 to 108 us in waits with a time-out. The bounds are guesses; a cancel is seen at the end
// of a pause.
constexpr std::int64_t kShortestPauseNs = 5'000;
constexpr std::int64_t kLongestPauseNs = 20'000'000;
// Pauses below it are made with a timer slack of 1 ns: two more system calls against the usual 50 us that a sleep is late.
// A guess.
constexpr std::int64_t kPreciseBelowNs = 1'000'000;
// Device memory that is kept for the next allocation, and what sizes are rounded up to, so that nearly equal ones share it. An
// allocation takes a driver's call. Guesses.
constexpr std::size_t kDeviceCacheBytes = std::size_t{256} << 20;
constexpr std::size_t kDeviceBlock = 64;
// The largest size that is believed of `custom_sizes` as a first guess. A guess: callers say 1e9 to be on the safe side.
constexpr std::size_t kLargestGuess = std::size_t{64} << 20;
// Inputs of which every order is tried for a model's gears: 5,040 orders. A guess: beyond it the load would be felt.
constexpr std::size_t kMostPermuted = 7;

}  // namespace ais::tuning
