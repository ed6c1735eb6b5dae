"""Typed face of the native extension. Private: the public names are in `ais_bench.session`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

class Tensor:
    def __init__(self, array: Any) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...
    def to_device(self, device_id: int) -> None: ...
    def to_host(self) -> None: ...
    def _copied(self) -> Tensor:
        """Return a tensor with the same values in memory of its own, in the same place."""

    @property
    def device(self) -> int: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def data_ptr(self) -> int:
        """The address of the memory, on the host or the device."""

    @property
    def _dtype_number(self) -> int: ...

TIMES_KEPT: Final[int]  # of each kind, by a session

class TimeSpan(float):
    """The time of one execution, a float, that also unpacks and indexes as (start, end)."""

    def __new__(cls, start: float, end: float | None = None) -> TimeSpan: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    def __iter__(self) -> Iterator[float]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...

class Session:
    def __init__(self, model: str | bytes, device_id: int, loop: int, options: Mapping[str, str], runtime: str) -> None: ...
    def inputs(self) -> list[tuple[str, int, int, list[int], int, list[str], bool]]: ...
    def outputs(self) -> list[tuple[str, int, int, list[int], int, list[str], bool]]: ...
    def overridable(self) -> list[tuple[str, int, int, list[int], int, list[str], bool]]: ...
    def metadata(self) -> tuple[str, int, str, str, str, dict[str, str]] | None: ...
    def placement(self) -> tuple[int, list[str]] | None:
        """Return how many nodes the model has and which of them run on the processor; None if the runtime does not tell."""

    def gears(self) -> tuple[str, list[list[int]]]: ...
    def infer(self, feeds: Any, mode: Any, out_array: bool) -> list[Any]: ...
    def infer_many(self, sets: Iterable[Any], mode: Any, returns: bool) -> list[Any]: ...
    def run(self, feeds: Any) -> list[Tensor]: ...
    def iterate(self, feeds: Any, mode: Any, chain: Sequence[int], times: int) -> list[NDArray[Any]]: ...
    def real_sizes(self) -> list[int]: ...
    def set_static(self) -> None: ...
    def set_batch(self, batch: int, /) -> None: ...
    def set_image(self, height: int, width: int, /) -> None: ...
    def set_dims(self, text: str, /) -> None: ...
    def set_shape(self, text: str, /) -> None: ...
    def aipp_inputs(self) -> list[int]: ...
    def memory(self) -> tuple[int, int] | None: ...
    def expect_outputs(self, bytes: Sequence[int]) -> None: ...
    def set_aipp(
        self,
        input: int,
        pictures: int,
        format: int,
        size: tuple[int, int],
        swaps: tuple[bool, bool],
        lists: Mapping[str, Sequence[float]],
    ) -> None: ...
    def check_process(self) -> None:
        """Raise SessionClosed in a child that was forked from the session's process."""

    def exec_times(self, since: int) -> tuple[list[TimeSpan], int, int]: ...
    def append_times(self, other: Session, since: int) -> None: ...
    def to_device(self, tensor: Tensor) -> None: ...
    def clear_exec_times(self) -> None: ...
    def cancel(self) -> str:
        """Ask the runs under way to stop; return "", or why the device cannot stop one, so that they end by themselves."""

    def host_memory(self) -> str: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def device_id(self) -> int: ...
    @property
    def runtime(self) -> str: ...
    @property
    def loop(self) -> int: ...
    @loop.setter
    def loop(self, value: int) -> None: ...

class FeedRule:
    """The rule of feeds over the description of a model, as `Session.inputs` and `Session.overridable` give it."""

    def __init__(
        self,
        inputs: Sequence[tuple[str, int, int, list[int], int, list[str], bool]],
        overridable: Sequence[tuple[str, int, int, list[int], int, list[str], bool]],
    ) -> None: ...
    def plain(self, feeds: Any) -> bool:
        """Return whether these are a list of arrays of the model's types, of which there is nothing to say."""
    def notes(self, feeds: Any) -> list[str]:
        """Return what a session would warn of, each text once. Raises FeedError for what no run can take."""
    def tell_again(self) -> None:
        """Return those texts anew: they were made errors, and the same feeds must not pass the next time."""

class Iteration:
    def __init__(self, session: Session) -> None: ...
    def first(self, session: Session, feeds: Any, mode: Any) -> None: ...
    def step(self, chain: Sequence[int], /) -> None: ...
    def outputs(self) -> list[Tensor]: ...

