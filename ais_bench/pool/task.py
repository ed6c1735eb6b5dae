"""One task on its way through the pool, and the one who waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ais_bench.errors import DeviceMemoryError, TaskTimeout, name_task
from ais_bench.pool.pickling import loads_error
from ais_bench.pool.threads import Lock, LockType
from ais_bench.shm import OBJECT, TENSORS, decode

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ais_bench.pool.ready_worker import ReadyWorker


class Details(NamedTuple):
    """When a task ran and how long its stages took. The order is that of `to_tuple` in csrc/bind/records.cpp."""

    started_ns: int  # CLOCK_MONOTONIC when the worker took it
    done_ns: int  # and when it published the answer
    queued_ns: int
    copy_in_ns: int
    execute_ns: int
    copy_out_ns: int
    end_to_end_ns: int
    preprocess_ns: int
    postprocess_ns: int


class Waiter:
    """A thread, or one call of a thread, that wants to know when its tasks finish.

    `finished` counts them and only grows. `asleep` is set, under the dispatcher's lock, by a thread that is going to sleep;
    whoever wakes the thread, under the lock, clears it, last of all. So no wake-up is lost, to an interrupt neither.
    """

    __slots__ = ("__weakref__", "_gate", "asleep", "finished")

    def __init__(self) -> None:
        self.finished = 0
        self.asleep = False
        self._gate: LockType | None = None  # made by the first sleep: most calls never sleep here

    def prepare(self) -> None:
        """Call under the dispatcher's lock, then `sleep` without it."""
        if self._gate is None:
            self._gate = Lock()
        self._gate.acquire(False)  # shut, whether or not an earlier sleep timed out
        self.asleep = True

    def sleep(self, timeout: float | None = None) -> None:
        """Until `wake`, or the timeout in seconds. Python's signal handlers run meanwhile, and may raise."""
        assert self._gate is not None
        self._gate.acquire(True, -1 if timeout is None else timeout)

    def wake(self) -> None:
        """Call under the dispatcher's lock, of a waiter that is `asleep`. Twice is fine."""
        assert self._gate is not None
        if self._gate.locked():
            self._gate.release()
        self.asleep = False


class Task:
    """Feeds on the way to outputs.

    `done` goes from False to True once, under the dispatcher's lock, and says that `outputs` or `error` is there. Whatever
    arrives for a task that is done is dropped, so that nothing is delivered twice.
    """

    __slots__ = (
        "accepted",
        "answer_kind",
        "avoid",
        "detailed",
        "details",
        "device",
        "done",
        "end_to_end_ns",
        "error",
        "faults",
        "feeds",
        "future",
        "index",
        "key",
        "kind",
        "mode",
        "option",
        "outputs",
        "ran_on",
        "sent",
        "strikes",
        "taken",
        "waiter",
        "worker",
    )

    def __init__(
        self,
        feeds: Sequence[Any],
        waiter: Waiter,
        mode: int = 0,
        kind: int = TENSORS,
        option: int = 0,
        device: int | None = None,
        index: int | None = None,
        future: Future[Any] | None = None,
    ) -> None:
        self.feeds: Sequence[Any] | None = feeds
        self.waiter = waiter
        self.mode = mode
        self.kind = kind
        self.option = option
        self.device = device
        self.index = index
        self.future = future
        self.worker: ReadyWorker | None = None  # which has it, or keeps a place for it
        self.ran_on: int | None = None  # the device that answered
        self.accepted = False  # it counts, until it is done
        self.sent = False  # its worker has it; native code says so in the moment in which it publishes it
        self.taken = False  # the caller's buffers are not needed any more
        self.done = False
        self.strikes = 0
        self.faults = 0  # devices that failed with it
        self.avoid: int | None = None  # the last of them
        self.outputs: list[Any] | None = None
        self.answer_kind = TENSORS
        self.end_to_end_ns = 0
        self.key: Any = None  # what the caller knows the item by
        self.detailed = False  # whether `details` are wanted
        self.details: tuple[int, ...] | None = None  # see Details; native code writes it with the outputs
        self.error: BaseException | None = None

    @classmethod
    def failed(cls, error: Exception, waiter: Waiter, index: int | None, device: int | None = None) -> Task:
        """A task that ended before it began, in the place it would have had."""
        task = cls((), waiter, index=index, device=device)
        task.error, task.done = error, True
        return task

    def result(self) -> Any:
        """Return the outputs, or the object that the handler answered with. Call when `done`.

        Raises the task's error, with `index` and `device_id` in it.
        """
        if self.error is not None:
            raise self._named(self.error)
        assert self.outputs is not None
        if self.answer_kind == TENSORS:
            return self.outputs
        answer = decode(self.outputs)
        if self.answer_kind == OBJECT:
            return answer
        raise self._named(loads_error(answer))

    def _named(self, error: BaseException) -> BaseException:
        return name_task(error, self.index, self.device if self.ran_on is None else self.ran_on)


def does_not_fit(device: int) -> DeviceMemoryError:
    """The error of a task that no slot can be made for."""
    return DeviceMemoryError(
        f"device {device}: the feeds do not fit the shared memory of its worker, although it is idle; "
        "outputs that are kept may hold all of it"
    )


def too_late(task: Task, option: str, limit_s: float, took_s: float) -> TaskTimeout:
    """Return the error of a task that took `took_s` seconds, longer than `option` allows."""
    error = TaskTimeout(f"the task took {took_s:.3f} s, and {option} allows {limit_s:g} s")
    return name_task(error, task.index, task.worker.device if task.worker is not None else task.device)
