"""A worker that can be sent tasks, and how many it takes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ais_bench.pool.settings import PoolSettings
from ais_bench.shm import Lane

# With tasks_in_flight left open, a worker is handed so much work at a time, in tasks of the kind it did last.
WORK_IN_HAND_NS = 400_000
MOST_IN_FLIGHT = 128
FAULTS_IN_A_ROW = 5  # a device that fails so often, while others do not, gets a new worker, and is set aside in the end
ADAPT_EVERY = 8  # answers between two looks at what a worker's tasks cost
MANY_IN_FLIGHT = 16  # from here on tasks are so short that waking somebody for one costs more than the task
NAP_US = 50.0  # a part of the work in hand, so that it ends before the worker could run dry


class ReadyWorker:
    """The dispatcher's view of a worker. The dispatcher's lock guards all but `lane`.

    Native code books its replies in `load`, `answered`, `alone`, `cost_ns`, `lost` and `faults`.
    """

    __slots__ = (
        "adapt_at",
        "adaptive",
        "alone",
        "answered",
        "busy",
        "cost_ns",
        "device",
        "faults",
        "fewest",
        "kill",
        "lane",
        "limit",
        "load",
        "lost",
        "naps",
        "only_cpu",
        "open",
        "reserved",
        "seen",
        "several",
        "verdict",
    )

    def __init__(
        self, device: int, lane: Lane, kill: Callable[[], None], settings: PoolSettings, cpus: Sequence[int] = ()
    ) -> None:
        self.device = device
        self.only_cpu = cpus[0] if len(cpus) == 1 else None  # the processor that it is pinned to, where that is just one
        self.lane = lane
        self.kill = kill
        self.adaptive = settings.tasks_in_flight is None
        self.fewest = settings.fewest_in_flight
        self.limit = settings.tasks_in_flight or self.fewest
        self.load = 0  # tasks sent, or being sent, and not answered
        self.reserved = 0  # of these, places that a stream holds or held since it last looked
        self.busy = False  # it counts as one that has something to do; catches up with `load`
        self.answered = 0
        self.faults = 0  # of its device, in a row; they are no answers
        self.seen = 0  # of these, when the crew looked last
        self.cost_ns = 0  # what the task answered last took it
        self.adapt_at = 1  # the count of answers at which the next look at that is due
        self.lost: BaseException | None = None  # what it answered, where that says that its device is lost
        self.naps = False
        self.several = False  # it works on several tasks at a time, so that its death is not the first one's for certain
        self.open = True  # False: being removed or given up on
        self.alone = False  # it works on a suspect, and on nothing else
        self.verdict: BaseException | None = None  # why it was killed, where that was our doing

    def adapt(self, *, streaming: bool) -> None:
        """Lets short tasks queue up in the worker, so that it need not wait for the parent between them."""
        self.adapt_at = self.answered + ADAPT_EVERY
        self.limit = min(MOST_IN_FLIGHT, self.fewest + WORK_IN_HAND_NS // (self.cost_ns + 1))
        naps = streaming and self.limit >= MANY_IN_FLIGHT
        if naps != self.naps:
            self.let_nap(naps)

    def let_nap(self, naps: bool) -> None:
        """Whether the worker naps, instead of being woken for each task, when it has done all it had."""
        self.naps = naps
        self.lane.nap_us = NAP_US if naps else 0.0

    def condemn(self, why: BaseException) -> None:
        """No more tasks for it, and an end to it; the supervisor sees it die. The first reason counts."""
        if self.open or self.verdict is None:
            self.open = False
            self.verdict = self.verdict or why
            self.kill()
