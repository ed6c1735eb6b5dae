"""Type stubs of the native extension. Private: the public names are in `ais_bench.session`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, final

from numpy.typing import NDArray

class Tensor:
    def __init__(self, array: Any) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...
    def to_device(self, device_id: int) -> None: ...
    def to_host(self) -> None: ...
    def _copied(self) -> Tensor:
        """Return a tensor with its own copy of the values, in the same place."""

    @property
    def device(self) -> int: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def data_ptr(self) -> int:
        """Return the address of the memory, on the host or the device."""

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
        """Stop the runs in progress; return "", or why the device cannot stop a run, so that it ends by itself."""

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
    """Checks feeds by a model's description, in the form of `Session.inputs` and `Session.overridable`."""

    def __init__(
        self,
        inputs: Sequence[tuple[str, int, int, list[int], int, list[str], bool]],
        overridable: Sequence[tuple[str, int, int, list[int], int, list[str], bool]],
    ) -> None: ...
    def plain(self, feeds: Any) -> bool:
        """Return whether these are a list of arrays of the model's types, which need no note."""
    def notes(self, feeds: Any) -> list[str]:
        """Return the warnings that a session would give, each text once. Raises FeedError for invalid feeds."""
    def tell_again(self) -> None:
        """Return those texts again at the next call, because they were turned into errors."""

class Iteration:
    def __init__(self, session: Session) -> None: ...
    def first(self, session: Session, feeds: Any, mode: Any) -> None: ...
    def step(self, chain: Sequence[int], /) -> None: ...
    def outputs(self) -> list[Tensor]: ...

def memory_times(direction: str) -> list[float]: ...
def clear_memory_times() -> None: ...
def finalize() -> None: ...
def load_numpy() -> None:
    """Import numpy's C interface now. Raises ImportError if its version is not supported."""

def _check_numpy(version: int, features: int, handler: int, /) -> None: ...
def usable_cpu_count() -> int: ...
def allowed_cpus() -> list[int]: ...
def pin(cpus: Sequence[int], yields: bool) -> int:
    """Pin this process to processors, and return 0 or an errno. `yields`: only while no other program uses them."""

def look_around() -> None:
    """Unpin this process or pin it again, if it is time; see csrc/base/pinning.hpp."""

def is_pinned() -> bool:
    """Return whether this process is pinned now."""

