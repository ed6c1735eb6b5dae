"""Many tasks through a pool, one iterator in and one out, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ais_bench.pool.dispatch import Dispatcher
from ais_bench.pool.task import Task, Waiter

T = TypeVar("T")


class Intake(Iterator[Task]):
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

    @property
    def ready(self) -> bool:
        """The next item may be asked for."""
        return self.open and (self._latest is None or self._latest.taken or self._latest.done)

    def __next__(self) -> Task:
        """The task of the next item, started. StopIteration: none, and `open` is False."""
        try:
            task = self._make(next(self._items), self._count, self.waiter)
        except StopIteration:
            self.open = False
            raise
        except Exception as error:
            self.open, self.error = False, error
            raise StopIteration from None
        self._count += 1
        self._latest = task
        self._dispatcher.start(task)
        return task


def ordered(dispatcher: Dispatcher, intake: Intake) -> Iterator[Task]:
    """The tasks of the intake, each when it is done, in order. At most a window of them exists at a time."""
    under_way: deque[Task] = deque()
    waiter = intake.waiter
    try:
        while True:
            seen = waiter.finished
            window = dispatcher.window
            while intake.ready and len(under_way) < window:
                under_way.extend(_one(intake))
            if not under_way:
                break
            if under_way[0].done:
                yield under_way.popleft()
            else:
                dispatcher.collector.progress(waiter, seen)
        if intake.error is not None:
            raise intake.error
    finally:
        dispatcher.drop(under_way)


def unordered(dispatcher: Dispatcher, intake: Intake) -> Iterator[Task]:
    """The tasks of the intake as they finish."""
    under_way: list[Task] = []
    waiter = intake.waiter
    try:
        while True:
            seen = waiter.finished
            window = dispatcher.window
            while intake.ready and len(under_way) < window:
                under_way.extend(_one(intake))
            if not under_way:
                break
            done: list[Task] = []
            rest: list[Task] = []
            for task in under_way:
                (done if task.done else rest).append(task)
            under_way = rest
            yield from done
            if not done:
                dispatcher.collector.progress(waiter, seen)
        if intake.error is not None:
            raise intake.error
    finally:
        dispatcher.drop(under_way)


def _one(intake: Intake) -> list[Task]:
    task = next(intake, None)
    return [] if task is None else [task]
