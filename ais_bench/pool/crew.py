"""The workers that are ready, how loaded they are, and which of them gets a task. The dispatcher's lock guards all of it.

An interrupt comes only where something is called. So a place that is counted and the record of who holds it change side by
side, without a call in between.
"""

from __future__ import annotations

from weakref import ReferenceType, ref

import numpy as np

from ais_bench._native import current_cpu, monotonic_ns
from ais_bench.pool.account import Account
from ais_bench.pool.ready_worker import MANY_IN_FLIGHT, WORK_IN_HAND_NS, ReadyWorker
from ais_bench.pool.settings import AUTO_SPIN_US, PoolSettings
from ais_bench.pool.task import Task, Waiter
from ais_bench.shm import Lane

IMPOSSIBLE_LOAD = 1 << 30
NOWHERE = -1  # no processor has this number
STAY_NS = 20_000_000  # for so long a caller is taken to stay where he is, as he does where he is left alone
SHORT_NS = 15_000  # one worker with tasks up to this does nearly as many as the caller of a stream can send and collect


class Reservation:
    """Places of one worker that a stream fills, one by one, while it takes items from its iterable. Empty without a worker."""

    __slots__ = ("__weakref__", "left", "places", "worker")

    def __init__(self) -> None:
        self.worker: ReadyWorker | None = None
        self.places = 0
        self.left = 0  # not filled so far; whoever holds the reservation counts it down, without the lock


