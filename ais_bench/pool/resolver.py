"""The thread that resolves futures.

It alone runs the callbacks of futures, so that a callback may do anything: use the pool, close it, take locks that a thread
waiting in the pool holds. It also collects replies while futures are pending and no caller collects.
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
    """A future of a task. Cancelling takes the task back at once, unless a worker has begun it: then its answer is dropped."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self.task: Task | None = None  # until it is resolved

    def cancel(self) -> bool:
        """Return whether that worked; it does until the result is there."""
        cancelled = super().cancel()
        task = self.task
        if cancelled and task is not None:
            self._exchange.cancel([task])
        return cancelled


class Resolver(Thread):
    """Started with the first future of a pool; ends when told to and every future it knows of is resolved."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__("ais_bench futures")
        self._exchange = exchange

    @property
    def at_rest(self) -> bool:
        """Whether every future of a task that is done is resolved, and its callbacks have returned."""
        return self._exchange.unresolved == 0

    def stop(self) -> None:
        """Ask it to end; no future may be pending any more."""
        self._exchange.stop_resolving()

    def run(self) -> None:
        """The loop."""
        while (task := self._exchange.next_resolved()) is not None:
            try:
                _resolve(task)
            except BaseException:  # a SystemExit out of a callback, say; the other futures wait for this thread
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