def memory_times(direction: str) -> list[float]: ...
def clear_memory_times() -> None: ...
def finalize() -> None: ...
def load_numpy() -> None:
    """Look up numpy's C interface now. Raise ImportError where it is not the one that this was made for."""

def _check_numpy(version: int, features: int, handler: int, /) -> None: ...
def usable_cpu_count() -> int: ...
def allowed_cpus() -> list[int]: ...
def pin(cpus: Sequence[int], yields: bool) -> int:
    """Pin this process to processors, and return 0 or an errno. `yields`: only while no other program uses them."""

def look_around() -> None:
    """Leave the processors, or come back to them, if it is time to; see csrc/base/pinning.hpp."""

def is_pinned() -> bool:
    """Whether this process is on the processors that it was pinned to."""

def memory_limit(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int:
    """Return how many bytes of memory this process may use: the lowest limit of its cgroups and of the machine."""

def memory_room(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> tuple[int, int, str]:
    """Return the limit that leaves least, the bytes that are left of it, and whose it is. File caches count as left."""

def current_cpu() -> int: ...
def die_with_parent(parent: int) -> bool: ...
def ignore_interrupts() -> None: ...
def monotonic_ns() -> int:
    """Return the nanoseconds of CLOCK_MONOTONIC. Unlike `time.monotonic_ns`, nothing can put a stopped clock in its place."""

def nap(us: float) -> None:
    """Sleep for some microseconds, less than a second, without the GIL. A signal ends it."""

def poll(wanted: Sequence[tuple[int, int]], seconds: float | None) -> list[tuple[int, int]]:
    """Wait until one of the (descriptor, events) is there, or for so many seconds; return those that are. None may be."""

class Child:
    """A child process, in a session of its own, with the descriptors given and no others. Raises TransportError."""

    def __init__(self, argv: Sequence[bytes], stdin: int, stdout: int, stderr: int, keep: Sequence[int]) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def watch_fd(self) -> int:
        """A descriptor that is readable once the child has ended."""

    def kill(self, signal: int) -> None:
        """Send a signal to this process for certain. Any thread; too late is fine."""

    def reap(self) -> tuple[int | None, int | None]:
        """Wait for the end; return the signal or the exit code. Both None: somebody else reaped it."""

    def close(self) -> None: ...

def runtime_for(path: bytes, /) -> str: ...
def runtime_for_content(model: bytes, /) -> str: ...
def external_data(path: bytes, /) -> tuple[int, list[bytes]]:
    """Return how many bytes of weights an ONNX file keeps in other files, and their names as the model has them."""

def runtime_version(name: str, /) -> str: ...
def runtime_about(name: str, /) -> tuple[str, str, str]: ...
def runtime_library(name: str, /) -> str: ...
def built_in_providers() -> list[str]:
    """Return the execution providers that are built into ONNX Runtime, by its names."""

def is_ort_option(name: str, /) -> bool:
    """Return whether an option is of ONNX Runtime's sessions; another one may be a provider's. Loads no library."""

def provider_devices(options: Mapping[str, str], /) -> list[str]:
    """Return what the devices of the provider in `options` are called. Loads drivers: for a process that was made for it."""

def device_memory(name: str, device_id: int, /) -> tuple[int, int]: ...
def device_count(name: str, /) -> int: ...
def _status_codes() -> dict[str, int]: ...
def _raise_status(code: int, message: str, /) -> None: ...

# ---- csrc/bind/shm_*.cpp: re-exported and explained by ais_bench.shm ----

class Doorbell:
    """One word in shared memory on which the parent sleeps and which every worker rings. Any thread."""

    def __init__(self) -> None: ...
    @property
    def fd(self) -> int:
        """The descriptor to hand to workers; the object owns it."""

    def ticket(self) -> int:
        """Take one before looking at the lanes; `wait` returns at once if the bell was rung since."""

    def wait(self, ticket: int, timeout: float | None = None, spin_us: float = 0.0) -> bool:
        """Spin for `spin_us`, then sleep until the bell is rung or a signal comes (True), or for `timeout` seconds (False).

        The GIL is released. Python signal handlers have run when it returns; what they raise is raised.
        """

    def ring(self) -> None:
        """Wake all who wait. Never blocks."""

class Stats:
    """Times of tasks as histograms of fixed size, exact to 1.6 %. Any thread; lanes may share one."""

    def __init__(self) -> None: ...
    @property
    def tasks(self) -> int:
        """Replies polled."""

    @property
    def failures(self) -> int:
        """Replies polled of kind RAISED or ERROR."""

    @property
    def busy_ns(self) -> int:
        """Sum over all tasks of the time between a worker taking and answering it."""

    def occupied(self) -> tuple[int, int, int, int, int, int]:
        """How workers were occupied, in nanoseconds: (before they took tasks, queued, copies in, callables, executions,
        copies out). The first is the part of the next two that passed while they had nothing else."""

    def add(self, other: Stats) -> None:
        """Merge what `other` holds into this."""

    def reset(self) -> None:
        """Forget everything."""

    def to_dict(self) -> dict[str, dict[str, float]]:
        """`{stage: {"count", "mean", "p50", "p90", "p99", "max"}}` in milliseconds.

        Stages: "queued_ms", "copy_in_ms", "execute_ms", "copy_out_ms", "end_to_end_ms".
        """

class Reply(NamedTuple):
    """One reply of a worker. Natively a struct sequence: attributes and unpacking, without `_replace`."""

    task: Any
    outputs: list[NDArray[Any]] | None
    error: BaseException | None
    kind: int
    queued_ns: int
    copy_in_ns: int
    execute_ns: int
    copy_out_ns: int
    end_to_end_ns: int
    done_ns: int

class Lane:
    """The parent's end of one incarnation of one worker. Any thread of the process that made it.

    Every call raises SessionClosed in a forked child.
    """

    capacity: int
    spin_us: float
    nap_us: float

    def __init__(
        self,
        doorbell: Doorbell,
        *,
        epoch: int = 0,
        arena_bytes: int = 0,
        result_bytes: int = 0,
        stats: Stats | None = None,
    ) -> None:
        """Make the arena.

        Sizes are virtual, memory is used as it is touched. 0: 256 GiB or what the limits of the process allow, and a
        1024th of that for a result; a result that needs more gets it by being computed again.
        """

    @property
    def fd(self) -> int:
        """The arena's descriptor, to hand to the worker; -1 after `release_fd`."""

    def release_fd(self) -> None:
        """Close the descriptor; the mapping does not need it."""

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not yet polled."""

    @property
    def closed(self) -> bool:
        """Whether either side closed the lane."""

    def try_submit(self, feeds: Iterable[Any], mode: int, task: object, kind: int = 0, option: int = 0) -> bool:
        """Copy the feeds into a slot and publish the task; False when there is no room now.

        Arrays that lie in this lane's arena (`new_feeds`, lent outputs) are not copied but kept alive until the reply.
        The GIL is released for large copies. Raises FeedError for what is no array, TransportError when the lane is
        closed or corrupt.
        """

    def poll(self) -> Reply | None:
        """Return the next reply, or None. Never blocks; works after close and after the worker's death.

        Outputs are new arrays, or (large ones, a few at a time) arrays over the result slot, which stays lent while they
        live. Raises TransportError when the worker wrote what it cannot; the lane is closed then.
        """

    def abandon(self) -> list[tuple[Any, list[NDArray[Any]] | None, int, bool]]:
        """Close, and return (task, feeds, kind, taken) of all tasks without a reply, in order of submission.

        The feeds lie in the dead worker's arena and keep it alive; None where the worker wrote over their table.
        """

    def oldest(self) -> tuple[Any, int] | None:
        """Return the first task without a published reply, and since when the worker can be at it (monotonic ns)."""

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[NDArray[Any]]:
        """Return uninitialised arrays of (shape, dtype) in one feed slot, which they keep."""

    def owns(self, array: NDArray[Any]) -> bool:
        """Whether the array's memory is in this lane's arena."""

    def offset_of(self, array: NDArray[Any]) -> int:
        """Return where an array that this lane owns begins in its memory, in bytes."""

    def warm(self, feed_bytes: int, result_bytes: int, tasks: int) -> None:
        """Make slots for `tasks` tasks exist, so that the first ones do not wait for memory. Releases the GIL."""

    def trim(self, keep: int = 0) -> None:
        """Give back the memory of slots that are not in use, but for `keep` bytes; of the largest slots first."""

    def close(self) -> None:
        """Let the worker finish what is published and stop. Wakes both sides. Idempotent."""

class NativeHandler:
    """What `Channel.serve` runs."""

    def cancel(self, task_id: int) -> None:
        """Have the task end soon, if it is under way. Any thread. Others may end with it, as cancelled."""

class EchoHandler(NativeHandler):
    """Outputs are the feeds, in mode 1 there are none; `option` is a number of microseconds to be busy. For tests."""

    def __init__(self) -> None: ...

class SessionHandler(NativeHandler):
    """Runs a session on every task, outputs straight into the result slot."""

    def __init__(self, session: Session) -> None: ...
    def when_slots_are_refused(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once, in the serving thread, when the device takes no more slots (see `Session.host_memory`)."""

class Task(NamedTuple):
    """One task in the worker. Natively a struct sequence."""

    id: int
    feeds: list[NDArray[Any]]
    mode: int
    option: int
    kind: int

class Channel:
    """The worker's end of its arena. One thread takes tasks; replies may come from others."""

    def __init__(self, arena_fd: int, doorbell_fd: int) -> None:
        """Take both descriptors over. Raises TransportError where the arena is not one that this version can serve."""

    def serve(self, handler: NativeHandler, on_object: Callable[[Task], object] | None = None) -> int:
        """Run tasks natively, without the GIL, until the lane is closed and drained; return how many.

        Tasks of kind OBJECT go to `on_object`, which replies or fails. Python signal handlers run between tasks.
        """

    def next_task(self, timeout: float | None = None) -> Task | None:
        """Return the next task; None after `timeout` seconds. Raises EOFError when the lane is closed and drained.

        Its feeds are read-only arrays over the slot, valid until the reply.
        """

    def reply(
        self,
        task: Task,
        outputs: Iterable[Any],
        *,
        kind: int = 0,
        execute_ns: int = 0,
        copy_in_ns: int = 0,
        copy_out_ns: int = 0,
        preprocess_ns: int = 0,
        postprocess_ns: int = 0,
    ) -> None:
        """Copy the outputs into the result slot and publish.

        With `execute_ns` 0 the time since the task was taken counts. Outputs that do not fit make the parent submit the
        task again with a larger slot. Raises ConfigError for a task that was answered already.
        """

    def fail(self, task: Task, code: int, message: str, vendor_code: int = 0) -> None:
        """Publish a failure of kind ERROR; `code` is one of csrc/base/status.hpp."""

    def close(self) -> None:
        """Close the lane from this side. Any thread."""

class Executor:
    """Runs a model in one thread on feeds that other threads made, without the GIL between two runs.

    A task whose run fails is answered with that error. Queues are short: `submit` and `run` wait for each other.
    """

    def __init__(self, channel: Channel, session: Session) -> None:
        """Serve tasks that this channel hands out."""

    def submit(self, task: Task, feeds: Any, carry: object, preprocess_ns: int) -> None:
        """Hand a task over, with the feeds to run it on. Any thread.

        `carry` None: the executor answers with the outputs; anything else comes back from `next_done`. Raises FeedError, and
        then the task is still the caller's.
        """

    def cancel(self, task_id: int) -> None:
        """See `NativeHandler.cancel`."""

    def end(self) -> None:
        """Say that no task comes any more."""

    def run(self) -> None:
        """Execute until `end` and the last task. One thread. Raises DeviceLost, TransportError: the process has to end."""

    def next_done(self) -> tuple[Task, list[NDArray[Any]], Any, tuple[int, int, int, int]] | None:
        """Return a task that has to be answered, its outputs, what it carried, and its times; None after the last.

        The times are nanoseconds of copying in, executing, copying out and preprocessing. Any thread.
        """

def take(feeds: Iterable[Any], names: Sequence[str] = ()) -> list[NDArray[Any]]:
    """Return copies of the feeds, C-contiguous and in native byte order. Raises FeedError as `try_submit` does, which calls the
    inputs by `names`."""

class ScheduledTask:
    """What a Scheduler places, with a value of the caller's."""

    def __init__(self, value: Any) -> None: ...
    @property
    def value(self) -> Any: ...
    @property
    def crashes(self) -> int:
        """How many workers were lost with it."""

class ScheduledWorker:
    """Who takes tasks from a Scheduler, several at a time."""

    @property
    def device(self) -> int: ...
    @property
    def in_hand(self) -> int: ...

class Scheduler:
    """The pool's scheduler for programs that hand out work themselves. Not for two threads at once."""

    def __init__(self, *, in_flight: int = 0, fewest: int = 2, max_attempts: int = 2, random: int = 0) -> None:
        """`in_flight`: tasks in a worker's hand, 0: as the times of tasks have it. `random`: not 0: decide by lot."""

    def add_worker(self, device: int, weight: float = 1.0) -> ScheduledWorker: ...
    def remove_worker(self, worker: ScheduledWorker) -> list[ScheduledTask]:
        """Return what the worker had in hand, in order; each has to be `lose`d."""

    def close_worker(self, worker: ScheduledWorker) -> None:
        """Give it no new tasks."""

    def add(self, task: ScheduledTask, kind: int = 0, device: int = -1) -> None:
        """Queue a task. `kind`: tasks of a kind take alike. `device`: that of the workers that may have it; -1: all."""

    def next(self, now_ns: int) -> tuple[ScheduledTask, ScheduledWorker] | None:
        """Place a task that waits, and return who has to do it. None: nothing can be placed now."""

    def answered(self, task: ScheduledTask, began_ns: int, done_ns: int) -> None: ...
    def lose(self, task: ScheduledTask, begun: bool, certain: bool) -> bool:
        """Say what a worker's end did to a task. Returns whether it is queued again; else it has failed."""

    def drop(self, task: ScheduledTask) -> None:
        """Nobody wants the task. It leaves the queue now, and a worker when that answers."""

    def expect(self, to_come: int) -> None:
        """Say how many tasks follow; -1: nobody knows."""

    @property
    def waiting(self) -> int: ...
    @property
    def look_again_ns(self) -> int: ...
    def check(self) -> str:
        """Return what is wrong with the books; empty: nothing."""

class SimulatedDevice:
    """A device of the simulator."""

    def __init__(
        self,
        task_ns: int = 10_000_000,
        *,
        spread: float = 0.0,
        depth: int = 1,
        dies_at_ns: int = -1,
        restart_ns: int = 50_000_000,
        only_cpu: int = -1,
    ) -> None:
        """`spread`: of the logarithm of the time. `depth`: tasks that it claims at a time. `dies_at_ns`: once, -1: never.

        `only_cpu`: the processor that it is pinned to; -1: none.
        """

class SimulatedSource:
    """A stream of tasks, or calls that come at times of their own."""

    def __init__(
        self, lengths: Sequence[float], *, arrivals_ns: Sequence[int] = ..., known_end: bool = False, window: int = 0
    ) -> None:
        """`lengths`: of the tasks, in units of `task_ns`. `window`: tasks under way at most; 0: as many as wanted."""

class Simulated:
    """What a simulation came to."""

    @property
    def wall_ns(self) -> int: ...
    @property
    def busy_ns(self) -> list[int]: ...
    @property
    def tasks(self) -> list[int]: ...
    @property
    def done_ns(self) -> list[list[int]]: ...
    @property
    def taken_back(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def hedged(self) -> int: ...
    @property
    def most_ahead(self) -> int: ...
    @property
    def most_in_hand(self) -> list[int]: ...
    @property
    def idle_beside_waiting(self) -> int: ...
    @property
    def nanoseconds_a_task(self) -> float: ...

def simulate(
    devices: Sequence[SimulatedDevice],
    sources: Sequence[SimulatedSource],
    *,
    in_flight: int = 0,
    fewest: int = 2,
    max_attempts: int = 2,
    random: int = 0,
    seed: int = 1,
    check: bool = True,
    skip_cpu: int = -1,
    hedge: float = 0.0,
) -> Simulated:
    """Run the pool's scheduler on simulated devices. Raises RuntimeError for a task lost or done twice, or wrong books.

    `skip_cpu`: the processor of a caller that keeps it to itself: devices pinned to it get nothing.
    """

class PoolTask:
    """Feeds on the way to outputs. `result()`, `outputs` and `error` mean something once it is `done`."""

    def __init__(
        self,
        feeds: Sequence[Any],
        mode: int = 0,
        kind: int = 0,
        option: int = 0,
        device: int | None = None,
        index: int | None = None,
        key: object = None,
        kept: object = None,
    ) -> None:
        """`device`: the only one that may run it; None: any. `kept` lives until the task is done."""

    @staticmethod
    def failed(error: BaseException, index: int | None = None, device: int | None = None, key: object = None) -> PoolTask:
        """Return a task that ended before it began, in the place that it would have had."""

    @property
    def index(self) -> int | None: ...
    @property
    def key(self) -> Any: ...
    @property
    def device(self) -> int | None: ...
    @property
    def done(self) -> bool: ...
    @property
    def outputs(self) -> list[Any] | None: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def answer_kind(self) -> int: ...
    @property
    def ran_on(self) -> int | None: ...
    @property
    def at_device(self) -> int | None: ...
    @property
    def crashes(self) -> int: ...
    @property
    def faults(self) -> int: ...
    @property
    def moved(self) -> int: ...
    @property
    def started(self) -> bool: ...
    @property
    def end_to_end_ns(self) -> int: ...
    @property
    def outcome(self) -> str: ...

    future: Any

    def result(self) -> Any:
        """Return the outputs, or the object that the handler answered with; raise the task's error, which names the task."""

    def details(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return started_ns, done_ns and the times in ns: queued, copy in, execute, copy out, end to end, pre-, postprocess."""

class PoolWorker:
    """A worker that can be sent tasks. `several`: it works on several at a time."""

    def __init__(self, device: int, lane: Lane, only_cpu: int | None = None, several: bool = False) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def lane(self) -> Lane: ...
    @property
    def answered(self) -> int: ...
    @property
    def in_hand(self) -> int: ...
    @property
    def kill_reason(self) -> BaseException | None: ...

class Exchange:
    """The owner of a pool's state: csrc/bind/exchange.hpp. Any thread; each call is atomic towards interrupts."""

    wake_when_idle: bool

    def __init__(
        self,
        doorbell: Doorbell,
        *,
        wake_fd: int = -1,
        cores: int = 1,
        spin_us: float = -1.0,
        task_timeout: float | None = None,
        in_flight: int = 0,
        fewest: int = 2,
        max_attempts: int = 2,
        random: int = 0,
        hedge: float = 0.0,
    ) -> None: ...
    def start(self, task: PoolTask, timeout: float | None = None) -> None:
        """Send the task, or queue it. Raises what a block or the closed door says."""

    def run(self, task: PoolTask) -> None: ...
    def run_all(self, tasks: Sequence[PoolTask]) -> None: ...
    def run_plain(self, rule: FeedRule, feeds: Any) -> PoolTask | None:
        """Run feeds of which there is nothing to say, and return their task when it is done. None: they are none."""
    def cancel(self, tasks: Sequence[PoolTask]) -> None: ...
    def fail(self, task: PoolTask, error: BaseException, timed_out: bool = False) -> None: ...
    def progress(self) -> int: ...
    def wait(self, timeout: float) -> None: ...
    def wait_until_idle(self, timeout: float) -> bool: ...
    def next_resolved(self) -> PoolTask | None: ...
    def stop_resolving(self) -> None: ...
    def ring(self) -> None: ...
    def silence(self) -> None: ...
    def add_worker(self, worker: PoolWorker) -> None: ...
    def retire(self, device: int) -> None: ...
    def condemn(self, worker: PoolWorker, reason: BaseException) -> None: ...
    def take_condemned(self) -> list[PoolWorker]: ...
    def remove_worker(self, worker: PoolWorker, died: Callable[[PoolTask], BaseException]) -> int | None: ...
    def overdue(
        self,
    ) -> tuple[
        list[tuple[PoolTask, float, float]],
        list[tuple[PoolWorker, PoolTask, bool, float]],
        list[tuple[PoolWorker, int]],
        float | None,
    ]: ...
    def block(self, device: int | None, make_error: Callable[..., BaseException]) -> None: ...
    def unblock(self, device: int | None) -> None: ...
    def close_door(self, make_error: Callable[..., BaseException]) -> None: ...
    def set_weight(self, device: int, weight: float) -> None: ...
    def forget_supervisor(self) -> None: ...
    def name_feeds(self, names: Sequence[str]) -> None:
        """Errors call the arrays of a task so from now on, instead of by number."""

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[NDArray[Any]]: ...
    @property
    def unfinished(self) -> int: ...
    @property
    def futures(self) -> int: ...
    @property
    def unresolved(self) -> int: ...
    @property
    def at_rest(self) -> bool: ...
    def counts(self) -> dict[str, Any]: ...
    def wall_s(self) -> float: ...
    def reset_times(self) -> None: ...
    def check(self) -> str: ...

class Stream:
    """Tasks made of the items of any iterable, each when it is done: csrc/bind/stream.hpp."""

    def __init__(
        self,
        exchange: Exchange,
        items: Iterable[Any],
        make: Callable[[Any, int], PoolTask],
        *,
        ordered: bool = True,
        window_items: int = 4096,
        window_bytes: int = ...,
        lists: int | None = None,
        rule: FeedRule | None = None,
    ) -> None: ...
    def __iter__(self) -> Stream: ...
    def __next__(self) -> PoolTask: ...
    def close(self) -> None: ...
