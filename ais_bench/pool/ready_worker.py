"""A worker that can be sent tasks, and how many it takes at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from ais_bench.shm import Lane

# With tasks_in_flight left open, a worker is handed so much work at a time, in tasks of the kind it did last.
WORK_IN_HAND_NS = 200_000
FEWEST_IN_FLIGHT = 2
MOST_IN_FLIGHT = 64

# A worker that is sent many small tasks at once is woken once in this time, and at the end: woken for each, it would run
# dry and fall asleep between any two of them, and a wake-up costs both sides more than a small task.
HOLD_NS = 50_000


class ReadyWorker:
    """The dispatcher's view of a worker. The dispatcher's lock guards all but `lane`."""

    __slots__ = (
        "adaptive",
        "alone",
        "answered",
        "device",
        "kill",
        "lane",
        "limit",
        "load",
        "open",
        "rung_ns",
        "unrung",
        "verdict",
    )

    def __init__(self, device: int, lane: Lane, kill: Callable[[], None], tasks_in_flight: int | None) -> None:
        self.device = device
        self.lane = lane
        self.kill = kill
        self.adaptive = tasks_in_flight is None
        self.limit = tasks_in_flight or FEWEST_IN_FLIGHT
        self.load = 0  # tasks sent, or being sent, and not answered
        self.answered = 0
        self.open = True  # False: being removed or given up on
        self.rung_ns = 0  # when it was last woken
        self.unrung = False  # it was sent tasks since
        self.alone = False  # it works on a suspect, and on nothing else
        self.verdict: BaseException | None = None  # why it was killed, where that was our doing

    def adapt(self, cost_ns: int) -> None:
        """Lets short tasks queue up in the worker, so that it need not wait for the parent between them."""
        self.limit = min(MOST_IN_FLIGHT, FEWEST_IN_FLIGHT + WORK_IN_HAND_NS // (cost_ns + 1))

    def wants_ring(self, hold: bool) -> bool:
        """Whether to wake it for the task that it is going to be sent now; with `hold`, only now and then."""
        if not hold:
            return True
        now_ns = time.monotonic_ns()
        if now_ns - self.rung_ns < HOLD_NS:
            return False
        self.rung_ns = now_ns
        return True

    def condemn(self, why: BaseException) -> None:
        """No more tasks for it, and an end to it; the supervisor sees it die. The first reason counts."""
        if self.open or self.verdict is None:
            self.open = False
            self.verdict = self.verdict or why
            self.kill()
