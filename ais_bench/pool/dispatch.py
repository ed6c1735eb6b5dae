"""Who works on which task: queues, credits, and the delivery of replies. Knows lanes, not processes.

    start(task) --room?--> lane of the least loaded worker            supervisor: add_worker, worker_gone, overdue
         \\--no--> queue --(a reply makes room)--> lane                       |
    collector: drain all lanes -> deliver -> refill from the queues  <-------+

Locking. One lock guards everything here and in the collector: queues, loads, the sets of workers and waiters, `Task.done`. It
is held for microseconds, never while feeds are copied, a thread waits, or code of the user runs; nothing else is locked inside
it but the lanes' own short mutexes. Feeds are copied into a lane outside of it, so that several threads copy at a time: a lane
that was given up on meanwhile refuses, and the task goes back to its queue.

Interrupts. A KeyboardInterrupt may come between two bytecodes of the main thread. So one native call takes the replies from a
lane and books them, in the tasks, the worker, the account and the waiters (csrc/bind/records.hpp); what else follows from them
is found by looking at those, not by being told. A task leaves its queue only to be sent or put back. A signal handler may use
the pool from there, too, and would wait for ever for a lock that its own thread holds: so the lock can be taken twice, tasks
are refused while `interrupted`, and closing is left to another thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from ais_bench._native import monotonic_ns
from ais_bench.errors import PoolError, SessionClosed, TransportError
from ais_bench.pool.account import Account, Deadlines, MakeError, Refusals
from ais_bench.pool.collect import Collector
from ais_bench.pool.crew import Crew, Reservation
from ais_bench.pool.faults import after_fault
from ais_bench.pool.queues import Queues
from ais_bench.pool.ready_worker import ReadyWorker
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task, Waiter, does_not_fit, too_late
from ais_bench.pool.threads import RLock, get_ident
from ais_bench.shm import Doorbell, Records, take

_RECORDS = Records(Task, Waiter, ReadyWorker, Account)


class Dispatcher:
    """See the top of the file. Every method from any thread, but for those of the supervisor."""

    def __init__(self, settings: PoolSettings, cores: int, wake_supervisor: Callable[[], None]) -> None:
        self.resolved: deque[Task] = deque()  # done, and their futures do not know yet
        self.wake_when_idle = False
        self._settings = settings
        self._wake_supervisor = wake_supervisor
        self._lock = RLock()
        # Whether this very thread is at work in here: then a signal handler asks, and must not change anything.
        self.interrupted: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self.crew = Crew(settings, cores)
        self.collector = Collector(self._lock, Doorbell(), self.drain, self.crew.caller_spin_us)
        self._queues = Queues()
        self._sleepers: deque[Waiter] = deque()  # to be woken: tasks of theirs are done
        self._faulted: deque[Task] = deque()  # failed for their devices
        self._dropped: deque[Task] = deque()
        self._background_idle = False
        self.account = Account()
        self._refusals = Refusals()
        self._deadlines = Deadlines(settings.task_timeout)
        self._reservations: set[ReferenceType[Reservation]] = set()
        self._in_hand: dict[int, Task] = {}  # by thread: what it took from a queue and is sending

    # ---- tasks in ----

    def start(self, task: Task, *, timeout: float | None = None) -> None:
        """Sends the task, or queues it. `timeout`: seconds from now until it fails with TaskTimeout, wherever it is then.

        Raises PoolClosed or PoolBroken. What is wrong with the feeds becomes the task's error.
        """
        if self.interrupted():
            raise PoolError("a signal handler cannot run tasks on the pool whose work it interrupted")
        with self._lock:
            if self._refusals.any and (refusal := self._refusals.of_new(task)) is not None:
                raise refusal()
            self.account.accept(task)
            if task.future is not None and self._background_idle and task.waiter.asleep:
                task.waiter.wake()
            worker = None if self._queues.of(task) else self.crew.pick(task)
            if worker is not None:
                self.crew.load(worker, task)
            if timeout is not None:
                self._deadlines.add(task, timeout)
            if self._deadlines.any and self._deadlines.unwatched:
                self._wake_supervisor()
                self._deadlines.looks_ns = 0  # last: an interrupt before it has the next task wake, too
        if worker is not None:
            self.push(task, worker)
        else:
            self._enqueue(task)

    def reserve(self, room: Reservation, wanted: int) -> bool:
        """Room for so many tasks at most in the worker with the fewest, counted as if they were there: `push` them, then
        `give_back`. False: there is none, or a task has to go the long way, by `start`.
        """
        if self.interrupted():
            return False
        with self._lock:
            if self._queues.shared or self._refusals.any or (self._deadlines.any and self._deadlines.unwatched):
                return False
            self.crew.reserve(room, wanted, self.account)
            if room.worker is None:
                return False
            self._reservations.add(ref(room, self._reservations.discard))
            return True

    def give_back(self, room: Reservation) -> None:
        """The reservation is over. Twice is fine."""
        with self._lock:
            self.crew.give_back(room, self.account)
            self._reservations.discard(ref(room))
            self._settle()

    def unfinished(self) -> int:
        """Tasks accepted and not done, without the places that streams hold for items to come."""
        with self._lock:
            rooms = [room() for room in self._reservations.copy()]  # one may go at any time
            return self.account.outstanding - sum(room.left for room in rooms if room is not None)

    def _enqueue(self, task: Task) -> None:
        error = None
        if task.future is not None:  # the caller may reuse his buffers as soon as he has the future
            try:
                task.feeds = take(task.feeds or ())
                task.taken = True
            except Exception as wrong:
                error = wrong
        with self._lock:
            if error is not None and not task.done:
                self._finish(task, error)
            elif not task.done:
                self._wait(task, first=False)
        self.dispatch()  # there may be room by now, and nobody else who would notice

    def run(self, task: Task) -> None:
        """Starts the task and waits until it is done."""
        collector = self.collector
        ticket = collector.bell.ticket()
        try:
            self.start(task)
            if task.taken and not task.done:
                collector.progress(task.waiter, 0, None, ticket)
            while not task.done:
                self.collector.progress(task.waiter, 0)
        except BaseException:
            self.drop((task,))
            raise

    def drop(self, tasks: Iterable[Task]) -> None:
        """Forgets tasks: not sent any more, or their replies ignored. Takes no lock: safe in a destructor."""
        self._dropped.extend(tasks)

    def background_step(self, seen: int) -> None:
        """For the thread that resolves futures: returns when `collector.background.finished` is not `seen`, or on a change."""
        self.collector.background_progress(seen, self._background_rests)

    def _background_rests(self) -> bool:
        self._background_idle = self.account.futures == 0
        return self._background_idle

    def wake_background(self) -> None:
        """Makes that thread look again."""
        with self._lock:
            background = self.collector.background
            background.finished += 1  # it compares before it sleeps
            if background.asleep:
                background.wake()
        self.collector.bell.ring()

    # ---- replies ----

    def drain(self, leader: Waiter | None = None) -> int:
        """Delivers what has arrived, refills the workers, lets the `leader` resign, and returns how many replies there were."""
        with self._lock:
            count = self._drain_lanes(self.crew.workers)
            if leader is not None:
                self.collector.resign(leader)
            queued = bool(self._dropped or self._queues or self._in_hand)
        if queued:
            self.dispatch()
        return count

    def _drain_lanes(self, workers: Iterable[ReadyWorker]) -> int:
        count = 0
        for worker in workers:
            if not worker.busy:
                continue
            try:
                count += worker.lane.deliver(_RECORDS, worker, self.account, self.resolved, self._sleepers, self._faulted)
            except TransportError as error:
                worker.condemn(error)
            if worker.lost is not None:
                worker.condemn(worker.lost)
            if worker.adaptive and worker.answered >= worker.adapt_at:
                worker.adapt(streaming=bool(self.crew.streams))
            if worker.load == 0:
                self.crew.rest(worker)
        while self._faulted:
            after_fault(self._faulted[0], self.crew, self.account, self._settings.max_attempts, self._wait, self._finish)
            self._faulted.popleft()
        self._settle()
        return count

    def _finish(self, task: Task, error: BaseException | None) -> None:
        task.error, task.feeds, task.done = error, None, True
        self.account.outstanding -= 1
        waiter = task.waiter
        waiter.finished += 1
        if task.future is not None:
            self.account.futures -= 1
            self.resolved.append(task)
        if waiter.asleep:
            self._sleepers.append(waiter)
        self._settle()

    def _settle(self) -> None:
        """What follows when tasks are done."""
        while self._sleepers:
            if self._sleepers[0].asleep:
                self._sleepers[0].wake()
            self._sleepers.popleft()
        if self.account.rest_if_done() and self.wake_when_idle:
            self._wake_supervisor()

    # ---- from queues to workers ----

    def dispatch(self) -> None:
        """Sends queued tasks while there is room."""
        me = get_ident()
        try:
            while self._send_next(me):
                pass
        except BaseException:
            with self._lock:
                self._clear_up(me)
            self.collector.bell.ring()  # others may wait for what this thread was sending
            raise

    def _send_next(self, me: int) -> bool:
        with self._lock:
            self._clear_up(me)
            found = self._next()
            if found is None:
                return False
            worker, task, queue = found
            self.crew.load(worker, task)
            self._in_hand[me] = task
            del queue[0]
        went = self.push(task, worker)
        self._in_hand.pop(me, None)  # whatever has become of it by now: its worker may be gone, and others have it
        return went

    def _clear_up(self, thread: int) -> None:
        """Forgets what was dropped, and puts back what an interrupt kept this thread from sending."""
        while self._dropped:
            self._forget(self._dropped[0])
            del self._dropped[0]
        task = self._in_hand.get(thread)
        if task is not None:
            if not (task.sent or task.done):
                queue = self._queues.of(task)
                if task not in queue:
                    queue.appendleft(task)
            self.crew.vacate(task)
            del self._in_hand[thread]

    def _next(self) -> tuple[ReadyWorker, Task, deque[Task]] | None:
        for queue in self._queues.for_device(None):
            while queue and self._is_over(queue[0]):
                del queue[0]
            if queue and (worker := self.crew.pick(queue[0])) is not None:
                return worker, queue[0], queue
        return None

    def _is_over(self, task: Task) -> bool:
        if not task.done and task.future is not None and task.future.cancelled():
            self._finish(task, CancelledError())
        return task.done

    def push(self, task: Task, worker: ReadyWorker) -> bool:
        """Copies the feeds to the place that the worker keeps for it. False: no room after all; it waits, first of all."""
        feeds, sent = task.feeds, False
        error: BaseException | None = None
        try:
            if feeds is not None:
                sent = worker.lane.send(_RECORDS, feeds, task)
        except (TransportError, SessionClosed) as refused:
            with self._lock:
                worker.condemn(refused)
        except Exception as wrong:
            error = wrong
        finally:
            # After an interrupt only the task knows that it was sent; after the worker's death only this call does.
            if not (sent or task.sent):
                with self._lock:
                    self._take_back(task, worker, error)
        return sent or task.sent or task.done

    def _take_back(self, task: Task, worker: ReadyWorker, error: BaseException | None) -> None:
        self.crew.vacate(task)
        if task.done:
            return
        if error is None and worker.open and worker.load == 0:
            error = does_not_fit(worker.device)
        if error is not None:
            self._finish(task, error)
        else:
            self._wait(task)

    def _wait(self, task: Task, *, first: bool = True) -> None:
        """Into its queue; or it fails, where its last worker went while nobody held the lock and none is to be hoped for."""
        if (refusal := self._refusals.of(task)) is not None:
            self._finish(task, refusal())
        elif first:
            self._queues.of(task).appendleft(task)
        else:
            self._queues.of(task).append(task)

    def _forget(self, task: Task) -> None:
        if task not in self._in_hand.values():  # else somebody is sending it: the place is not free
            self.crew.vacate(task)
        if task.accepted and not task.done:
            self._finish(task, PoolError("the call that wanted this task has ended"))

    # ---- workers come and go: the supervisor's thread ----

    def add_worker(self, worker: ReadyWorker) -> None:
        """A worker is ready: it gets what is queued."""
        with self._lock:
            self.crew.add(worker)
            self._refusals.remove(worker.device)
        self.dispatch()
        self.collector.bell.ring()

    def retire(self, device: int) -> None:
        """No new tasks for the workers of a device; queued ones that asked for it fail."""
        with self._lock:
            for worker in self.crew.workers:
                if worker.device == device:
                    worker.open = False

    def worker_gone(self, worker: ReadyWorker, died: Callable[[Task], BaseException]) -> int | None:
        """The process is dead: delivers what it published, gives the rest to others. `died` makes a culprit's error. Returns
        None where the device may be to blame, else how many earlier deaths the culprit explains with this one."""
        explained: int | None = None
        with self._lock:
            self._drain_lanes((worker,))
            rest = worker.lane.abandon()
            self.crew.remove(worker)
            again: list[Task] = []
            # What it was at: the first one, if at any, as the others only waited; or any one of those that it had taken.
            struck = [taken and (position == 0 or worker.several) for position, (_, _, _, taken) in enumerate(rest)]
            certain = sum(struck) == 1
            for position, (task, feeds, _kind, _taken) in enumerate(rest):
                if task.done:
                    explained = task.strikes if position == 0 else explained  # past its own time, and killed for that
                    continue
                task.worker, task.sent, task.feeds = None, False, feeds
                task.strikes += struck[position]
                guilty = struck[position] and certain and task.strikes >= self._settings.max_attempts
                if guilty or feeds is None:  # None: its last worker wrote over them
                    self.account.lost[worker.device] = self.account.lost.get(worker.device, 0) + 1
                    self._finish(task, died(task))
                    if struck[position] and task.strikes > 1:
                        explained = task.strikes - 1
                else:
                    again.append(task)
            for task in reversed(again):
                self._wait(task)
            self.account.retries[worker.device] = self.account.retries.get(worker.device, 0) + len(again)
        self.dispatch()
        self.collector.bell.ring()
        return explained

    def refuse(self, device: int | None, error: MakeError) -> None:
        """Fails what is queued for the device (None: for any) and whatever comes later, until it has a worker again."""
        with self._lock:
            self._refusals.add(device, error)
            for queue in self._queues.for_device(device):
                while queue:
                    if not queue[0].done:
                        self._finish(queue[0], error())
                    del queue[0]
        self.collector.bell.ring()

    def readmit(self, device: int | None) -> None:
        """Takes back a refusal: there is hope again."""
        with self._lock:
            self._refusals.remove(device)

    def close_door(self, error: MakeError) -> None:
        """No new tasks from now on, for good; those accepted go on."""
        with self._lock:
            self._refusals.close_door(error)

    def overdue(self) -> float | None:
        """Fails tasks past their time, kills workers that are at one, and returns in how many seconds to look again."""
        limit, limit_ns = self._settings.task_timeout, self._deadlines.limit_ns
        with self._lock:
            self._drain_lanes(self.crew.workers)
            now_ns = monotonic_ns()
            missed = self._deadlines.pop_missed(now_ns)
            for task, times in missed.items():
                self._finish(task, too_late(task, "timeout", *times))
            later = [] if self._deadlines.next_ns is None else [self._deadlines.next_ns]
            for worker in self.crew.workers:
                oldest = worker.lane.oldest() if worker.load else None
                if oldest is None:
                    continue
                task, since_ns = oldest
                if task in missed:
                    worker.condemn(too_late(task, "timeout", *missed[task]))
                elif limit_ns is not None and since_ns + limit_ns <= now_ns:
                    assert limit is not None
                    worker.condemn(too_late(task, "task_timeout", limit, (now_ns - since_ns) / 1e9))
                elif limit_ns is not None:
                    later.append(since_ns + limit_ns)
            if limit_ns is not None and self.account.outstanding and not later:
                later.append(now_ns + limit_ns)
            self._deadlines.looks_ns = min(later, default=None)
        self.dispatch()
        self.collector.bell.ring()
        return max(0.0, (min(later) - monotonic_ns()) / 1e9) if later else None

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[Any]:
        """Arrays in the memory of the worker with the fewest tasks; tasks of them go there while it has room."""
        with self._lock:
            lane = self.crew.lane_for_feeds()
        if lane is None:
            return [np.empty(shape, dtype) for shape, dtype in specs]  # all are being restarted; these are copied
        return lane.new_feeds(specs)

    def wall_s(self) -> float:
        """Seconds during which there was something to do."""
        with self._lock:
            return self.account.wall_s()

    def reset_times(self) -> None:
        """Starts the wall time and the counts of deaths anew."""
        with self._lock:
            self.account.reset()
