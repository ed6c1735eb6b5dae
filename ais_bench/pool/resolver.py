"""The thread that resolves futures.

Only this thread runs the callbacks of futures. So a callback may use the pool, close it, and take locks that a thread holds
while it waits in the pool. This thread also collects replies while futures are pending and no caller collects.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

from ais_bench._native import Exchange
from ais_bench.pool.task import Task
from ais_bench.pool.threads import Thread

log = logging.getLogger("ais_bench.pool")


class PoolFuture(Future[Any]):
    """A future of a task. Cancelling takes back a task that has not begun; otherwise the run is ended or its answer dropped."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self.task: Task | None = None  # None once it is resolved

    def cancel(self) -> bool:
        """Cancel the task. Return False if the result has already arrived."""
        cancelled = super().cancel()
        task = self.task
        if cancelled and task is not None:
            self._exchange.cancel([task])
        return cancelled


class Resolver(Thread):
    """The thread starts with the first future of a pool. It ends after `stop`, when every future is resolved."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__("ais_bench futures")
        self._exchange = exchange

    @property
    def at_rest(self) -> bool:
        """Return whether every future of a finished task is resolved and its callbacks have returned."""
        return self._exchange.unresolved == 0

    def stop(self) -> None:
        """Ask the thread to end. No future may be pending."""
        self._exchange.stop_resolving()

    def run(self) -> None:
        """Run the loop of the thread."""
        while (task := self._exchange.next_resolved()) is not None:
            try:
                _resolve(task)
            except BaseException:  # for example SystemExit from a callback; other futures need this thread
                log.exception("calling callbacks of a future")
            del task


def _resolve(task: Task) -> None:
    future = task.future
    task.future = None
    future.task = None
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task.result()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
