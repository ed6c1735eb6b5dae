"""Exchange, supervisor and resolver of one pool, from the first worker to the last descriptor.

Callers hold a DevicePool; the PoolCore has the running parts. They are two objects, because the threads here must not keep the
caller's object alive: if it is dropped without `close`, the core finishes the accepted tasks and ends by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ais_bench._native import Exchange
from ais_bench.errors import PoolClosed, PoolError, SessionClosed, WorkerStartError
from ais_bench.pool.cores import CoreShare, allowed_cpus, split_cores, usable_cpu_count
from ais_bench.pool.interpreter import ImportEnvironment
from ais_bench.pool.seats import Seat
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.supervisor import Supervisor
from ais_bench.pool.threads import Lock
from ais_bench.tuning import FINISH_STEP_S
from ais_bench.wire import Doorbell, travel
from ais_bench.wire.parcel import Parcel

if TYPE_CHECKING:
    from ais_bench.pool.resolver import PoolFuture, Resolver


_live: weakref.WeakSet[PoolCore] = weakref.WeakSet()


class PoolCore:
    """The parts that outlive DevicePool: exchange, supervisor and the thread of futures. Any thread may call its methods."""

    def __init__(self, settings: PoolSettings, factory: Parcel, planned_workers: int, called: str) -> None:
        self.settings = settings
        self.foreign = False  # whether this process was forked from the owner of the workers
        self._cpus = allowed_cpus()
        self._usable = usable_cpu_count()
        self._shares = split_cores(self._cpus, self._usable, max(1, planned_workers))
        self._next_share = 0
        bell = Doorbell()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.exchange = make_exchange(settings, bell, self._wake_fd, self._usable)
            environment = ImportEnvironment.here()
            travel.give_path(environment.path)
            self.supervisor = Supervisor(settings, factory, environment, self.exchange, bell, self._wake_fd, called)
        except BaseException:  # for example no more descriptors; later the supervisor closes them
            os.close(self._wake_fd)
            raise
        self._resolver: Resolver | None = None
        self._lock = Lock()
        self.closed = False  # whether new work is refused
        self._ending = False
        _hook_once()
        _live.add(self)
        try:
            self.supervisor.start()
        except RuntimeError:  # no thread is to be had
            self.supervisor.close_descriptors()
            _live.discard(self)
            raise

    # ---- devices ----

    def add(self, device_id: int) -> None:
        """Start the workers of a device. `wait_until_started` waits for the result."""
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

    def wait_until_started(self, device_ids: Sequence[int], needed: int) -> None:
        """Wait until every device has all of its workers ready or has failed. Raises WorkerStartError as soon as fewer than
        `needed` devices can become ready."""
        changed = self.supervisor.changed
        with changed:
            while True:
                seats = [seat for seat in self.supervisor.seats if seat.device.id in device_ids]
                self._check_enough(seats, device_ids, needed)
                if all(seat.start_ended for seat in seats):
                    return
                changed.wait()

    def wait_until_gone(self, device_id: int) -> None:
        """Wait until the last worker of a removed device has ended."""
        changed = self.supervisor.changed
        with changed:
            while not self.closed and any(seat.device.id == device_id for seat in self.supervisor.seats):
                changed.wait()

    def _check_enough(self, seats: Sequence[Seat], device_ids: Sequence[int], needed: int) -> None:
        if self.closed:
            raise PoolClosed("the pool was closed while it started")
        lost = [device for device in device_ids if not any(s.may_become_ready for s in seats if s.device.id == device)]
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

    def future(self) -> PoolFuture:
        """Return a future that the resolver resolves."""
        from ais_bench.pool.resolver import PoolFuture, Resolver

        if self._resolver is None:
            with self._lock:
                if self._resolver is None and not self.closed:
                    resolver = Resolver(self.exchange)
                    try:
                        resolver.start()
                    except PoolError:  # no thread is to be had
                        raise
                    except BaseException:  # interrupted; if the thread runs, there must not be a second one
                        if _begins(resolver):
                            self._resolver = resolver
                        raise
                    self._resolver = resolver
        return PoolFuture(self.exchange)

    def finish_futures(self) -> None:
        """Wait for every accepted future and its callbacks, which may submit more futures. There is no time limit."""
        exchange = self.exchange
        while not self.closed and not self.foreign:
            resolver = self._resolver
            # Twice, because a callback that has just returned may have submitted another future.
            if exchange.futures == 0 and (resolver is None or resolver.at_rest) and exchange.futures == 0:
                return
            exchange.wait(FINISH_STEP_S)

    # ---- the end ----

    def abandon(self) -> None:
        """End the core after its owner was dropped. It takes no lock, so it is safe in a destructor."""
        if self.foreign or self.closed:
            return
        self.exchange.wake_when_idle = True
        self.supervisor.abandoned = self._wind_up
        self.supervisor.wake()

    def close(self, *, force: bool) -> None:
        """End everything. Without `force`, accepted tasks have `close_timeout` to finish. Idempotent; may be called from a
        callback of a future. It returns when no process and no thread is left, except the calling thread. From a signal handler
        it may return earlier; the process then ends only after everything has ended."""
        if self.foreign:
            return
        self.exchange.stop_accepting(closed_error)
        accepted, self.closed = not self.closed, True
        try:
            if not force and accepted:
                self.exchange.wait_until_idle(self.settings.close_timeout)
        finally:
            # An interrupt while we waited must not leave anything behind either.
            self._end(force=force)

    def _end(self, *, force: bool) -> None:
        with self._lock:
            first, self._ending = not self._ending, True
        force = force or self.exchange.unfinished > 0
        self.exchange.block(None, closed_error)
        if first or force:
            self.supervisor.stop(force=force)
        if self.supervisor.ident is not None and not self.supervisor.is_current():
            self.supervisor.join()
        self._wind_up()
        if self._resolver is not None and not self._resolver.is_current():
            self._resolver.join()

    def _wind_up(self) -> None:
        """Finish after the last worker has ended."""
        self.exchange.block(None, closed_error)  # tasks that the last workers left
        self.exchange.silence()
        if self._resolver is not None:
            self._resolver.stop()
        _live.discard(self)

    def give_up_in_child(self) -> None:
        """Give up the core in a forked child: end nothing, but close the descriptors, so that workers see end of file when
        the parent exits."""
        self.foreign = True
        for seat in self.supervisor.seats:
            if seat.worker is not None:
                with contextlib.suppress(OSError):
                    seat.worker.process.close()
        self.supervisor.give_up_in_child()


def make_exchange(settings: PoolSettings, bell: Doorbell, wake_fd: int, cores: int) -> Exchange:
    """Return the owner of a pool's state.

    If the environment variable AIS_BENCH_POOL_RANDOM is a number, the scheduler decides at random with this seed. Tests use it:
    the answers of a pool must not depend on which worker runs a task.
    """
    return Exchange(
        bell,
        wake_fd=wake_fd,
        cores=cores,
        spin_us=-1.0 if settings.spin == "auto" else float(settings.spin),
        task_timeout=settings.task_timeout,
        in_flight=settings.tasks_in_flight or 0,
        fewest=settings.fewest_in_flight,
        max_attempts=settings.max_attempts,
        hedge=float(settings.hedge or 0),
        random=int(os.environ.get("AIS_BENCH_POOL_RANDOM", "0")),
    )


def _begins(resolver: Resolver) -> bool:
    """Return whether the thread runs, or begins to run within half a second."""
    gate = Lock()
    gate.acquire()
    for _ in range(50):
        if resolver.is_alive():
            return True
        gate.acquire(True, 0.01)  # no thread opens it
    return False


def closed_error(_task: object = None) -> PoolError:
    """Return the error of every use after `close`."""
    return PoolClosed("the pool is closed")


def foreign_error() -> SessionClosed:
    """Return the error of every use in a forked child."""
    return SessionClosed("this pool belongs to the process that this one was forked from; open a new one here")


_hooked = False


def _hook_once() -> None:
    """Register the hooks at fork and exit. The first core does this, and not the import of this package."""
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        os.register_at_fork(after_in_child=_give_up_all)


def _close_all() -> None:
    """Finish all futures and close all pools at the end of the script, as `concurrent.futures` does."""
    for core in list(_live):
        try:
            core.finish_futures()
        finally:
            core.close(force=True)


def _give_up_all() -> None:
    for core in list(_live):
        core.give_up_in_child()
    _live.clear()