def memory_limit(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int:
    """Return how many bytes of memory this process may use: the lowest limit of its cgroups and of the machine."""

def memory_room(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> tuple[int, int, str]:
    """Return the limit with the least available memory, its available bytes, and its name. File caches count as available."""

def current_cpu() -> int: ...
def die_with_parent(parent: int) -> bool: ...
def ignore_interrupts() -> None: ...
def monotonic_ns() -> int:
    """Return the nanoseconds of CLOCK_MONOTONIC. Unlike `time.monotonic_ns`, a program cannot replace this clock."""

def poll(wanted: Sequence[tuple[int, int]], seconds: float | None) -> list[tuple[int, int]]:
    """Wait until one of the (descriptor, events) occurs, or for `seconds`; return those that occurred, which may be none."""

class Child:
    """A child process in a new session, with the given descriptors and no others. Raises TransportError."""

    def __init__(self, argv: Sequence[bytes], stdin: int, stdout: int, stderr: int, keep: Sequence[int]) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def watch_fd(self) -> int:
        """Return a descriptor that is readable once the child has ended."""

    def kill(self, signal: int) -> None:
        """Send a signal, never to another process. Has no effect if the child has ended. Any thread."""

    def reap(self) -> tuple[int | None, int | None]:
        """Wait for the end; return the signal or the exit code. Both None: other code reaped the process."""

    def close(self) -> None: ...

def runtime_for(path: bytes, /) -> str: ...
def runtime_for_content(model: bytes, /) -> str: ...
def external_data(path: bytes, /) -> tuple[int, list[bytes]]:
    """Return how many bytes of weights an ONNX file has in other files, and the names of these files in the model."""

def runtime_version(name: str, /) -> str: ...
def runtime_about(name: str, /) -> tuple[str, str, str]: ...
def runtime_library(name: str, /) -> str: ...
def built_in_providers() -> list[str]:
    """Return the execution providers that are built into ONNX Runtime, by its names."""

def is_ort_option(name: str, /) -> bool:
    """Return whether an option is of ONNX Runtime's sessions; another one may be a provider's. Loads no library."""

def provider_devices(options: Mapping[str, str], /) -> list[str]:
    """Return the names of the devices of the provider in `options`. Loads drivers, so call it in a helper process."""

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
        """Return the descriptor for workers; the object owns it."""

    def ticket(self) -> int:
        """Return a ticket. Take it before a check of the lanes; `wait` returns at once if the bell was rung since."""

    def wait(self, ticket: int, timeout: float | None = None, spin_us: float = 0.0) -> bool:
        """Spin for `spin_us`, then sleep until the bell is rung or a signal arrives (True), or for `timeout` seconds (False).

        The GIL is released. Python signal handlers run before it returns; their errors are raised.
        """

    def ring(self) -> None:
        """Wake all waiting threads. Never blocks."""

class Stats:
    """Times of tasks as histograms of fixed size, exact to 1.6 %. Any thread; lanes may share one."""

    def __init__(self) -> None: ...
    @property
    def tasks(self) -> int:
        """Replies polled."""

    @property
    def failures(self) -> int:
        """Return the number of polled replies of kind RAISED or ERROR."""

    @property
    def busy_ns(self) -> int:
        """Return the sum over all tasks of the time between taking and answering the task."""

    def occupied(self) -> tuple[int, int, int, int, int, int]:
        """Return the use of the workers' time, in nanoseconds: (before they took tasks, queued, copies in, callables,
        executions,
        copies out). The first is the part of the next two during which the workers had no other task."""

    def add(self, other: Stats) -> None:
        """Add the records of `other`."""

    def reset(self) -> None:
        """Forget everything."""

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return `{stage: {"count", "mean", "p50", "p90", "p99", "max"}}` in milliseconds.

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
    """The parent's end of the arena of one worker process. Any thread of the process that made it.

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

        Sizes are virtual; memory is used when it is touched. 0: 256 GiB or the process's limit, and a 1024th of that for a
        result. If a result needs more, it is computed again with a larger slot.
        """

    @property
    def fd(self) -> int:
        """Return the arena's descriptor, for the worker; -1 after `release_fd`."""

    def release_fd(self) -> None:
        """Close the descriptor; the mapping does not need it."""

    @property
    def in_flight(self) -> int:
        """Return the number of tasks that were submitted and not yet polled."""

    @property
    def closed(self) -> bool:
        """Return whether one side has closed the lane."""

    def try_submit(self, feeds: Iterable[Any], mode: int, task: object, kind: int = 0, option: int = 0) -> bool:
        """Copy the feeds into a slot and publish the task. Return False if there is no room now.

        Arrays in this lane's arena (`new_feeds`, lent outputs) are not copied, but kept alive until the reply.
        The GIL is released for large copies. Raises FeedError for a value that is not an array, TransportError if the lane is
        closed or corrupt.
        """

    def poll(self) -> Reply | None:
        """Return the next reply, or None. Never blocks; works after close and after the worker's death.

        Outputs are new arrays, or (large ones, a few at a time) arrays over the result slot, which stays lent while they
        live. Raises TransportError for invalid data from the worker; the lane is closed then.
        """

    def abandon(self) -> list[tuple[Any, list[NDArray[Any]] | None, int, bool]]:
        """Close the lane, and return (task, feeds, kind, taken) of all tasks without a reply, in order of submission.

        The feeds are in the dead worker's arena and keep it alive; None if the worker has overwritten their table.
        """

    def oldest(self) -> tuple[Any, int] | None:
        """Return the first task without a published reply, and the earliest time at which it can have begun (monotonic ns)."""

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[NDArray[Any]]:
        """Return uninitialised arrays of (shape, dtype) in one feed slot, which lives as long as they do."""

    def owns(self, array: NDArray[Any]) -> bool:
        """Return whether the array's memory is in this lane's arena."""

    def offset_of(self, array: NDArray[Any]) -> int:
        """Return the offset in bytes in the arena of an array that this lane owns."""

    def warm(self, feed_bytes: int, result_bytes: int, tasks: int) -> None:
        """Prepare slots for `tasks` tasks, so that the first tasks do not wait for memory. Releases the GIL."""

    def trim(self, keep: int = 0) -> None:
        """Release the memory of unused slots, of the largest ones first, except `keep` bytes."""

    def close(self) -> None:
        """Let the worker finish the published tasks and stop. Wakes both sides. Idempotent."""

class NativeHandler:
    """The base of handlers for `Channel.serve`."""

    def cancel(self, task_id: int) -> None:
        """End the task soon, if it is in progress. Any thread. Other tasks may end with it, as cancelled."""

class EchoHandler(NativeHandler):
    """Returns the feeds as outputs; in mode 1 no outputs. `option`: microseconds of simulated work. For tests."""

    def __init__(self) -> None: ...

class SessionHandler(NativeHandler):
    """Runs a session on every task, with outputs in the result slot."""

    def __init__(self, session: Session) -> None: ...
    def when_slots_are_refused(self, tell: Callable[[], None]) -> None:
        """Call `tell` once, in the serving thread, when the device registers no more slots (see `Session.host_memory`)."""

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
        """Take ownership of both descriptors. Raises TransportError if this version cannot serve the arena."""

    def serve(self, handler: NativeHandler, on_object: Callable[[Task], object] | None = None) -> int:
        """Run tasks natively, without the GIL, until the lane is closed and drained; return their number.

        Tasks of kind OBJECT go to `on_object`, which replies or fails. Python signal handlers run between tasks.
        """

    def next_task(self, timeout: float | None = None) -> Task | None:
        """Return the next task; None after `timeout` seconds. Raises EOFError if the lane is closed and drained.

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
        """Copy the outputs into the result slot and publish the reply.

        If `execute_ns` is 0, the time since the task was taken is used. If the outputs do not fit, the parent submits the task
        again with a larger slot. Raises ConfigError if the task was answered before.
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
        """Serve tasks of this channel."""

    def submit(self, task: Task, feeds: Any, carry: object, preprocess_ns: int) -> None:
        """Submit a task with its feeds. Any thread.

        `carry` None: the executor answers with the outputs; otherwise `next_done` returns the task. Raises FeedError; then the
        caller must answer the task.
        """

    def cancel(self, task_id: int) -> None:
        """See `NativeHandler.cancel`."""

    def end(self) -> None:
        """Declare that no more tasks come."""

    def run(self) -> None:
        """Execute tasks until `end` and the last task. One thread. After DeviceLost or TransportError the process must exit."""

    def next_done(self) -> tuple[Task, list[NDArray[Any]], Any, tuple[int, int, int, int]] | None:
        """Return a task that must be answered, its outputs, its `carry`, and its times; None after the last.

        The times are nanoseconds of copying in, executing, copying out and preprocessing. Any thread.
        """

def take(feeds: Iterable[Any], names: Sequence[str] = ()) -> list[NDArray[Any]]:
    """Return copies of the feeds, C-contiguous and in native byte order. Raises FeedError like `try_submit`, with the inputs'
    `names`."""

class ScheduledTask:
    """A task of a Scheduler, with a value of the caller."""

    def __init__(self, value: Any) -> None: ...
    @property
    def value(self) -> Any: ...
    @property
    def crashes(self) -> int:
        """Return how many workers were lost with it."""

class ScheduledWorker:
    """A worker of a Scheduler, which takes several tasks at a time."""

    @property
    def device(self) -> int: ...
    @property
    def in_hand(self) -> int: ...

class Scheduler:
    """The pool's scheduler for programs that distribute work themselves. One thread at a time."""

    def __init__(self, *, in_flight: int = 0, fewest: int = 2, max_attempts: int = 2, random: int = 0) -> None:
        """`in_flight`: tasks that a worker holds, 0: by the times of tasks. `random`: not 0: the seed of random decisions."""

    def add_worker(self, device: int, weight: float = 1.0) -> ScheduledWorker: ...
    def remove_worker(self, worker: ScheduledWorker) -> list[ScheduledTask]:
        """Remove a worker, and return its tasks in order. The caller must `lose` each of them."""

    def close_worker(self, worker: ScheduledWorker) -> None:
        """Give the worker no new tasks."""

    def add(self, task: ScheduledTask, kind: int = 0, device: int = -1) -> None:
        """Queue a task. `kind`: tasks of one kind take equal times. `device`: the device of its workers; -1: any."""

    def next(self, now_ns: int) -> tuple[ScheduledTask, ScheduledWorker] | None:
        """Place a waiting task, and return it with its worker. None: nothing can be placed now."""

    def answered(self, task: ScheduledTask, began_ns: int, done_ns: int) -> None: ...
    def lose(self, task: ScheduledTask, begun: bool, certain: bool) -> bool:
        """Report a task of a dead worker. Returns whether it is queued again; otherwise it has failed."""

    def drop(self, task: ScheduledTask) -> None:
        """Make a task unwanted. It leaves the queue now, or its worker with the answer."""

    def expect(self, to_come: int) -> None:
        """Set the number of tasks that follow; -1: unknown."""

    @property
    def waiting(self) -> int: ...
    @property
    def look_again_ns(self) -> int: ...
    def check(self) -> str:
        """Return a description of an inconsistent state; empty: the state is consistent."""

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
        """`spread`: deviation of the logarithm of times. `depth`: tasks that it claims at a time. `dies_at_ns`: -1: never.

        `only_cpu`: the processor to which it is pinned; -1: none.
        """

class SimulatedSource:
    """A stream of tasks, or calls at given times."""

    def __init__(
        self, lengths: Sequence[float], *, arrivals_ns: Sequence[int] = ..., known_end: bool = False, window: int = 0
    ) -> None:
        """`lengths`: of the tasks, in units of `task_ns`. `window`: maximum of tasks in progress; 0: no limit."""

class Simulated:
    """The result of a simulation."""

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
    """Run the pool's scheduler on simulated devices. Raises RuntimeError if a task is lost or done twice, or the state is
    wrong.

    `skip_cpu`: the processor of a busy caller; devices that are pinned to it get no tasks.
    """

class PoolTask:
    """A task of the pool. `result()`, `outputs` and `error` are valid once it is `done`."""

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
        failed_before: tuple[int, int] = (0, 0),
    ) -> None:
        """`device`: the only device that may run it; None: any. `kept`: an object that lives until the task is done.
        `failed_before`: attempts in another pool: how often a callable raised an error of `retry_on`, which counts as a fault
        of this task, and how often a worker died."""

    @staticmethod
    def failed(
        error: BaseException,
        index: int | None = None,
        device: int | None = None,
        key: object = None,
        failed_before: tuple[int, int] = (0, 0),
    ) -> PoolTask:
        """Return a task that failed before it began, in its place in the order."""

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
    def lost_before(self) -> int: ...
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
        """Return the outputs, or the object that the handler returned. Raises the task's error, which names the task."""

    def details(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return started_ns, done_ns and the times in ns: queued, copy in, execute, copy out, end to end, pre-, postprocess."""

class PoolWorker:
    """A worker that can take tasks. `several`: it runs several at a time."""

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
    """The owner of a pool's state: csrc/bind/exchange.hpp. Any thread; an interrupt cannot split a call."""

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
        """Send the task, or queue it. Raises the error of a blocked device or a closed pool."""

    def run(self, task: PoolTask) -> None: ...
    def run_all(self, tasks: Sequence[PoolTask]) -> None: ...
    def run_plain(self, rule: FeedRule, times: dict[int, list[float]], feeds: Any) -> list[Any] | PoolTask | None:
        """Run feeds that need no note, and make their time the only one in `times`. None: the feeds need another way.

        Returns the outputs, or the task, if it failed or its answer is an object.
        """

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
    def kill_because(self, worker: PoolWorker, reason: BaseException) -> None: ...
    def take_to_kill(self) -> list[PoolWorker]: ...
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
    def stop_accepting(self, make_error: Callable[..., BaseException]) -> None: ...
    def set_weight(self, device: int, weight: float) -> None: ...
    def detach_supervisor(self) -> None: ...
    def name_feeds(self, names: Sequence[str]) -> None:
        """Set the names of a task's arrays in errors."""

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
    """Makes tasks of an iterable's items and yields them when they are done: csrc/bind/stream.hpp."""

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

@final
class Results:
    """The results of a stream's tasks: csrc/bind/stream.hpp."""

    def __init__(
        self,
        stream: Stream,
        answer: Callable[[PoolTask], Any],
        *,
        times: dict[int, list[float]] | None = None,
        kept: int = 1,
        indexed: bool = False,
    ) -> None: ...
    def __iter__(self) -> Results: ...
    def __next__(self) -> Any: ...
    def close(self) -> None: ...
