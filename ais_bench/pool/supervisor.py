"""The thread that owns the worker processes: it starts them, reads their messages, detects deaths, and restarts them.

It waits for all events at once: each worker's process (its death), control connection (ready, failed, log records) and output
pipe, and an eventfd with which other threads send requests. Its timeout is the next due event: a restart, a start or a stop
that takes too long, a task past its deadline. So no thread polls, and an idle pool sleeps.

Only this thread starts workers, because the kernel kills them when the thread that started them ends (PR_SET_PDEATHSIG), and
this thread lives as long as the workers.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence

from ais_bench import _native
from ais_bench._native import Exchange, PoolWorker
from ais_bench.errors import AisBenchError, PoolBroken, PoolError, TaskTimeout, advice_on_limit
from ais_bench.pool.cores import CoreShare
from ais_bench.pool.interpreter import ImportEnvironment
from ais_bench.pool.process import WorkerProcess
from ais_bench.pool.seats import DeviceRecord, RunningWorker, Seat, SeatState, StartingWorker, broken, died, start_error
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task, too_late
from ais_bench.pool.threads import Condition, RLock, Thread, limits_text
from ais_bench.pool.watch import READ, WRITE, Watch
from ais_bench.tuning import IDLE_S, KEPT_BYTES, LOOK_AGAIN_S, STOP_GRACE_S
from ais_bench.wire import Doorbell, Lane
from ais_bench.wire.parcel import Parcel
from ais_bench.wire.pickling import loads_error
from ais_bench.wire.protocol import Cancel, Described, Failed, LogLine, Ready, Start, Stop

log = logging.getLogger("ais_bench.pool")
output_log = logging.getLogger("ais_bench.worker")


class Supervisor(Thread):
    """Start, watch and restart workers, in a thread of its own.

    Any thread may call the public methods; methods that begin with an underscore run in this thread.
    """

    def __init__(
        self,
        settings: PoolSettings,
        factory: Parcel,
        environment: ImportEnvironment,
        exchange: Exchange,
        bell: Doorbell,
        wake_fd: int,
        called: str,
    ) -> None:
        super().__init__("ais_bench supervisor")
        self.devices: dict[int, DeviceRecord] = {}
        self.seats: list[Seat] = []
        self.shares_arenas = False  # whether other processes open the arenas of these workers
        self.changed = Condition()  # notified when a seat changes its state
        self._settings = settings
        self._factory = factory
        self._called = called
        self._environment = environment
        self._exchange = exchange
        self._bell: Doorbell | None = bell
        self._watch = Watch()
        self._wake_fd = wake_fd  # the exchange writes to it, too
        self._watch.add(self._wake_fd, self._on_wake)
        self._waking = RLock()  # re-entrant: a destructor may run inside `wake` and call it
        self._asked: deque[Callable[[], None]] = deque()
        self._check_deadlines_at: float | None = None
        self._tidy_at = now_s() + IDLE_S
        self._done_before = 0
        self._epochs = itertools.count(1)
        self._stopping = False
        self.abandoned: Callable[[], None] | None = None  # called at the end of an abandoned pool

    # ---- any thread ----

    def wake(self) -> None:
        """Wake the thread, so that it checks due events. Safe in a destructor."""
        with self._waking:
            if self._wake_fd >= 0:  # otherwise the thread has ended
                os.eventfd_write(self._wake_fd, 1)

    def ask(self, action: Callable[[], None]) -> None:
        """Call `action` in the thread."""
        self._asked.append(action)
        self.wake()

    def add(self, device_id: int, shares: Sequence[CoreShare]) -> None:
        """Start one worker for each share on the device."""
        with self.changed:
            device = self.devices.setdefault(device_id, DeviceRecord(device_id, self._called))
            device.removed = False
            self.seats = [*self.seats, *(Seat(device, share) for share in shares)]
        self._exchange.unblock(device_id)
        self.wake()

    def remove(self, device_id: int) -> None:
        """End the workers of the device after their tasks. They are not replaced."""

        def refusal(_task: object = None) -> PoolError:
            return PoolError(f"device {device_id} was removed from the pool")

        def action() -> None:
            self.devices[device_id].removed = True
            self._exchange.retire(device_id)
            self._exchange.block(device_id, refusal)
            for seat in self.seats:
                if seat.device.id == device_id:
                    self._stop_seat(seat, self._settings.close_timeout)

        self.ask(action)

    def stop(self, *, force: bool) -> None:
        """End all workers, then the thread. Without `force` the workers first finish their tasks."""

        def action() -> None:
            self._stopping = True
            for seat in self.seats:
                self._stop_seat(seat, 0.0 if force else STOP_GRACE_S)

        self.ask(action)

    # ---- this thread ----

    def run(self) -> None:
        """Run the loop of the thread."""
        try:
            while not (self._stopping and all(seat.worker is None for seat in self.seats)):
                self._watch.wait(self._timeout())
                self._act_on_time()
                self._kill_workers()
                self._close_if_abandoned()
        except BaseException as error:
            log.exception("the supervisor failed; the pool is broken")
            self._fail(error)
        finally:
            self.close_descriptors()
            self._notify()
            if self.abandoned is not None:
                self.abandoned()

    def close_descriptors(self) -> None:
        """Close the eventfd and the parcel, and release the doorbell."""
        self._factory.close()
        self._bell = None
        self._exchange.detach_supervisor()
        with self._waking:
            wake_fd, self._wake_fd = self._wake_fd, -1
        if wake_fd >= 0:
            os.close(wake_fd)

    def give_up_in_child(self) -> None:
        """Give up everything in a forked child, in which this thread does not exist and its locks may stay locked."""
        self._waking = RLock()
        self.close_descriptors()

    def _fail(self, error: BaseException) -> None:
        """Fail all tasks after a defect in this thread, so that no caller waits. The workers die with this thread."""

        def make(_task: object = None) -> PoolBroken:
            failure = PoolBroken(f"the supervisor of the pool failed: {error!r}")
            failure.__cause__ = error
            return failure

        self._stopping = True
        for seat in self.seats:
            seat.start_ended, seat.last_error = True, make()
            if seat.worker is not None:
                process = seat.worker.process
                process.kill()
                if process.exit is None:
                    process.reap()
                if isinstance(seat.worker, RunningWorker):
                    self._exchange.remove_worker(seat.worker.ready, lambda _task: make())
                process.close()
            seat.worker = None
            seat.move(SeatState.EMPTY)
        self._exchange.block(None, make)

    def _timeout(self) -> float | None:
        times = [seat.due for seat in self.seats if seat.due is not None]
        if any(isinstance(seat.worker, RunningWorker) for seat in self.seats):
            times.append(self._tidy_at)
        if self._check_deadlines_at is not None:
            times.append(self._check_deadlines_at)
        return max(0.0, min(times) - now_s()) if times else None

    def _on_wake(self, _events: int) -> None:
        os.eventfd_read(self._wake_fd)
        while self._asked:
            self._asked.popleft()()
        self._check_deadlines_at = 0.0

    def _look_at_deadlines(self) -> float | None:
        """Fail tasks past their deadline and mark their workers to be killed. Return the seconds until the next check."""
        missed, late, stops, pause = self._exchange.overdue()
        for worker, task, of_the_pool, took_s in late:
            limit_s = self._settings.task_timeout
            if of_the_pool and limit_s is not None:
                self._exchange.kill_because(worker, too_late(task, "task_timeout", limit_s, took_s))
            elif task.error is not None:  # it was told to end, but continues
                self._exchange.kill_because(worker, task.error)
        for worker, task_id in stops:
            for seat in self.seats:
                if isinstance(seat.worker, RunningWorker) and seat.worker.ready is worker:
                    seat.worker.process.control.send(Cancel(task_id))
        for task, limit_s, took_s in missed:
            self._exchange.fail(task, too_late(task, "timeout", limit_s, took_s), timed_out=True)
        return pause

    def _kill_workers(self) -> None:
        for worker in self._exchange.take_to_kill():
            for seat in self.seats:
                if isinstance(seat.worker, RunningWorker) and seat.worker.ready is worker:
                    seat.worker.process.kill()

    def _act_on_time(self) -> None:
        now = now_s()
        if self._check_deadlines_at is not None and self._check_deadlines_at <= now:
            pause = self._look_at_deadlines()
            self._check_deadlines_at = None if pause is None else now + pause
        if self._tidy_at <= now:
            self._tidy(now)
        for seat in self.seats:
            if seat.due is not None and seat.due <= now:
                self._act(seat)

    def _tidy(self, now: float) -> None:
        """Release most of the memory of free slots once there were no tasks for a while."""
        lanes = [seat.worker.ready.lane for seat in self.seats if isinstance(seat.worker, RunningWorker)]
        done = sum(device.stats.tasks for device in self.devices.values())
        idle, self._done_before = done == self._done_before and not any(lane.in_flight for lane in lanes), done
        self._tidy_at = now + (LOOK_AGAIN_S if idle else IDLE_S)
        for lane in lanes if idle else ():
            lane.trim(KEPT_BYTES)

    def _act(self, seat: Seat) -> None:
        if seat.state in (SeatState.WAITING, SeatState.QUARANTINED):
            self._start(seat)
            return
        assert seat.worker is not None
        if isinstance(seat.worker, StartingWorker):
            seat.worker.refused = start_error(
                seat.device, None, f"the worker was not ready after start_timeout ({self._settings.start_timeout:g} s)"
            )
        seat.worker.process.kill()
        seat.due = None

    # ---- starting ----

    def _start(self, seat: Seat) -> None:
        try:
            worker = self._launch(seat)
        except (OSError, MemoryError, AisBenchError) as error:  # for example no more descriptors or processes
            failure = start_error(seat.device, error, f"the worker cannot be started: {error}{advice_on_limit(error)}")
            error.__traceback__ = None  # its frames hold shared memory, and loggers keep errors for long
            self._after_death(seat, failure, answered=0, final=False, blamed_on_task=False)
            return
        if seat.last_error is not None:
            seat.restarts += 1
            seat.device.restarts += 1
        process, seat.worker = worker.process, worker
        seat.move(SeatState.LOADING)
        seat.pid, seat.due = process.pid, worker.began + self._settings.start_timeout
        self._watch.add(process.watch_fd, lambda _events: self._on_death(seat))
        self._watch.add(process.output_fd, lambda _events: self._on_output(seat))
        self._watch.add(process.control.fileno(), lambda events: self._on_control(seat, events), self._wanted_events(process))

    def _launch(self, seat: Seat) -> StartingWorker:
        bell = self._bell
        assert bell is not None
        lane = Lane(bell, epoch=next(self._epochs), stats=seat.device.stats)
        try:
            parcel = self._factory
            inherited = (lane.fd, bell.fd) if parcel.inline is not None else (lane.fd, bell.fd, parcel.fd)
            process = WorkerProcess(self._environment, inherited)
        finally:
            if not self.shares_arenas:
                lane.release_fd()
        arena_fd, doorbell_fd, *parcel_fd = process.inherited
        process.control.send(
            Start(
                parent_pid=os.getpid(),
                device_id=seat.device.id,
                arena_fd=arena_fd,
                doorbell_fd=doorbell_fd,
                cpus=seat.share.cpus,
                yields=self._settings.affinity == "auto",
                threads=seat.share.threads,
                spin=self._settings.spin != 0,
                log_level=logging.getLogger().getEffectiveLevel(),
                logs=not parcel.begins_logging,
                factory=parcel.inline,
                factory_fd=parcel_fd[0] if parcel_fd else -1,
                factory_sizes=parcel.sizes,
            )
        )
        return StartingWorker(process, lane, now_s())

    @staticmethod
    def _wanted_events(process: WorkerProcess) -> int:
        return READ | (WRITE if process.control.wants_to_write else 0)

    def _on_ready(self, seat: Seat, message: Ready) -> None:
        starting = seat.worker
        if not isinstance(starting, StartingWorker) or seat.state is not SeatState.LOADING:
            return  # it is being stopped
        cpus = seat.share.cpus
        only_cpu = cpus[0] if len(cpus) == 1 else None
        ready = PoolWorker(seat.device.id, starting.lane, only_cpu, several=message.several)
        seat.worker = RunningWorker(starting.process, ready)
        seat.move(SeatState.READY)
        seat.due, seat.ever_ready, seat.start_ended = None, True, True
        seat.device.load_s = max(seat.device.load_s, now_s() - starting.began)
        seat.device.description = message.description
        self._exchange.unblock(None)
        self._exchange.add_worker(ready)
        self._notify()

    # ---- hearing ----

    def _on_control(self, seat: Seat, events: int) -> None:
        if seat.worker is None:
            return  # it died in the same round of events
        control = seat.worker.process.control
        if events & WRITE:
            control.flush()
        try:
            for message in control.receive():
                self._on_message(seat, message)
        except EOFError:
            self._watch.discard(control.fileno())
            return
        self._watch.want(control.fileno(), self._wanted_events(seat.worker.process))

    def _on_message(self, seat: Seat, message: object) -> None:
        if isinstance(message, Ready):
            self._on_ready(seat, message)
        elif isinstance(message, Described):
            if isinstance(seat.worker, RunningWorker):
                seat.device.description = message.description
        elif isinstance(message, Failed) and isinstance(seat.worker, StartingWorker):
            seat.worker.refused = loads_error(message.error)
        elif isinstance(message, LogLine):
            _hand_to_logging(seat.device, message)

    def _on_output(self, seat: Seat) -> None:
        if seat.worker is None:
            return
        process = seat.worker.process
        try:
            lines = process.read_output()
        except EOFError:
            self._watch.discard(process.output_fd)
            return
        self._log_output(seat, lines)

    @staticmethod
    def _log_output(seat: Seat, lines: Sequence[str]) -> None:
        for line in lines:
            output_log.warning("%s: %s", seat.device, line, extra={"device_id": seat.device.id})

    # ---- dying ----

    def _on_death(self, seat: Seat) -> None:
        worker = seat.worker
        assert worker is not None
        process = worker.process
        ended = process.reap()
        if process.control.fileno() in self._watch:
            self._on_control(seat, READ)  # its last messages: why it did not start, log records
        worker = seat.worker  # it may have become ready before it died
        assert worker is not None
        for source in (process.watch_fd, process.output_fd, process.control.fileno()):
            self._watch.discard(source)
        if isinstance(worker, RunningWorker):
            # First send its tasks to other workers; then read its output.
            kill_reason = worker.ready.kill_reason
            self._log_output(seat, process.read_last_output())
            make = died(seat.device, process.pid, ended, list(process.tail), kill_reason)
            explained = self._exchange.remove_worker(worker.ready, functools.partial(_task_error, make, kill_reason))
            error: BaseException = make(None)
            answered, final = worker.ready.answered, False
        else:
            self._log_output(seat, process.read_last_output())
            reason = worker.refused
            error = reason if isinstance(reason, PoolError) else start_error(seat.device, reason, _why(process, reason))
            worker.lane.abandon()
            explained, answered, final = None, 0, reason is not None and not seat.ever_ready
        process.close()
        for other in self.seats:
            other.discount(explained or 0)
        self._after_death(seat, error, answered=answered, final=final, blamed_on_task=explained is not None)

    def _after_death(self, seat: Seat, error: BaseException, *, answered: int, final: bool, blamed_on_task: bool) -> None:
        if seat.state is SeatState.STOPPING:
            self._empty(seat)
        else:
            seat.after_death(self._settings, now_s(), error, answered=answered, final=final, blamed_on_task=blamed_on_task)
            if seat.state is SeatState.QUARANTINED:
                self._quarantine(seat)
            else:
                # Its output was already logged line by line.
                log.warning("%s; it is started again", str(error).split("; the last")[0], extra={"device_id": seat.device.id})
        self._notify()

    def _quarantine(self, seat: Seat) -> None:
        log.error("%s is quarantined: %s", seat.device, seat.last_error, extra={"device_id": seat.device.id})
        mine = [other for other in self.seats if other.device is seat.device]
        if not any(other.may_become_ready for other in mine):
            self._exchange.block(seat.device.id, broken(mine))
        if not any(other.may_become_ready for other in self.seats):
            self._exchange.block(None, broken(self.seats))

    # ---- stopping ----

    def _stop_seat(self, seat: Seat, grace_s: float) -> None:
        worker = seat.worker
        if worker is None:
            self._empty(seat)
            return
        seat.move(SeatState.STOPPING)
        if grace_s == 0 or isinstance(worker, StartingWorker):
            worker.process.kill()
            seat.due = None
        else:
            worker.ready.lane.close()
            worker.process.control.send(Stop())
            seat.due = now_s() + grace_s

    def _empty(self, seat: Seat) -> None:
        seat.move(SeatState.EMPTY)
        seat.worker, seat.pid, seat.due, seat.start_ended = None, None, None, True
        if seat.device.removed:
            with self.changed:
                self.seats = [other for other in self.seats if other is not seat]
        self._notify()

    def _close_if_abandoned(self) -> None:
        """Finish the accepted tasks and then end everything, if the pool was abandoned."""
        if self.abandoned is None or self._stopping:
            return
        if self._exchange.unfinished == 0:
            self._stopping = True
            for seat in self.seats:
                self._stop_seat(seat, STOP_GRACE_S)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


def now_s() -> float:
    """Return the seconds of the monotonic clock."""
    return _native.monotonic_ns() / 1e9


def _task_error(make: Callable[[Task], BaseException], kill_reason: BaseException | None, task: Task) -> BaseException:
    """Return the error of a failed task: its time-out if it was killed for that, otherwise the death of its worker."""
    return kill_reason if isinstance(kill_reason, TaskTimeout) else make(task)


def _why(process: WorkerProcess, reason: BaseException | None) -> str:
    if reason is not None:
        said = str(reason) if isinstance(reason, AisBenchError) else f"{type(reason).__name__}: {reason}"
        limits = f"; {limits_text()}" if "can't start new thread" in said else ""
        return f"the worker did not start: {said}{limits}"
    said = "; the last it wrote:" + "".join(f"\n    {line}" for line in process.tail) if process.tail else ""
    return f"the worker {process.exit} while it started{said}"


def _hand_to_logging(device: DeviceRecord, line: LogLine) -> None:
    logger = logging.getLogger(line.name)
    if logger.isEnabledFor(line.level):
        record = logger.makeRecord(line.name, line.level, "", 0, f"{device}: {line.text}", (), None)
        record.created = line.created
        record.device_id = device.id
        logger.handle(record)
