"""Who works on which task: queues, credits, and the delivery of replies. Knows lanes, not processes.

    start(task) --room?--> lane of the least loaded worker            supervisor: add_worker, worker_gone, overdue
         \\--no--> queue --(a reply makes room)--> lane                       |
    collector: drain all lanes -> deliver -> refill from the queues  <-------+

Locking. One lock guards everything here and in the collector: queues, loads, the sets of workers and waiters, `Task.done`. It
is held for microseconds, never while feeds are copied, a thread waits, or code of the user runs; nothing else is locked inside
it but the lanes' own short mutexes. Feeds are copied into a lane outside of it, so that several threads copy at a time: a lane
that was given up on meanwhile refuses, and the task goes back to its queue.

Interrupts. A KeyboardInterrupt may come between two bytecodes of the main thread, so replies go from the lane to `_arrived`
in one C call and leave it only once delivered, and a task leaves its queue only to be sent or put back. Delivering twice is
harmless, because a task that is done stays as it is.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from ais_bench.errors import DeviceLost, DeviceMemoryError, PoolError, SessionClosed, TaskTimeout, TransportError
from ais_bench.pool.collect import Collector
from ais_bench.pool.settings import AUTO_SPIN_US, PoolSettings
from ais_bench.pool.task import Task
from ais_bench.shm import Doorbell, Lane, Reply, take

# With tasks_in_flight left open, a worker is handed so much work at a time, in tasks of the kind it did last.
WORK_IN_HAND_NS = 200_000
FEWEST_IN_FLIGHT = 2
MOST_IN_FLIGHT = 64


class ReadyWorker:
    """A worker that can be sent tasks. The dispatcher's lock guards all but `lane`."""

    __slots__ = ("adaptive", "alone", "answered", "device", "kill", "lane", "limit", "load", "open", "verdict")

    def __init__(self, device: int, lane: Lane, kill: Callable[[], None], tasks_in_flight: int | None) -> None:
        self.device = device
        self.lane = lane
        self.kill = kill
        self.adaptive = tasks_in_flight is None
        self.limit = tasks_in_flight or FEWEST_IN_FLIGHT
        self.load = 0  # tasks sent, or being sent, and not answered
        self.answered = 0
        self.open = True  # False: being removed or given up on
        self.alone = False  # it works on a suspect, and on nothing else
        self.verdict: BaseException | None = None  # why it was killed, where that was our doing

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        return self.limit - self.load if self.open and not self.alone else 0

    def adapt(self, cost_ns: int) -> None:
        """Lets short tasks queue up in the worker, so that it need not wait for the parent between them."""
        self.limit = min(MOST_IN_FLIGHT, FEWEST_IN_FLIGHT + WORK_IN_HAND_NS // (cost_ns + 1))


class Dispatcher:
    """See the top of the file. Every method from any thread, but for those of the supervisor."""

    def __init__(self, settings: PoolSettings, cores: int, wake_supervisor: Callable[[], None]) -> None:
        self.resolved: deque[Task] = deque()  # done, and their futures do not know yet
        self.prefer_owner = False  # arrays of new_feeds are about: look where feeds lie
        self.wake_when_idle = False
        self._settings = settings
        self._cores = cores
        self._wake_supervisor = wake_supervisor
        self._lock = threading.Lock()
        self.collector = Collector(self._lock, Doorbell(), self.drain, self._spin_us)
        self._workers: tuple[ReadyWorker, ...] = ()
        self._shared: deque[Task] = deque()
        self._pinned: dict[int, deque[Task]] = {}
        self._arrived: deque[Reply] = deque()
        self._dropped: deque[Task] = deque()
        self._background_idle = False
        self._door: Callable[[], PoolError] | None = None
        self._refusals: dict[int | None, Callable[[], PoolError]] = {}  # by device; None: every task
        self._deadlines: list[tuple[int, int, Task]] = []
        self._deadline_count = itertools.count()
        self._watched = False  # the supervisor will look at the deadlines by itself
        self._busy = 0
        self._outstanding = 0
        self._futures = 0
        self._active_since_ns = 0
        self._wall_ns = 0
        self.retries: dict[int, int] = {}  # by device: tasks that its dead workers left to others
        self.lost: dict[int, int] = {}  # and those that failed with them

    # ---- tasks in ----

    def start(self, task: Task, *, timeout: float | None = None) -> None:
        """Sends the task, or queues it. `timeout`: seconds from now until it fails with TaskTimeout, wherever it is then.

        Raises PoolClosed or PoolBroken. What is wrong with the feeds becomes the task's error.
        """
        worker = None
        wake = False
        with self._lock:
            refusal = self._door or (self._refusal_of(task) if self._refusals else None)
            if refusal is not None:
                raise refusal()
            if self._outstanding == 0:
                self._active_since_ns = time.monotonic_ns()
            self._outstanding += 1
            if task.future is not None:
                self._futures += 1
                if self._background_idle and task.waiter.asleep:
                    task.waiter.wake()
            queue = self._queue_of(task)
            if not queue:
                worker = self._pick(task)
            if worker is None:
                if task.future is not None:
                    self._take(task)  # the caller may reuse his buffers as soon as he has the future
                if not task.done:
                    queue.append(task)
            else:
                self._load(worker, task)
            if timeout is not None:
                wake = self._set_deadline(task, timeout)
            if not self._watched and self._settings.task_timeout is not None:
                wake = True
            self._watched = self._watched or wake
        if worker is not None:
            self._push(task, worker)
        if wake:
            self._wake_supervisor()

    def _set_deadline(self, task: Task, timeout: float) -> bool:
        if len(self._deadlines) > 1000 + 2 * self._outstanding:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (time.monotonic_ns() + int(timeout * 1e9), next(self._deadline_count), task))
        return self._deadlines[0][2] is task

    def run(self, task: Task) -> None:
        """Starts the task and waits until it is done."""
        try:
            self.start(task)
            while not task.done:
                self.collector.progress(task.waiter, 0)
        except BaseException:
            self.drop((task,))
            raise

    def drop(self, tasks: Iterable[Task]) -> None:
        """Forgets tasks: not sent any more, or their replies ignored. Takes no lock, so it is safe in a destructor."""
        self._dropped.extend(tasks)

    @property
    def window(self) -> int:
        """How many tasks keep all workers busy, with some to spare for uneven ones."""
        return 2 * sum(worker.limit for worker in self._workers) + 2

    def background_step(self, seen: int) -> None:
        """For the thread that resolves futures: waits until `collector.background.finished` differs from `seen`, or a change."""
        self._background_idle = self._futures == 0
        self.collector.background_progress(seen, idle=self._background_idle)

    def wake_background(self) -> None:
        """Makes that thread look again."""
        with self._lock:
            background = self.collector.background
            background.finished += 1  # it compares before it sleeps
            if background.asleep:
                background.wake()
        self.collector.bell.ring()

    # ---- replies ----

    def _spin_us(self) -> float:
        if self._settings.spin != "auto":
            return float(self._settings.spin)
        return AUTO_SPIN_US if self._busy < self._cores else 0.0

    def drain(self) -> int:
        """Delivers every reply that has arrived, refills the workers, and returns how many replies there were."""
        with self._lock:
            count = self._drain_lanes(self._workers)
            queued = bool(self._shared or self._dropped or any(self._pinned.values()))
        if queued:
            self.dispatch()
        return count

    def _drain_lanes(self, workers: Iterable[ReadyWorker]) -> int:
        arrived = self._arrived
        for worker in workers:
            try:
                arrived.extend(iter(worker.lane.poll, None))
            except TransportError as error:
                self._condemn(worker, error)
        count = len(arrived)
        while arrived:
            self._deliver(arrived[0])
            arrived.popleft()
        return count

    def _deliver(self, reply: Reply) -> None:
        task: Task = reply.task
        worker = task.worker
        if worker is not None:
            task.worker, task.ran_on = None, worker.device
            worker.answered += 1
            self._unload(worker)
            if worker.adaptive:
                worker.adapt(reply.copy_in_ns + reply.execute_ns + reply.copy_out_ns)
            if isinstance(reply.error, DeviceLost):
                self._condemn(worker, reply.error)
        if not task.done:
            # Not the reply itself: it holds the task, and outputs in a cycle would keep their slot until the next collection.
            task.outputs, task.answer_kind, task.end_to_end_ns = reply.outputs, reply.kind, reply.end_to_end_ns
            self._finish(task, reply.error)

    def _finish(self, task: Task, error: BaseException | None) -> None:
        task.error = error
        task.feeds = None
        task.done = True
        self._outstanding -= 1
        if self._outstanding == 0:
            self._wall_ns += time.monotonic_ns() - self._active_since_ns
            if self.wake_when_idle:
                self._wake_supervisor()
        if task.future is not None:
            self._futures -= 1
            self.resolved.append(task)
        waiter = task.waiter
        waiter.finished += 1
        if waiter.asleep:
            waiter.wake()

    # ---- from queues to workers ----

    def dispatch(self) -> None:
        """Sends queued tasks while there is room."""
        while True:
            with self._lock:
                while self._dropped:
                    self._forget(self._dropped[0])
                    del self._dropped[0]
                found = self._next()
                if found is None:
                    return
                worker, queue = found
                task = queue[0]
                self._load(worker, task)
                del queue[0]
            if not self._push(task, worker):
                return

    def _next(self) -> tuple[ReadyWorker, deque[Task]] | None:
        for queue in (*self._pinned.values(), self._shared):
            while queue and self._is_over(queue[0]):
                del queue[0]
            if queue and (worker := self._pick(queue[0])) is not None:
                return worker, queue
        return None

    def _is_over(self, task: Task) -> bool:
        if not task.done and task.future is not None and task.future.cancelled():
            self._finish(task, CancelledError())
        return task.done

    def _pick(self, task: Task) -> ReadyWorker | None:
        best, best_load = None, MOST_IN_FLIGHT * 8
        for worker in self._workers:
            load = worker.load
            if load >= best_load or worker.room <= 0 or (task.device is not None and worker.device != task.device):
                continue
            if task.strikes and load:
                continue  # a suspect runs alone, so that a second death names it for certain
            if self.prefer_owner and task.feeds and self._owns(worker, task.feeds[0]):
                return worker
            best, best_load = worker, load
        return best

    @staticmethod
    def _owns(worker: ReadyWorker, feed: Any) -> bool:
        return hasattr(feed, "__array_interface__") and worker.lane.owns(feed)

    def _push(self, task: Task, worker: ReadyWorker) -> bool:
        """Copies the feeds over. False: no room after all, and the task is at the head of its queue again."""
        feeds, task.feeds = task.feeds, None
        sent = False
        error: BaseException | None = None
        try:
            if feeds is not None:
                sent = worker.lane.try_submit(feeds, task.mode, task, kind=task.kind, option=task.option)
        except (TransportError, SessionClosed) as refused:
            with self._lock:
                self._condemn(worker, refused)
        except Exception as wrong:
            error = wrong
        finally:
            if sent:
                task.taken = True
            else:
                with self._lock:
                    self._take_back(task, worker, feeds, error)
        return sent or task.done

    def _take_back(
        self, task: Task, worker: ReadyWorker, feeds: Sequence[Any] | None, error: BaseException | None
    ) -> None:
        task.worker = None
        self._unload(worker)
        if task.done:
            return
        task.feeds = feeds
        if error is None and worker.open and worker.load == 0:
            error = DeviceMemoryError(
                f"device {worker.device}: the feeds do not fit the shared memory of its worker, although it is idle; "
                "outputs that are kept may hold all of it"
            )
        if error is not None:
            self._finish(task, error)
        else:
            self._queue_of(task).appendleft(task)

    def _queue_of(self, task: Task) -> deque[Task]:
        if task.device is None:
            return self._shared
        queue = self._pinned.get(task.device)
        if queue is None:
            queue = self._pinned[task.device] = deque()
        return queue

    def _take(self, task: Task) -> None:
        try:
            task.feeds = take(task.feeds or ())
            task.taken = True
        except Exception as error:
            self._finish(task, error)

    def _forget(self, task: Task) -> None:
        if not task.done:
            self._finish(task, PoolError("the call that wanted this task has ended"))

    def _load(self, worker: ReadyWorker, task: Task) -> None:
        task.worker = worker
        worker.alone = task.strikes > 0
        worker.load += 1
        if worker.load == 1:
            self._busy += 1
            if self._busy == self._cores:
                self._let_workers_spin(False)

    def _unload(self, worker: ReadyWorker) -> None:
        if worker.load == 0:
            return  # it is gone, and was unloaded as a whole
        worker.alone = False
        worker.load -= 1
        if worker.load == 0:
            self._busy -= 1
            if self._busy == self._cores - 1:
                self._let_workers_spin(True)

    def _let_workers_spin(self, room: bool) -> None:
        if self._settings.spin == "auto":
            for worker in self._workers:
                worker.lane.spin_us = AUTO_SPIN_US if room else 0.0

    # ---- workers come and go: the supervisor's thread ----

    def add_worker(self, worker: ReadyWorker) -> None:
        """A worker is ready: it gets what is queued."""
        with self._lock:
            spin = self._settings.spin
            worker.lane.spin_us = (AUTO_SPIN_US if self._busy < self._cores else 0.0) if spin == "auto" else float(spin)
            self._workers = (*self._workers, worker)
            self._refusals.pop(worker.device, None)
        self.dispatch()
        self.collector.bell.ring()

    def retire(self, device: int) -> None:
        """No new tasks for the workers of a device; queued ones that asked for it fail."""
        with self._lock:
            for worker in self._workers:
                if worker.device == device:
                    worker.open = False

    def worker_gone(self, worker: ReadyWorker, died: Callable[[Task], BaseException]) -> None:
        """The process is dead: delivers what it published and gives the rest to others. `died` makes a culprit's error."""
        with self._lock:
            worker.open = False
            self._workers = tuple(other for other in self._workers if other is not worker)
            self._drain_lanes((worker,))
            rest = worker.lane.abandon()
            worker.load = min(worker.load, 1)
            self._unload(worker)
            again: list[Task] = []
            for position, (task, feeds, _kind) in enumerate(rest):
                if task.done:
                    continue
                task.worker, task.feeds = None, feeds
                task.strikes += position == 0  # the worker was at the first one; the others only waited
                if task.strikes >= self._settings.max_attempts or feeds is None:  # None: its last worker wrote over them
                    self.lost[worker.device] = self.lost.get(worker.device, 0) + 1
                    self._finish(task, died(task))
                else:
                    again.append(task)
            for task in reversed(again):
                if (refusal := self._refusal_of(task)) is not None:
                    self._finish(task, refusal())
                else:
                    self._queue_of(task).appendleft(task)
            self.retries[worker.device] = self.retries.get(worker.device, 0) + len(again)
        self.dispatch()
        self.collector.bell.ring()

    def _condemn(self, worker: ReadyWorker, why: BaseException) -> None:
        if worker.open or worker.verdict is None:
            worker.open = False
            worker.verdict = worker.verdict or why
            worker.kill()

    def refuse(self, device: int | None, error: Callable[[], PoolError]) -> None:
        """Fails what is queued for the device (None: everything unfinished) and whatever comes later, until it has a worker."""
        with self._lock:
            self._refusals[device] = error
            if device is None:
                doomed = [task for queue in (*self._pinned.values(), self._shared) for task in queue]
                self._pinned.clear()
                self._shared.clear()
            else:
                doomed = list(self._pinned.get(device, ()))
                self._pinned.pop(device, None)
            for task in doomed:
                if not task.done:
                    self._finish(task, error())
        self.collector.bell.ring()

    def readmit(self, device: int | None) -> None:
        """Takes back a refusal: there is hope again."""
        with self._lock:
            self._refusals.pop(device, None)

    def close_door(self, error: Callable[[], PoolError]) -> None:
        """No new tasks from now on, for good; those accepted go on."""
        with self._lock:
            self._door = error

    def _refusal_of(self, task: Task) -> Callable[[], PoolError] | None:
        return self._refusals.get(None) or (self._refusals.get(task.device) if task.device is not None else None)

    def overdue(self) -> float | None:
        """Fails tasks past their time, kills workers that are at one, and returns in how many seconds to look again."""
        limit = self._settings.task_timeout
        with self._lock:
            self._drain_lanes(self._workers)
            now_ns = time.monotonic_ns()
            later: list[int] = []
            expired: set[int] = set()
            while self._deadlines and (self._deadlines[0][0] <= now_ns or self._deadlines[0][2].done):
                task = heapq.heappop(self._deadlines)[2]
                if not task.done:
                    expired.add(id(task))
                    self._finish(task, self._too_late(task, "the time given for it"))
            if self._deadlines:
                later.append(self._deadlines[0][0])
            for worker in self._workers:
                oldest = worker.lane.oldest() if worker.load else None
                if oldest is None:
                    continue
                task, since_ns = oldest
                if id(task) in expired:
                    self._condemn(worker, self._too_late(task, "the time given for it"))
                elif limit is not None and since_ns + int(limit * 1e9) <= now_ns:
                    self._condemn(worker, self._too_late(task, f"task_timeout ({limit:g} s)"))
                elif limit is not None:
                    later.append(since_ns + int(limit * 1e9))
            if limit is not None and self._outstanding and not later:
                later.append(now_ns + int(limit * 1e9))
            self._watched = bool(later)
        self.dispatch()
        self.collector.bell.ring()
        return max(0.0, (min(later) - time.monotonic_ns()) / 1e9) if later else None

    @staticmethod
    def _too_late(task: Task, what: str) -> TaskTimeout:
        error = TaskTimeout(f"a task took longer than {what}")
        error.device_id = task.worker.device if task.worker is not None else task.device
        error.index = task.index
        return error

    # ---- about it all ----

    def new_feeds(self, specs: Sequence[tuple[Sequence[int], Any]]) -> list[Any]:
        """Arrays in the memory of the worker with the fewest tasks; tasks of them go there while it has room."""
        with self._lock:
            self.prefer_owner = True
            lane = min(self._workers, key=lambda worker: (not worker.open, worker.load)).lane if self._workers else None
        if lane is None:
            return [np.empty(shape, dtype) for shape, dtype in specs]  # all are being restarted; these are copied
        return lane.new_feeds(specs)

    @property
    def outstanding(self) -> int:
        """Tasks accepted and not done."""
        return self._outstanding

    def wall_s(self) -> float:
        """Seconds during which there was something to do."""
        with self._lock:
            running = time.monotonic_ns() - self._active_since_ns if self._outstanding else 0
            return (self._wall_ns + running) / 1e9

    def reset_times(self) -> None:
        """Starts the wall time and the retries anew."""
        with self._lock:
            self._wall_ns = 0
            self._active_since_ns = time.monotonic_ns()
            self.retries.clear()
            self.lost.clear()