class Crew:
    """See the top of the file."""

    def __init__(self, settings: PoolSettings, cores: int) -> None:
        self.workers: tuple[ReadyWorker, ...] = ()  # replaced, never changed, so that it can be read without the lock
        self.prefer_owner = False  # arrays of new_feeds are about: look where feeds lie
        self._spin = settings.spin
        self._cores = cores
        self.streams: set[ReferenceType[Waiter]] = set()  # of iterators under way that keep the workers' queues filled
        self._busy = 0  # workers with something to do
        self._here = NOWHERE  # what `_in_the_way` found
        self._look_again_ns = 0

    def add(self, worker: ReadyWorker) -> None:
        """One more."""
        worker.lane.spin_us = self.spin_us()
        self.workers = (*self.workers, worker)

    def remove(self, worker: ReadyWorker) -> None:
        """One less, whatever it had to do."""
        worker.open = False
        self.workers = tuple(other for other in self.workers if other is not worker)
        self._here, self._look_again_ns = NOWHERE, 0  # perhaps only the one that was left alone is left
        worker.load = 0
        self.rest(worker)

    def reserve(self, room: Reservation, wanted: int, account: Account) -> None:
        """So many places at most in the worker that has the most room, taken until they are used or given back.

        Several at once only of tasks that are known to be short: a few long ones must not all go to one worker.
        """
        if self.prefer_owner:
            return
        best, most = None, 0
        here = self._in_the_way()
        for worker in self.workers:
            free = worker.limit - worker.load
            if free > most and worker.open and not worker.alone and worker.only_cpu != here:
                best, most = worker, free
        if best is None or wanted <= 0:
            return
        several = max(1, WORK_IN_HAND_NS // best.cost_ns) if best.cost_ns else 1
        places = min(wanted, most, several)
        if not best.busy:
            self._begin_work(best)
        account.begin()
        best.load += places
        best.reserved += places
        account.outstanding += places
        room.worker, room.places, room.left = best, places, places

    def give_back(self, room: Reservation, account: Account) -> None:
        """The end of a reservation. Twice is fine."""
        worker = room.worker
        if worker is None:
            return
        if worker.load:  # it is not gone
            worker.load -= room.left
        worker.reserved -= room.places
        account.outstanding -= room.left
        room.worker, room.places, room.left = None, 0, 0
        self.rest(worker)

    def pick(self, task: Task) -> ReadyWorker | None:
        """The worker that gets the task: the owner of its feeds, one that is idle, or the least loaded that has room."""
        device, strikes = task.device, task.strikes
        avoid = task.avoid if task.avoid is not None and self.others_than(task.avoid) else None
        owner = self._owner(task) if self.prefer_owner else None
        here = NOWHERE
        if device is None and avoid is None and owner is None:
            here = current_cpu()  # a worker pinned to it would have to wait until the caller leaves it
            for worker in self.workers:
                if 0 == worker.load < worker.limit and worker.only_cpu != here and worker.open and not worker.alone:
                    return worker
            here = self._in_the_way()
        best, best_load = None, IMPOSSIBLE_LOAD
        for worker in self.workers:
            # Places that are only reserved do not count: whoever holds them may be waiting for this very task.
            load = worker.load - worker.reserved
            if load >= worker.limit or (load >= best_load and worker is not owner):
                continue
            if not worker.open or worker.alone or worker.only_cpu == here or worker.device == avoid:
                continue
            if (device is not None and worker.device != device) or (strikes and load > 0):
                continue  # a suspect runs alone, so that a second death names it for certain
            if worker is owner:
                return worker
            best, best_load = worker, load
        return best

    def _owner(self, task: Task) -> ReadyWorker | None:
        """The worker in whose memory the feeds lie."""
        if task.feeds and type(task.feeds[0]) is np.ndarray:
            for worker in self.workers:
                if worker.lane.owns(task.feeds[0]):
                    return worker
        return None

    def others_than(self, device: int) -> bool:
        """Whether another device takes tasks, and does not just fail with them."""
        return any(worker.open and worker.device != device and not worker.faults for worker in self.workers)

    def others_work(self, device: int) -> bool:
        """Whether another device has shown that it can do what it is given."""
        return any(worker.answered and worker.device != device and not worker.faults for worker in self.workers)

    def load(self, worker: ReadyWorker, task: Task) -> None:
        """The task is going to be sent to the worker."""
        if not worker.busy:
            self._begin_work(worker)
        worker.alone = task.strikes > 0
        worker.load += 1
        task.worker = worker

    def vacate(self, task: Task) -> None:
        """Frees the place that is kept for a task, if it was not sent after all. Twice is fine."""
        worker = task.worker
        if worker is None or task.sent:
            return
        worker.alone = False
        if worker.load:  # it is not gone
            worker.load -= 1
        task.worker = None
        self.rest(worker)

    def _begin_work(self, worker: ReadyWorker) -> None:
        worker.alone, worker.busy = False, True
        self._busy += 1
        if self._busy == self._cores:
            self._let_workers_spin()

    def rest(self, worker: ReadyWorker) -> None:
        """The worker has nothing to do any more, if that is so."""
        if worker.busy and worker.load == 0:
            worker.busy = False
            self._busy -= 1
            if self._busy == self._cores - 1:
                self._let_workers_spin()

    def _in_the_way(self) -> int:
        """The processor of the caller of a stream, where the workers elsewhere are as fast as he is: one that is pinned to it
        would only take turns with him."""
        if not self.streams:
            return NOWHERE
        now_ns = monotonic_ns()
        if now_ns >= self._look_again_ns:
            self._look_again_ns = now_ns + STAY_NS
            self._here = self._look_around()
        return self._here

    def _look_around(self) -> int:
        here = current_cpu()
        enough = SHORT_NS * (len(self.workers) - 1)
        quick = False
        for worker in self.workers:
            at_work, worker.seen = worker.answered > worker.seen, worker.answered
            quick = quick or (at_work and worker.open and worker.only_cpu != here and worker.cost_ns <= enough)
        return here if quick else NOWHERE

    @property
    def patience_s(self) -> float | None:
        """For how long the caller of a stream may wait for a reply. Then he looks again whether a worker is still to be left
        alone: the others may be at something long by now, and no reply would come to tell."""
        return None if self._here == NOWHERE else STAY_NS / 1e9

    def stream_begins(self, waiter: Waiter) -> None:
        """An iterator will keep the queues filled until `stream_ends`, or until its waiter is gone. Needs no lock."""
        self.streams.add(ref(waiter, self.streams.discard))

    def stream_ends(self, waiter: Waiter) -> None:
        """Takes no lock, so it is safe in a destructor."""
        self.streams.discard(ref(waiter))
        if not self.streams:
            for worker in self.workers:
                if worker.naps:
                    worker.let_nap(False)

    def full_of_short_tasks(self) -> bool:
        """Every worker that gets tasks has work for much longer than a nap takes."""
        here = self._in_the_way()
        return all(worker.load >= MANY_IN_FLIGHT for worker in self.workers if worker.open and worker.only_cpu != here)

    def spin_us(self) -> float:
        """How long a waiting side spins now: while a processor is free for it."""
        if self._spin != "auto":
            return float(self._spin)
        return AUTO_SPIN_US if self._busy < self._cores else 0.0

    def caller_spin_us(self) -> float:
        """The same for a caller: not on the only processor of a worker that he waits for."""
        spin = self.spin_us()
        if spin:
            here = current_cpu()
            for worker in self.workers:
                if worker.load and worker.only_cpu == here:
                    return 0.0
        return spin

    def _let_workers_spin(self) -> None:
        if self._spin == "auto":
            for worker in self.workers:
                worker.lane.spin_us = self.spin_us()

    @property
    def window(self) -> int:
        """How many tasks keep all workers busy, with some to spare for uneven ones."""
        return 2 * sum(worker.limit for worker in self.workers) + 2

    def lane_for_feeds(self) -> Lane | None:
        """Where arrays of `new_feeds` are best made; None while all workers are being restarted."""
        self.prefer_owner = True
        return min(self.workers, key=lambda worker: (not worker.open, worker.load)).lane if self.workers else None
