"""The tuning constants of Python code, by part. Native code's are in `csrc/base/tuning.hpp`.

Each comment says what the value trades off and, after "Measured:", what set it; `docs/performance.md` has the circumstances.
"A guess" was never measured by itself. Defaults of options are in their signatures and tables. Workers import this module,
so it imports nothing.
"""

# ---- what travels (ais_bench/wire) ----

# Bytes of an array from which on it lies beside a pickle instead of in it, in a parcel or in the frame of an object: a copy
# against one more part. Measured: a trip through a frame takes the same processor time either way from 1 to 64 KiB (25 to 31
# us), and 49 instead of 55 us with 256 KiB. It is a page, because parts of a parcel begin at pages.
APART_BYTES = 4 << 10
# The largest number of such arrays: the rest goes in the pickle. A guess; a frame has a place for four times as many.
MOST_OUT_OF_BAND = 1 << 14
# Bytes of a parcel up to which the start message of each worker carries it: a write to a socket for each worker, against one
# file in memory. Measured, processor time of the parent: 10, 17, 38 and 2,000 us for a message of 4 KiB, 64 KiB, 256 KiB and 1
# MiB; 178, 211, 246 and 610 us for a file of that size. So with eight workers messages cost less up to this size.
CARRIED_BYTES = 64 << 10
# Bytes of an array from which on a worker lends it to another one: mapping the other's memory against a copy. A guess.
LENT_BYTES = 64 << 10
# Arenas that a worker keeps mapped: mapping one anew against addresses. A guess: more than workers that live at a time.
MOST_MAPPED = 64

# ---- one device (ais_bench/one_device) ----

# Entries up to which a list of times is filled when it is made: the newest time must cost the same at any length. A guess.
FILLED_AT_ONCE = 1 << 14

# ---- the pool (ais_bench/pool) ----

# Time for a fresh interpreter to answer: too long detects a hung driver late, too short fails on a busy machine. A guess.
ASK_TIMEOUT_S = 60.0
# Lines of a worker's output that errors quote, and the most bytes of an unfinished line. A guess: a traceback fits.
TAIL_LINES = 20
LONGEST_LINE = 8192
# At the end of a script, the time between two checks for finished callbacks of futures, which send no signal. A guess.
FINISH_STEP_S = 0.05
# Workers without an answer for this time release the memory of free slots, except these bytes each, which are warm for small
# tasks; the next check is after the last of these times. Page faults of the next large task against memory for others. Guesses.
IDLE_S = 10.0
KEPT_BYTES = 8 << 20
LOOK_AGAIN_S = 60.0
# A worker told to stop that has nothing to do, and is still there after this, is killed. Measured: `close()` beside a worker
# that was stopped took 4.1 s, and 5 are wanted.
STOP_GRACE_S = 4.0
# The longest pause before a worker is started again: processor time on a broken device against its absence. A guess.
LONGEST_BACKOFF_S = 5.0
# Consecutive deaths that are blamed on tasks. Further deaths without a finished task count against the device. A guess.
TASK_DEATHS_IN_A_ROW = 30

# ---- workers (ais_bench/worker) ----

# What a worker adds to its oom_score_adj, in thousandths of the memory: workers go before a parent that holds up to this much
# more than they do, against workers that go before other programs. A guess: half of the memory.
WORKER_OOM_SCORE = 500

# ---- sessions (ais_bench/session) ----

# Tasks that a worker has in hand at least: overlap against tasks that have to be taken back. An NPU has four in a session's
# pipeline, one on its way there and one back; a CPU device has one, and one on its way; a stage of callables one a thread, and
# one that waits for it. Measured on emulated NPUs with copies as long as the execution: 3.0 times the rate of one in flight.
IN_HAND_ON_AN_NPU = 6
IN_HAND_ON_A_CPU = 2
# Bytes that sharing weights saves, from which on "auto" shares. Measured: two workers of a 300 MiB model need 32 instead of 688
# MiB of private memory, and start in 4.1 instead of 2.4 s: a few milliseconds a MiB.
WORTH_SHARING = 256 << 20
# Times of the last call that a session keeps of each device: what `summary()` tells against memory. A guess.
KEPT_TIMES = 100_000

# ---- evaluations (ais_bench/evaluate) ----

