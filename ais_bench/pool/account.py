"""What a dispatcher keeps count of: tasks under way, the time with something to do, deadlines, refusals.

Plain records without a lock of their own: the dispatcher's lock guards them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from ais_bench._native import monotonic_ns
from ais_bench.errors import PoolError
from ais_bench.pool.task import Task

MakeError = Callable[[], PoolError]


class Account:
    """Tasks accepted and not done, and for how long there were any. Native code counts down what replies settle."""

    __slots__ = ("_since_ns", "_wall_ns", "futures", "lost", "outstanding", "retries")

    def __init__(self) -> None:
        self.outstanding = 0
        self.futures = 0  # those of them that somebody holds a future of
        self.retries: dict[int, int] = {}  # by device: tasks that its dead workers left to others
        self.lost: dict[int, int] = {}  # and those that failed with them
        self._since_ns: int | None = None  # None: at rest
        self._wall_ns = 0

    def accept(self, task: Task) -> None:
        """One more."""
        if self._since_ns is None:
            self.begin()
        self.outstanding += 1
        if task.future is not None:
            self.futures += 1
        task.accepted = True

    def begin(self) -> None:
        """Starts the clock, before there is something to do."""
        if self._since_ns is None:
            self._since_ns = monotonic_ns()

    def rest_if_done(self) -> bool:
        """Stops the clock where nothing is left to do; whether that is so."""
        if self.outstanding:
            return False
        if self._since_ns is not None:
            self._wall_ns += monotonic_ns() - self._since_ns
            self._since_ns = None
        return True

    def wall_s(self) -> float:
        """Seconds during which there was something to do."""
        return (self._wall_ns + (0 if self._since_ns is None else monotonic_ns() - self._since_ns)) / 1e9

    def reset(self) -> None:
        """Starts the times and the counts of deaths anew."""
        self._wall_ns, self._since_ns = 0, monotonic_ns() if self.outstanding else None
        self.retries.clear()
        self.lost.clear()


class Deadlines:
    """Tasks that have to be done by a time, the next one first, and when the supervisor looks at them.

    `limit`: seconds that a worker has for any task, or None.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit_ns = None if limit is None else int(limit * 1e9)
        self.looks_ns: int | None = None  # the next look by itself, of monotonic_ns(); 0: it has been woken; None: none
        self.any = limit is not None  # whether there ever was one
        self._heap: list[tuple[int, int, Task, float]] = []  # (due, count, task, seconds it was given)
        self._count = itertools.count()  # makes entries of the same time comparable
        self._prune_at = 1000

    def add(self, task: Task, timeout: float) -> None:
        """One more, in so many seconds."""
        if len(self._heap) >= self._prune_at:  # most are done by now, long before their time
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._prune_at = 1000 + 2 * len(self._heap)
        self.any = True
        heapq.heappush(self._heap, (monotonic_ns() + int(timeout * 1e9), next(self._count), task, timeout))

    def pop_missed(self, now_ns: int) -> dict[Task, tuple[float, float]]:
        """Those whose time has come and that are not done, with the seconds they were given and took."""
        missed = {}
        while self._heap and (self._heap[0][0] <= now_ns or self._heap[0][2].done):
            due_ns, _, task, timeout = heapq.heappop(self._heap)
            if not task.done:
                missed[task] = timeout, timeout + (now_ns - due_ns) / 1e9
        return missed

    @property
    def unwatched(self) -> bool:
        """Whether nobody would look in time."""
        if self.looks_ns is None:
            return self.limit_ns is not None or bool(self._heap)
        return bool(self._heap) and self._heap[0][0] < self.looks_ns

    @property
    def next_ns(self) -> int | None:
        """The next time, of monotonic_ns()."""
        return self._heap[0][0] if self._heap else None


class Refusals:
    """Which tasks have no worker to hope for, and the error that says why."""

    def __init__(self) -> None:
        self.any = False  # whether there are some at all
        self._door: MakeError | None = None  # for new tasks: closed for good
        self._by_device: dict[int | None, MakeError] = {}  # None: every device

    def add(self, device: int | None, error: MakeError) -> None:
        """Nothing for this device any more."""
        self._by_device[device] = error
        self.any = True

    def remove(self, device: int | None) -> None:
        """There is hope again."""
        self._by_device.pop(device, None)
        self.any = self._door is not None or bool(self._by_device)

    def close_door(self, error: MakeError) -> None:
        """Nothing new any more, for good."""
        self._door, self.any = error, True

    def of_new(self, task: Task) -> MakeError | None:
        """The same for a task that is not accepted yet."""
        return self._door or (self.of(task) if self._by_device else None)

    def of(self, task: Task) -> MakeError | None:
        """The refusal that applies to the task."""
        return self._by_device.get(None) or (self._by_device.get(task.device) if task.device is not None else None)
