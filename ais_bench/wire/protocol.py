"""The messages of the control connection, and the interface of factories and handlers.

    parent -> worker   a dict {"path", "cwd"} for the bootstrap code, then Start, then any Cancel, then at most one Stop
    worker -> parent   Ready or Failed, once; Described and LogLine at any time

If the worker reads end of file, the parent has ended, and the worker exits. For the parent, end of file alone means nothing;
the worker's pidfd shows its death.

Every worker imports this file, so it imports little: dataclasses alone would be a tenth of a worker's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ais_bench.wire import TENSORS, Task
from ais_bench.wire.parcel import Packed


class WorkerContext(NamedTuple):
    """The argument of a factory: the properties of its worker."""

    device_id: int
    threads: int  # number of threads for computing
    spin: bool  # whether threads may spin while they wait for work inside a task


class Answer(NamedTuple):
    """The answer of a handler to a task. `kind` OBJECT: `outputs` are buffers of `ais_bench.wire.encode`."""

    outputs: Sequence[Any]
    kind: int = TENSORS
    copy_in_ns: int = 0
    execute_ns: int = 0  # 0: the whole time of `run`
    copy_out_ns: int = 0
    preprocess_ns: int = 0  # time of the caller's functions around the model
    postprocess_ns: int = 0


class Handler(Protocol):
    """The handler that a factory makes, once in each worker.

    A handler that runs several tasks at a time also has `stages(channel, fail, leave)`: it takes tasks from the channel and
    answers them until EOFError. `fail(task, error, began_ns)` answers a task with an exception. `leave(error)` ends the process
    for an error in another thread than the main thread. `native` and `run` are then not used.

    If a handler has `retry_on`, a tuple of exception types, a task that raises one of these runs again, on another device if
    there is one, at most `max_attempts` times in all.

    A handler that can end a task early also has `cancel(task_id)`. It is called from another thread, perhaps more than once,
    and perhaps for a task that has already ended. An exception of `run` for a cancelled task is dropped.

    A handler whose description may change also has `announces(tell)`: `tell()`, from any thread, sends the result of
    `describe()` again.
    """

    native: Any  # runs tasks without Python, see ais_bench.wire.Channel.serve; None: every task goes to `run`

    def describe(self) -> Any:
        """Return a picklable description for the parent. It is sent when the worker is ready."""

    def run(self, task: Task, /) -> Answer:
        """Run one task. Its exceptions are the task's error. The feeds are views, valid until this method returns."""

    def close(self) -> None:
        """Release resources. Called once, after the last task of a normal close."""


class Factory(Protocol):
    """A callable that can be sent (ais_bench.wire.travel) and that makes the handler in the worker.

    If its `begins_logging` is True, its handler must call `ais_bench.worker.log.begin` before any code of the user runs.
    Otherwise the worker calls it before it unpickles the factory, which makes the worker's start 13 ms longer.
    """

    def __call__(self, context: WorkerContext, /) -> Handler:
        """Make the handler. The parent gets an exception of this call as the reason why the worker did not start."""


class Start(NamedTuple):
    """Everything that a worker needs. It inherited its descriptors under these numbers."""

    parent_pid: int
    device_id: int
    arena_fd: int
    doorbell_fd: int
    cpus: tuple[int, ...]  # the processors to which it is pinned; empty: not pinned
    yields: bool  # whether it leaves them while another program uses them
    threads: int
    spin: bool
    log_level: int
    logs: bool  # whether log records are sent from the start; otherwise the factory decides
    factory: Packed | None  # None: the factory is in the memory of `factory_fd`
    factory_fd: int
    factory_sizes: tuple[int, ...]


class Ready(NamedTuple):
    """The handler is made, with its `description`. `several`: it runs several tasks at a time, in any order."""

    description: Any
    several: bool = False


class Described(NamedTuple):
    """The handler's description has changed since it was ready."""

    description: Any


class Failed(NamedTuple):
    """The handler could not be made; `error` is for `pickling.loads_error`."""

    error: bytes


class LogLine(NamedTuple):
    """A record of the worker's `logging`, flattened."""

    name: str
    level: int
    text: str
    created: float


class Cancel(NamedTuple):
    """End the task with this id, if it is in progress, because it was cancelled."""

    task_id: int


class Stop(NamedTuple):
    """Finish the tasks, close the handler, exit."""
