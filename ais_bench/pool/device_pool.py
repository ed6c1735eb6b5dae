"""DevicePool: a worker process with a handler for each device, and tasks that run on any of them.

    caller's thread                              worker process (one or more for each device)
    ---------------                              --------------------------------------------
    submit / run / ordered                       handler = factory(context)
       feeds are copied into shared memory  -->  native loop: feeds are read in place and executed,
       arrays over shared memory            <--  outputs are written in place
    supervisor's thread: starts workers, detects deaths, restarts workers, enforces deadlines, passes on logs
    resolver's thread: only while futures are pending

The pool knows nothing about models: the factory makes the handler, see ais_bench.wire.protocol.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from ais_bench import _native
from ais_bench._native import FeedRule, Results, Stream
from ais_bench.errors import ConfigError, PoolClosed, no_copies, refused
from ais_bench.options import as_device_id, as_device_ids, unknown_argument
from ais_bench.pool.interpreter import check_kernel, command
from ais_bench.pool.pool_core import PoolCore, closed_error, foreign_error
from ais_bench.pool.seats import RunningWorker
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task
from ais_bench.wire import Stats
from ais_bench.wire.parcel import Parcel
from ais_bench.wire.protocol import Factory

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

_native.load_numpy()  # here, in the importing thread: the first array may be in a daemon thread


@dataclass(frozen=True)
class WorkerInfo:
    """The state of one worker. `pid` is None while there is no process. ais_bench.pool.seats.SeatState has the states."""

    pid: int | None
    device: int
    state: str
    restarts: int


class DeviceInfo(NamedTuple):
    """The records of one device, over all of its workers. `stats` continue to count."""

    device: int
    stats: Stats
    restarts: int
    retries: int
    lost: int  # tasks that failed with a worker that died
    load_s: float
    workers: int


class DevicePool:
    """Worker processes on devices. A context manager: leaving it closes the pool, after an exception without waiting.

    Args:
        factory: makes the handler in each worker; any callable that can be sent (ais_bench.wire.travel), or a Parcel of it.
        devices: device ids.
        settings: see PoolSettings.
        called: the word for a device in errors and logs.

    Every method may be called from any thread. In a forked child of the process that made the pool every method raises
    SessionClosed, except `close`, which does nothing there. The constructor raises ConfigError, and UnsupportedError if the
    kernel is too old.
    """

    def __init__(
        self,
        factory: Factory | Parcel,
        devices: Iterable[int],
        settings: PoolSettings | None = None,
        *,
        called: str = "device",
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            raise unknown_argument(unknown, DevicePool)
        check_kernel()
        command("worker")  # raises ConfigError if there is no interpreter to run
        self._settings = settings or PoolSettings()
        self._devices = list(as_device_ids(devices))
        self._changing: set[int] = set()  # devices that calls add or remove now; guarded by the supervisor's condition
        needed = self._settings.min_devices
        if needed is not None and needed > len(self._devices):
            raise ConfigError(f"min_devices must be at most {len(self._devices)}, the number of devices, got {needed}")
        planned = len(self._devices) * self._settings.workers_per_device
        try:
            parcel = factory.share() if isinstance(factory, Parcel) else Parcel.of(factory)
            try:
                self._core = PoolCore(self._settings, parcel, planned, called)
            except BaseException:
                parcel.close()
                raise
        except OSError as error:
            raise refused("the system refuses what a pool needs", error) from error
        self._begun = False
        self._settled = False
        for device, weight in (self._settings.weights or {}).items():
            self._core.exchange.set_weight(device, float(weight))
        weakref.finalize(self, self._core.abandon).atexit = False

    # ---- life ----

    @property
    def started(self) -> bool:
        """Whether `start` has succeeded, and the pool is open."""
        return self._settled and not self._core.closed

    def start(self) -> None:
        """Start the missing workers and wait until they are ready.

        As soon as fewer than `min_devices` devices can become ready, raises WorkerStartError (its cause is the error of a
        factory) and closes the pool. Raises PoolClosed after `close`.
        """
        core = self._owned()
        if self._settled:
            return
        try:
            with core.supervisor.changed:  # a concurrent start() must not see a partial device list
                if not self._begun:
                    self._begun = True
                    for device in self._devices:
                        core.add(device)
            core.wait_until_started(self._devices, self._settings.min_devices or len(self._devices))
        except BaseException:
            core.close(force=True)
            raise
        self._settled = True

    def close(self, *, force: bool = False, **unknown: NoReturn) -> None:
        """Let accepted tasks finish, for at most `close_timeout` seconds, and end the workers. `force`: do not wait; unfinished
        tasks fail with PoolClosed. Idempotent. May be called from any thread, and from a future's callback. Raises
        ConfigTypeError for an unknown argument."""
        if unknown:
            raise unknown_argument(unknown, DevicePool.close)
        self._core.close(force=force)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise no_copies("a DevicePool", "make one where it is needed")

    def __enter__(self) -> DevicePool:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        self.close(force=kind is not None)

    def _owned(self) -> PoolCore:
        core = self._core
        if core.foreign:
            raise foreign_error()
        if core.closed:
            raise closed_error()
        return core

    @property
    def devices(self) -> tuple[int, ...]:
        """The device ids in use."""
        return tuple(self._devices)

    def add_device(self, device: int) -> None:
        """Start workers on one more device and wait until they are ready. Raises ConfigError, WorkerStartError, PoolClosed."""
        device = as_device_id(device)
        core = self._owned()
        with core.supervisor.changed:
            self._check_not_changing(device)
            if device in self._devices:
                raise ConfigError(f"device {device} is in the pool already")
            if not self._settled:
                self._devices.append(device)
                return
            self._changing.add(device)
        try:
            core.add(device)
            core.wait_until_started([device], 1)
            self._devices.append(device)
        except BaseException:
            core.supervisor.remove(device)
            core.wait_until_gone(device)
            raise
        finally:
            self._changing.discard(device)

    def remove_device(self, device: int) -> None:
        """Remove a device: its workers finish their tasks and end. Raises ConfigError, PoolClosed."""
        device = as_device_id(device)
        core = self._owned()
        with core.supervisor.changed:
            self._check_not_changing(device)
            if device not in self._devices:
                raise ConfigError(f"device {device} is not in the pool; there are {self._devices}")
            if len(self._devices) == 1:
                raise ConfigError(f"device {device} is the last one of the pool; close the pool instead")
            self._devices.remove(device)
            if not self._settled:
                return
            self._changing.add(device)
        try:
            core.supervisor.remove(device)
            core.wait_until_gone(device)
        finally:
            self._changing.discard(device)

    def _check_not_changing(self, device: int) -> None:
        """Refuse a device whose workers start or end for another call, so that each device has its own number of workers."""
        if device in self._changing:
            raise ConfigError(f"device {device} is being added or removed by another call; wait until that call has returned")

    # ---- tasks ----

    def submit(
        self, feeds: Task | Sequence[Any], device: int | None = None, timeout: float | None = None, **unknown: NoReturn
    ) -> Future[Any]:
        """Return a future of the outputs. The feeds may be reused as soon as this returns.

        `device`: the device to run on; None: the one that is expected to finish first. After `timeout` seconds the future fails
        with TaskTimeout, in any state of the task. Cancelling works until the result has arrived; a task that has not begun
        does not run. Raises ConfigError, WorkerStartError, PoolBroken, PoolClosed. `result()` raises the task's error.
        """
        if unknown:
            raise unknown_argument(unknown, DevicePool.submit)
        device = None if device is None else as_device_id(device)
        self.start()
        core = self._core
        task = feeds if isinstance(feeds, Task) else Task(feeds, device=device)
        self._check_device(task)
        future = core.future()
        task.future, future.task = future, task
        try:
            core.exchange.start(task, timeout)
        except BaseException:
            task.future = future.task = None
            core.exchange.cancel([task])
            raise
        return future

    def map(self, items: Iterable[Sequence[Any]], *, ordered: bool = True, **unknown: NoReturn) -> Iterator[Any]:
        """Run feeds from any iterable, which may be endless, and yield the outputs: in order, or as they are finished.

        Memory is bounded: see `window` in PoolSettings. Raises WorkerStartError, PoolBroken, PoolClosed; the
        iteration raises an item's error when its turn comes, and ends.
        """
        if unknown:
            raise unknown_argument(unknown, DevicePool.map)
        tasks = self._stream(items, lambda item, index: Task(item, index=index), ordered=ordered, lists=0)
        return Results(tasks, Task.result)

    def run(self, task: Task) -> Task:
        """Run one task and return it when it is done. Raises ConfigError, WorkerStartError, PoolBroken, PoolClosed."""
        if not self._settled:  # otherwise the exchange refuses it if the pool is closed or belongs to another process
            self.start()
        self._check_device(task)
        self._core.exchange.run(task)
        return task

    def _check_device(self, task: Task) -> None:
        """Refuse a task for a device that the pool never had: no worker would ever take it."""
        if task.device is not None and task.device not in self._core.supervisor.devices:
            raise ConfigError(f"device {task.device} is not in the pool; there are {self._devices}")

    def plain_runner(self, rule: FeedRule, times: dict[int, list[float]]) -> Callable[[Any], list[Any] | Task | None]:
        """Return a function that runs feeds without Python code, once the pool has started; see `Exchange.run_plain`."""
        return functools.partial(self._core.exchange.run_plain, rule, times)

    def run_all(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Run tasks, and return them when all are done. Their buffers must not change before. Raises the errors of `run`."""
        self.start()
        for task in tasks:
            self._check_device(task)
        self._core.exchange.run_all(tasks)
        return tasks

    def ordered(self, items: Iterable[T], make: Callable[[T, int], Task], **how: Any) -> Stream:
        """Return a stream that runs the tasks of `make(item, index)` and yields them in order. Raises the errors
        of `start`; the stream raises those of the tasks."""
        return self._stream(items, make, ordered=True, **how)

    def unordered(self, items: Iterable[T], make: Callable[[T, int], Task], **how: Any) -> Stream:
        """Return a stream that runs the tasks of `make(item, index)` and yields each one when it is done.
        Raises the errors of `start`; the stream raises those of the tasks."""
        return self._stream(items, make, ordered=False, **how)

    def _stream(
        self,
        items: Iterable[T],
        make: Callable[[T, int], Task],
        *,
        ordered: bool,
        lists: int | None = None,
        rule: FeedRule | None = None,
    ) -> Stream:
        """Return a stream. `lists`: the mode of items that are lists of feeds, for which `make` is not called; None: call it
        for all items. `rule`: call `make` also for lists for which the rule may have a warning or an error."""
        self.start()
        settings = self._settings
        return Stream(
            self._core.exchange,
            items,
            make,
            ordered=ordered,
            window_items=settings.window_items,
            window_bytes=settings.window_bytes,
            lists=lists,
            rule=rule,
        )

    def name_feeds(self, names: Sequence[str]) -> None:
        """Set the names of a task's arrays in errors. Without names errors number the arrays."""
        self._owned().exchange.name_feeds(names)

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[np.ndarray[Any, Any]]:
        """Return arrays of these shapes and dtypes in memory that a worker shares: a task of them is not copied. Do not change
        them until you have the task's result. Raises WorkerStartError, PoolBroken, PoolClosed."""
        self.start()
        return self._core.exchange.new_feeds(specs)

    def share_arenas(self) -> None:
        """Keep the descriptors of the workers' arenas open, for `place_of`. Call it before `start`."""
        self._core.supervisor.shares_arenas = True

    def place_of(self, array: np.ndarray[Any, Any]) -> tuple[int, int] | None:
        """Return the position of a result's array: the descriptor of its worker's arena, and the offset in the arena. Return
        None if the array is a copy, or its worker has ended. The descriptor stays open while the array exists."""
        for seat in self._core.supervisor.seats:
            lane = seat.worker.ready.lane if isinstance(seat.worker, RunningWorker) else None
            if lane is not None and lane.fd >= 0 and lane.owns(array):
                return lane.fd, lane.offset_of(array)
        return None

    # ---- about it ----

    def description(self) -> Any:
        """Return the description of a handler. Raises WorkerStartError, PoolBroken, PoolClosed."""
        self.start()
        for device in self._core.supervisor.devices.values():
            if device.description is not None:
                return device.description
        raise PoolClosed("no worker has become ready")

    def descriptions(self) -> dict[int, Any]:
        """Return the description of the newest handler on each device; devices that had no handler yet are left out."""
        devices = self._core.supervisor.devices.values()
        return {device.id: device.description for device in devices if device.description is not None}

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each worker."""
        return [WorkerInfo(seat.pid, seat.device.id, seat.state.value, seat.restarts) for seat in self._core.supervisor.seats]

    def device_infos(self) -> list[DeviceInfo]:
        """Return the records of each device, including all replies that have arrived."""
        if not self._core.foreign:
            self._core.exchange.progress()
        supervisor, counts = self._core.supervisor, self._core.exchange.counts()
        return [
            DeviceInfo(
                device.id,
                device.stats,
                device.restarts,
                counts["retries"].get(device.id, 0),
                counts["lost"].get(device.id, 0),
                device.load_s,
                sum(seat.device is device for seat in supervisor.seats),
            )
            for device in supervisor.devices.values()
        ]

    def counts(self) -> dict[str, Any]:
        """Return how many tasks were accepted, and how they ended: done, failed, cancelled, timed out or refused. Cheap."""
        return self._core.exchange.counts()

    def wall_s(self) -> float:
        """Return the seconds during which the pool had unfinished tasks."""
        return self._core.exchange.wall_s()

    def reset_times(self) -> None:
        """Restart all times and counts."""
        for device in self._core.supervisor.devices.values():
            device.stats.reset()
        self._core.exchange.reset_times()