# A record waits for the next one to be written with it, and then for the disk: what a killed run or a machine without power
# loses against calls of the system. Guesses.
FLUSH_S = 0.1
SYNC_S = 2.0
BUFFER_BYTES = 1 << 16
# Bytes of an array up to which the record itself has it: a file that people can read against its size. A guess.
INLINE_BYTES = 1024
# Bytes of plain arrays that go to each worker as a whole; of more, each sample goes by itself. Memory of all workers against
# copies. A guess.
TRAVELS_AS_ONE = 64 << 20
# How often a sample whose workers died runs again alone before it fails: another program may also kill workers repeatedly.
# A guess.
MORE_ROUNDS = 2
# Between two looks: at the counts of restarts, at what the line of progress says (the second one where no line can move), and
# at the table of `live`. News against processor time. Guesses.
RESTARTS_LOOK_S = 0.2
PROGRESS_LOOK_S = 0.1
PROGRESS_LINE_S = 10.0
LIVE_LOOK_S = 0.5
# What a run writes down and shows at most: restarts, and runs in a trace; the file of more opens nowhere. Guesses.
MOST_RESTARTS = 10_000
MOST_TRACED = 100_000
# Beginnings and ends that the timeline keeps back, since records are in the order of the data set and not of time. A guess.
REORDER = 1 << 15
# Whole records that it keeps back for the same reason: about 1 KB each. A guess.
REORDER_RUNS = 4096
# Records in memory at a time while a Parquet file is written. A guess.
ROWS = 16_384
# Windows in a row that have to agree before a measurement ends: its time against chance. A guess.
WINDOWS_THAT_AGREE = 3

# ---- the command line (ais_bench/cli) ----

# For npu-smi to answer. A guess.
POWER_TIMEOUT_S = 30.0
# For the process of a device to end by itself. A guess.
DEVICE_END_S = 5.0

# ---- clusters (ais_bench/ray) ----

# Chunks in a node's hand, some of which are on their way: overlap against chunks that run again when a node is lost. Measured:
# with 4, chunks of 10 ms reached 0.85 of two local pools on a busy machine, as the way there and back took 25 ms.
CHUNKS_A_NODE = 8
# Work of a node in a chunk, if the number of items is unknown. Measured in the simulator: ten nodes reach 0.98 with 20 ms, 0.95
# with 10. It is twice what hides the way there and back.
WORK_S = 0.02
# Share of its time that a driver spends on chunks: the more nodes there are, the more work a chunk has to be. Measured in the
# simulator: 0.25 goes with an efficiency of 0.98, 0.5 with 0.96.
DRIVER_SHARE = 0.25
# An item waits no longer for others of its chunk, and a chunk is no larger: delay and memory against calls. Guesses.
PATIENCE_S = 0.02
LARGEST_CHUNK = 64 << 20
# The driver's turns: the longest wait for an event, which is also the time between two looks at the nodes, and the shortest;
# and answers that are taken before chunks are placed again. News of nodes against processor time. Guesses.
TICK_S = 0.25
SHORTEST_S = 0.001
MOST_ANSWERS = 16
# A node that has chunks is sent a ping every so often, is suspected if it has not answered one for so long, and its actor is
# started again if it has not come back by then. Chunks that run twice against a silent node's delay. Guesses.
PING_EVERY_S = 0.5
SILENT_S = 2.0
SUSPECT_S = 30.0
# Nodes that were suspected while they had a chunk, before that counts against the chunk. A guess.
MOST_TRIES = 10
# For an actor's process, before its session starts; for actors to end their sessions; for a node to say what it counted.
# Guesses.
PROCESS_START_S = 60.0
CLOSE_S = 10.0
REPORT_S = 10.0
# Without a turn of the driver's thread, its callers give up. A guess: Ray retries for less.
STALL_S = 60.0
# If another program uses a node's devices for this long, the node is not waited for. A guess.
HELD_S = 3.0
# Pauses before a node is tried again, doubled each time, and deaths in a row that are put down to chunks. Guesses.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
MOST_BLAMED_ON_CHUNKS = 30
# Between two looks at the nodes of the cluster, and the longest wait of a helper's thread for a job. Guesses.
NODES_LOOK_S = 1.0
HELPER_WAIT_S = 0.5
# For a cluster's address to take a connection. A guess.
REACH_S = 10.0
# Bytes of an item from which on it goes through Ray's store. Not measured: Ray itself sends less than this with the call.
STORED_BYTES = 100 << 10
# Bytes of an array from which on it is not copied into the pickle. A guess.
RAY_OUT_OF_BAND_BYTES = 16 << 10
# For all items of a chunk that are in the store to arrive. A guess.
FETCH_S = 60.0
