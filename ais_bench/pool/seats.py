"""The seats of a pool's workers, and the rules for restarts after a death. This file has no processes and no threads."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from ais_bench._native import PoolWorker
from ais_bench.errors import PoolBroken, WorkerDied, WorkerStartError
from ais_bench.pool.cores import CoreShare
from ais_bench.pool.process import Exit, WorkerProcess
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task
from ais_bench.tuning import LONGEST_BACKOFF_S, TASK_DEATHS_IN_A_ROW
from ais_bench.wire import Lane, Stats


@dataclass(eq=False)
class StartingWorker:
    """A process that is not ready yet. It has no PoolWorker, so no task can be sent to it."""

    process: WorkerProcess
    lane: Lane
    began: float  # now_s()
    refused: BaseException | None = None  # what its factory raised


@dataclass(eq=False)
class RunningWorker:
    """A process that serves tasks."""

    process: WorkerProcess
    ready: PoolWorker


@dataclass(eq=False)
class DeviceRecord:
    """The records of one device id, for all of its workers, past and present."""

    id: int
    called: str = "device"
    stats: Stats = field(default_factory=Stats)
    restarts: int = 0
    load_s: float = 0.0  # the longest of its workers' latest loads
    description: object = None
    removed: bool = False

    def __str__(self) -> str:
        return f"{self.called} {self.id}"


class SeatState(enum.Enum):
    """The states of a seat. `WorkerInfo.state` has their values.

    | state | is left for |
    | --- | --- |
    | waiting: a worker is started when it is due | loading; waiting or quarantined if it cannot be started; empty at a stop |
    | loading: a worker has been started | ready when it says so; waiting or quarantined when it dies; stopping at a stop |
    | ready: the worker serves tasks | waiting or quarantined when it dies; stopping at a stop |
    | quarantined: the device gets no tasks | as waiting, but later |
    | stopping: the worker has been told to stop | empty when it has exited; stopping at another stop |
    | empty: no worker is started any more | empty at a stop |

    If the supervisor fails, all seats become empty.
    """

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    QUARANTINED = "quarantined"
    STOPPING = "stopping"
    EMPTY = "empty"


# The table of SeatState.
MOVES = {
    SeatState.WAITING: {SeatState.LOADING, SeatState.WAITING, SeatState.QUARANTINED, SeatState.EMPTY},
    SeatState.LOADING: {SeatState.READY, SeatState.WAITING, SeatState.QUARANTINED, SeatState.STOPPING, SeatState.EMPTY},
    SeatState.READY: {SeatState.WAITING, SeatState.QUARANTINED, SeatState.STOPPING, SeatState.EMPTY},
    SeatState.QUARANTINED: {SeatState.LOADING, SeatState.WAITING, SeatState.QUARANTINED, SeatState.EMPTY},
    SeatState.STOPPING: {SeatState.STOPPING, SeatState.EMPTY},
    SeatState.EMPTY: {SeatState.EMPTY},
}


@dataclass(eq=False)
class Seat:
    """The position of one worker: its device, its share of the processors, and its present process."""

    device: DeviceRecord
    share: CoreShare
    state: SeatState = SeatState.WAITING  # changed by `move` alone
    worker: StartingWorker | RunningWorker | None = None
    due: float | None = 0.0  # now_s() at which the supervisor acts: starts, gives up on a start, or kills
    failures: int = 0  # consecutive deaths, without a finished task, that no failing task has caused
    task_deaths: int = 0  # consecutive deaths that a failing task has caused
    ever_ready: bool = False
    start_ended: bool = False  # the first start has ended, with or without success
    last_error: BaseException | None = None
    pid: int | None = None
    restarts: int = 0

    @property
    def may_become_ready(self) -> bool:
        """Whether the seat has a worker, or gets one before the device is quarantined."""
        return self.state in (SeatState.WAITING, SeatState.LOADING, SeatState.READY)

    def move(self, state: SeatState) -> None:
        """Enter a state. MOVES must allow it after the present state."""
        assert state in MOVES[self.state], f"{self.device}: from {self.state.value} to {state.value}"
        self.state = state

    def discount(self, deaths: int) -> None:
        """Stop counting `deaths` failures of this seat, because a failing task has caused them."""
        if self.task_deaths < TASK_DEATHS_IN_A_ROW:  # without a limit a broken device would never be quarantined
            self.failures = max(0, self.failures - deaths)

    def after_death(
        self, settings: PoolSettings, now: float, error: BaseException, *, answered: int, final: bool, blamed_on_task: bool
    ) -> None:
        """Decide what follows a death. `final`: a restart now cannot succeed. `blamed_on_task`: a task caused the death."""
        self.worker, self.pid, self.last_error = None, None, error
        if answered:
            self.failures = self.task_deaths = 0
        if blamed_on_task and self.task_deaths < TASK_DEATHS_IN_A_ROW:
            self.task_deaths += 1
        else:
            self.failures += 1
        if final or self.failures > settings.max_restarts:
            self.move(SeatState.QUARANTINED)
            self.due, self.start_ended = now + settings.retry_device_after, True
            self.failures = settings.max_restarts  # one attempt when the device is tried again
            return
        pause = 0.0 if self.failures <= 1 else settings.restart_backoff * 2 ** (self.failures - 2)
        self.move(SeatState.WAITING)
        self.due = now + min(pause, LONGEST_BACKOFF_S)


def died(
    device: DeviceRecord, pid: int, ended: Exit, tail: list[str], why: BaseException | None
) -> Callable[[Task | None], WorkerDied]:
    """Return a function that makes the error of each task whose worker died. `why`: why this process killed the worker."""
    lines = "".join(f"\n    {line}" for line in tail)
    said = f"; the last it wrote:{lines}" if lines else ""
    reason = f", because {why}" if why is not None else ""

    def make(task: Task | None) -> WorkerDied:
        index = task.index if task is not None else None
        place = f" at the feeds with index {index}" if index is not None else ""
        error = WorkerDied(f"{device}: the worker (pid {pid}) {ended}{place}{reason}{said}")
        error.device_id, error.pid, error.index = device.id, pid, index
        error.signal, error.exit_code = ended.signal, ended.exit_code
        error.__cause__ = why
        return error

    return make


def start_error(device: DeviceRecord, why: BaseException | None, text: str) -> WorkerStartError:
    """Return the error of a worker that did not become ready."""
    error = WorkerStartError(f"{device}: {text}")
    error.device_id = device.id
    error.__cause__ = why
    return error


def broken(devices: list[Seat]) -> Callable[..., PoolBroken]:
    """Return a function that makes the error of tasks if no worker is left."""
    reasons = "; ".join(dict.fromkeys(str(seat.last_error) for seat in devices if seat.last_error is not None))
    cause = next((seat.last_error for seat in devices if seat.last_error is not None), None)

    def make(_task: object = None) -> PoolBroken:
        error = PoolBroken(f"no worker is left: {reasons}")
        error.__cause__ = cause
        return error

    return make
