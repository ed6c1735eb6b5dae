"""Dispatcher, supervisor and resolver of one pool, from the first worker to the last descriptor.

DevicePool is the object that callers hold; this is what runs. They are two, because the threads in here must not keep the
caller's object alive: when it is dropped without `close`, the engine finishes what was accepted and ends by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from ais_bench.errors import PoolClosed, PoolError, SessionClosed, WorkerStartError
from ais_bench.pool.cores import CoreShare, allowed_cpus, split_cores, usable_cpu_count
from ais_bench.pool.dispatch import Dispatcher
from ais_bench.pool.interpreter import Place
from ais_bench.pool.parcel import Parcel
from ais_bench.pool.seats import Seat
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.supervisor import Supervisor, now_s
from ais_bench.pool.task import Waiter
from ais_bench.pool.threads import Lock, Thread
from ais_bench.shm import travel

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ais_bench.pool.resolver import Resolver

FINISH_STEP_S = 0.05  # a callback of a future ends without telling anybody

_live: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """See the top of the file. Methods from any thread."""

    def __init__(self, settings: PoolSettings, factory: Parcel, planned_workers: int, called: str) -> None:
        self.settings = settings
        self.foreign = False  # this process was forked from the one that owns the workers
        self._cpus = allowed_cpus()
        self._usable = usable_cpu_count()
        self._shares = split_cores(self._cpus, self._usable, max(1, planned_workers))
        self._next_share = 0
        self.dispatcher = Dispatcher(settings, self._usable, self._wake_supervisor)
        place = Place.here()
        travel.give_path(place.path)
        self.supervisor = Supervisor(settings, factory, place, self.dispatcher, called)
        self._resolver: Resolver | None = None
        self._lock = Lock()
        self.closed = False  # no new work
        self._ending = False
        _hook_once()
        _live.add(self)
        try:
            self.supervisor.start()
        except RuntimeError:  # no thread is to be had
            self.supervisor.close_descriptors()
            _live.discard(self)
            raise

    def _wake_supervisor(self) -> None:
        self.supervisor.wake()

    # ---- devices ----

    def add(self, device_id: int) -> None:
        """Starts the workers of a device; `wait_until_settled` says how that went."""
        self.supervisor.add(device_id, [self._share(device_id) for _ in range(self.settings.workers_per_device)])

    def _share(self, device_id: int) -> CoreShare:
        share = self._shares[self._next_share % len(self._shares)]
        self._next_share += 1
        threads = self.settings.threads or share.threads
        affinity = self.settings.affinity
        if affinity in ("auto", "split"):
            return CoreShare(share.cpus, threads)
        if affinity == "none" or isinstance(affinity, str):
            return CoreShare((), threads)
        chosen = tuple(affinity.get(device_id, ()))
        return CoreShare(chosen, self.settings.threads or len(chosen) or share.threads)

    def wait_until_settled(self, device_ids: Sequence[int], needed: int) -> None:
        """Until every device has all of its workers ready or has failed. Raises WorkerStartError as soon as fewer than
        `needed` can become ready."""
        changed = self.supervisor.changed
        with changed:
            while True:
                seats = [seat for seat in self.supervisor.seats if seat.device.id in device_ids]
                self._check_hope(seats, device_ids, needed)
                if all(seat.settled for seat in seats):
                    return
                changed.wait()

    def wait_until_gone(self, device_id: int) -> None:
        """Until the last worker of a removed device has ended."""
        changed = self.supervisor.changed
        with changed:
            while not self.closed and any(seat.device.id == device_id for seat in self.supervisor.seats):
                changed.wait()

    def _check_hope(self, seats: Sequence[Seat], device_ids: Sequence[int], needed: int) -> None:
        if self.closed:
            raise PoolClosed("the pool was closed while it started")
        lost = [device for device in device_ids if not any(s.hopeful for s in seats if s.device.id == device)]
        if len(device_ids) - len(lost) >= needed:
            return
        errors = {seat.device.id: seat.last_error for seat in seats if seat.device.id in lost and seat.last_error}
        first = next(iter(errors.values()), None)
        if len(errors) == 1 and isinstance(first, WorkerStartError):
            raise first
        reasons = "; ".join(str(error) for error in errors.values())
        failure = WorkerStartError(f"{len(lost)} of {len(device_ids)} devices did not start, {needed} must: {reasons}")
        failure.device_id = lost[0]
        failure.__cause__ = getattr(first, "__cause__", None) or first
        raise failure

    # ---- futures ----

    def future(self) -> Future[Any]:
        """A future that the resolver will see to."""
        from concurrent.futures import Future

        from ais_bench.pool.resolver import Resolver

        if self._resolver is None:
            with self._lock:
                if self._resolver is None and not self.closed:
                    resolver = Resolver(self.dispatcher)
                    try:
                        resolver.start()
                    except BaseException:  # interrupted; it may run, and there must not be two
                        resolver.stop()
                        raise
                    self._resolver = resolver
        return Future()

    def finish_futures(self) -> None:
        """Waits for every future that was accepted, and for its callbacks, which may submit more; for ever if need be."""
        dispatcher, waiter = self.dispatcher, Waiter()
        while not self.closed and not self.foreign:
            resolver = self._resolver
            if dispatcher.account.futures == 0 and (resolver is None or resolver.at_rest) and dispatcher.account.futures == 0:
                return
            dispatcher.dispatch()  # forgets what was dropped
            dispatcher.collector.progress(waiter, 0, FINISH_STEP_S)

    # ---- the end ----

    def abandon(self) -> None:
        """The owner was dropped. Takes no lock, so it is safe in a destructor."""
        if self.foreign or self.closed:
            return
        self.dispatcher.wake_when_idle = True
        self.supervisor.abandoned = self._wind_up
        self.supervisor.wake()

    def close(self, *, force: bool) -> None:
        """Ends everything. Without `force`, accepted tasks get `close_timeout` to finish. May be called twice, and from a
        callback of a future; returns when no process and no thread is left (but the calling one). From a signal handler it may
        return before that, and the process does not end before it is over."""
        if self.foreign:
            return
        self.dispatcher.close_door(closed_error)
        if self.dispatcher.interrupted() or _sends_tasks_to(self.dispatcher):  # waiting here would be for ourselves
            Thread("ais_bench close", lambda: self.close(force=force)).start()
            return
        accepted, self.closed = not self.closed, True
        try:
            if not force and accepted:
                self._finish_accepted()
        finally:
            # An interrupt while we waited must not leave anything behind either.
            self._end(force=force)

    def _finish_accepted(self) -> None:
        dispatcher = self.dispatcher
        waiter = Waiter()
        deadline = now_s() + self.settings.close_timeout
        while True:
            dispatcher.dispatch()  # forgets what was dropped
            left = deadline - now_s()
            if dispatcher.unfinished() == 0 or left <= 0:
                return
            dispatcher.collector.progress(waiter, 0, left)

    def _end(self, *, force: bool) -> None:
        with self._lock:
            first, self._ending = not self._ending, True
        force = force or self.dispatcher.unfinished() > 0
        self.dispatcher.refuse(None, closed_error)
        if first or force:
            self.supervisor.stop(force=force)
        if self.supervisor.ident is not None and not self.supervisor.is_current():
            self.supervisor.join()
        self._wind_up()
        if self._resolver is not None and not self._resolver.is_current():
            self._resolver.join()

    def _wind_up(self) -> None:
        """No worker is left, and none will come."""
        self.dispatcher.refuse(None, closed_error)  # what the last workers left behind
        self.dispatcher.collector.silence()
        if self._resolver is not None:
            self._resolver.stop()
        _live.discard(self)

    def forget(self) -> None:
        """In a forked child: never to be used, and nothing of it to be ended; only the descriptors are closed, so that the
        workers' ends of them tell the truth."""
        self.foreign = True
        for seat in self.supervisor.seats:
            if seat.worker is not None:
                with contextlib.suppress(OSError):
                    seat.worker.process.close()
        self.supervisor.forget()


_SENDING = {method.__code__ for method in (Dispatcher.start, Dispatcher.dispatch, Dispatcher.push)}


def _sends_tasks_to(dispatcher: Dispatcher) -> bool:
    """Whether this very thread is sending a task: then a signal handler asks, and the task goes on when it returns. Found on
    the stack, because noting it would cost every task."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code in _SENDING and frame.f_locals["self"] is dispatcher:
            return True
        frame = frame.f_back
    return False


def closed_error() -> PoolError:
    """The error of every use after `close`."""
    return PoolClosed("the pool is closed")


def foreign_error() -> SessionClosed:
    """The error of every use in a forked child."""
    return SessionClosed("this pool belongs to the process that this one was forked from; open a new one here")


_hooked = False


def _hook_once() -> None:
    """Importing this package registers nothing; the first engine does."""
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        os.register_at_fork(after_in_child=_forget_all)


def _close_all() -> None:
    """The script has ended: futures are finished, as those of `concurrent.futures` are."""
    for engine in list(_live):
        try:
            engine.finish_futures()
        finally:
            engine.close(force=True)


def _forget_all() -> None:
    for engine in list(_live):
        engine.forget()
    _live.clear()
