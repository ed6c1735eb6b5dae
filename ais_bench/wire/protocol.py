"""What crosses the control connection, and what a factory has to make.

    parent -> worker   a dict {"path", "cwd"} for the bootstrap code, then Start, then any Cancel, then at most one Stop
    worker -> parent   Ready or Failed, once; Described and LogLine at any time

End of file on the worker's side means that the parent is gone: it exits. On the parent's side it means nothing by itself;
the worker's pidfd says that it died.

Every worker imports this file, so it imports little: dataclasses alone would be a tenth of a worker's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ais_bench.wire import TENSORS, Task
from ais_bench.wire.parcel import Packed


class WorkerContext(NamedTuple):
    """What a factory is told about the worker it runs in."""

    device_id: int
    threads: int  # to use for computing
    spin: bool  # whether threads that wait for work inside a task may spin


class Answer(NamedTuple):
    """What a handler makes of a task. `kind` OBJECT: `outputs` are buffers of `ais_bench.wire.encode`."""

    outputs: Sequence[Any]
    kind: int = TENSORS
    copy_in_ns: int = 0
    execute_ns: int = 0  # 0: the whole time of `run`
    copy_out_ns: int = 0
    preprocess_ns: int = 0  # of the caller's functions around the model
    postprocess_ns: int = 0


class Handler(Protocol):
    """What a factory makes, once in each worker.

    One that works on several tasks at a time also has `stages(channel, fail, leave)`: it takes tasks from the channel and
    answers them until EOFError. `fail(task, error, began_ns)` answers a task with what was raised; `leave(error)` ends the
    process for an error in another thread than the main one. Then `native` and `run` are not used.

    One with `retry_on`, a tuple of exception types, has tasks that raise one of these run again, elsewhere if there is another
    device, `max_attempts` times in all.

    One that can end a task early also has `cancel(task_id)`, which is called from another thread, perhaps more than once, and
    perhaps for a task that has ended by itself. An exception of `run` for a task that nobody wants any more is dropped.

    One whose description may change also has `announces(tell)`: `tell()`, from any thread, sends what `describe()` says then.
    """

    native: Any  # served without Python, see ais_bench.wire.Channel.serve; None: every task goes to `run`

    def describe(self) -> Any:
        """Something picklable for the parent, sent with the news that the worker is ready."""

    def run(self, task: Task) -> Answer:
        """One task. What it raises is that task's error. The feeds are views, valid until it returns."""

    def close(self) -> None:
        """Called once, after the last task of an orderly close."""


class Factory(Protocol):
    """A callable that can be sent (ais_bench.wire.travel) and that makes the handler in the worker.

    One whose `begins_logging` is True promises that its handler calls `ais_bench.worker.log.begin` before any code of the
    user's runs. For all others the worker does so before it unpickles the factory, which makes its start 13 ms longer.
    """

    def __call__(self, context: WorkerContext) -> Handler:
        """Raises what the parent shall see as the reason why the worker did not start."""


class Start(NamedTuple):
    """Everything a worker needs; its descriptors were inherited under these numbers."""

    parent_pid: int
    device_id: int
    arena_fd: int
    doorbell_fd: int
    cpus: tuple[int, ...]  # to be pinned to; empty: not pinned
    yields: bool  # only while no other program uses them
    threads: int
    spin: bool
    log_level: int
    logs: bool  # log records are carried from the start; otherwise the factory says when
    factory: Packed | None  # None: it is in the memory of `factory_fd`
    factory_fd: int
    factory_sizes: tuple[int, ...]


class Ready(NamedTuple):
    """The handler is made; `description` is its own. `several`: it works on several tasks at a time, in any order."""

    description: Any
    several: bool = False


class Described(NamedTuple):
    """What the handler says of itself has changed since it was ready."""

    description: Any


class Failed(NamedTuple):
    """The handler was not made; `error` is for `pickling.loads_error`."""

    error: bytes


class LogLine(NamedTuple):
    """A record of the worker's `logging`, flattened."""

    name: str
    level: int
    text: str
    created: float


class Cancel(NamedTuple):
    """Have the task with this id end, if it is under way: nobody wants it any more."""

    task_id: int


class Stop(NamedTuple):
    """Finish what was handed over, close the handler, exit."""
