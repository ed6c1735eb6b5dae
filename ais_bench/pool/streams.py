"""Many tasks through a pool, one iterator in and one out, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from ais_bench._native import nap
from ais_bench.pool.crew import Reservation
from ais_bench.pool.dispatch import Dispatcher
from ais_bench.pool.ready_worker import NAP_US
from ais_bench.pool.task import Task, Waiter

T = TypeVar("T")

# So many replies that came while the queues were filled show that the workers are about as fast as their caller. He goes on
# then: during a nap, which takes two to three times as long as it should, they would run dry.
ENOUGH_TO_GO_ON = 8


class Intake(Generic[T]):
    """Makes tasks of items and starts them, one at a time.

    The pool has taken what it needs of an item before the next one is asked for, so an iterable may reuse its buffers. An
    error that the iterable raises is kept and raised after the last task, where it belongs in the order.
    """

    def __init__(self, dispatcher: Dispatcher, items: Iterable[T], make: Callable[[T, int, Waiter], Task]) -> None:
        self.waiter = Waiter()
        self.error: BaseException | None = None
        self.open = True
        self._dispatcher = dispatcher
        self._items = iter(items)
        self._make = make
        self._count = 0
        self._latest: Task | None = None
        self._room = Reservation()

    def fill(self, under_way: deque[Task], window: int) -> None:
        """Starts tasks until `window` of them are under way, the newest waits for room, or the items end."""
        dispatcher, room = self._dispatcher, self._room
        while self.open and len(under_way) < window and not self._waits():
            if not dispatcher.reserve(room, window - len(under_way)):
                task = self._next(under_way)
                if task is not None and not task.done:
                    dispatcher.start(task)
                continue
            worker = room.worker
            assert worker is not None
            try:
                while room.left and (task := self._next(under_way)) is not None:
                    if task.done:
                        continue
                    # No call in between: an interrupt finds the place with the room or with the task.
                    room.left -= 1
                    task.accepted = True
                    task.worker = worker
                    if not dispatcher.push(task, worker) or not worker.open:
                        break
            finally:
                dispatcher.give_back(room)

    def end(self, under_way: deque[Task]) -> None:
        """Forgets what is under way. An interrupt may have come anywhere in `fill`."""
        self._dispatcher.drop(under_way)
        if self._room.worker is not None:
            self._dispatcher.give_back(self._room)

    def _waits(self) -> bool:
        latest = self._latest
        return latest is not None and not (latest.taken or latest.done)

    def _next(self, under_way: deque[Task]) -> Task | None:
        """The next item's task, `done` already where something is wrong with the item; None at the end."""
        try:
            item = next(self._items)
        except StopIteration:
            self.open = False
            return None
        except Exception as error:
            self.open, self.error = False, error
            return None
        try:
            task = self._make(item, self._count, self.waiter)
        except Exception as error:  # something is wrong with this item, not with the others
            task = Task.failed(error, self.waiter, self._count)
        self._count += 1
        self._latest = task
        under_way.append(task)
        return task


def progress(dispatcher: Dispatcher, waiter: Waiter, seen: int) -> None:
    """The collector's `progress`, but lets short replies gather: every wake-up costs as much as several of them."""
    if dispatcher.crew.full_of_short_tasks():
        if dispatcher.drain() >= ENOUGH_TO_GO_ON:
            if dispatcher.collector.used or dispatcher.account.futures:
                nap(0)  # lets the GIL go: others who wait for replies would get it every 5 ms only
            return
        nap(NAP_US)
    dispatcher.collector.progress(waiter, seen, dispatcher.crew.patience_s)


def ordered(dispatcher: Dispatcher, intake: Intake[T]) -> Iterator[Task]:
    """The tasks of the intake, each when it is done, in order. At most a window of them exists at a time."""
    under_way: deque[Task] = deque()
    waiter = intake.waiter
    try:
        dispatcher.crew.stream_begins(waiter)
        while True:
            seen = waiter.finished
            intake.fill(under_way, dispatcher.crew.window)
            if not under_way:
                break
            while under_way and under_way[0].done:
                yield under_way.popleft()
            if under_way:
                progress(dispatcher, waiter, seen)
        if intake.error is not None:
            raise intake.error
    finally:
        dispatcher.crew.stream_ends(waiter)
        intake.end(under_way)


def unordered(dispatcher: Dispatcher, intake: Intake[T]) -> Iterator[Task]:
    """The tasks of the intake as they finish."""
    under_way: deque[Task] = deque()
    waiter = intake.waiter
    try:
        while True:
            seen = waiter.finished
            intake.fill(under_way, dispatcher.crew.window)
            if not under_way:
                break
            done: list[Task] = []
            rest: deque[Task] = deque()
            for task in under_way:
                (done if task.done else rest).append(task)
            under_way = rest
            yield from done
            if not done:
                dispatcher.collector.progress(waiter, seen)
        if intake.error is not None:
            raise intake.error
    finally:
        intake.end(under_way)
