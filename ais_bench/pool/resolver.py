"""The thread that resolves futures.

It alone runs the callbacks of futures, so that a callback may do anything: use the pool, close it, take locks that a thread
waiting in the pool holds. It also collects replies while futures are pending and no caller collects.
"""

from __future__ import annotations

import logging

from ais_bench.pool.dispatch import Dispatcher
from ais_bench.pool.task import Task
from ais_bench.pool.threads import Thread

log = logging.getLogger("ais_bench.pool")


class Resolver(Thread):
    """Started with the first future of a pool; ends when told to and every future it knows of is resolved."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__("ais_bench futures")
        self._dispatcher = dispatcher
        self._stopping = False
        self._calling = False

    @property
    def at_rest(self) -> bool:
        """Whether every future of a task that is done is resolved, and its callbacks have returned."""
        return not self._dispatcher.resolved and not self._calling

    def stop(self) -> None:
        """Asks it to end; no future may be pending any more."""
        self._stopping = True
        self._dispatcher.wake_background()

    def run(self) -> None:
        """The loop."""
        dispatcher = self._dispatcher
        waiter = dispatcher.collector.background
        while True:
            seen = waiter.finished
            while dispatcher.resolved:
                self._calling = True  # before it is taken, so that nobody sees neither
                try:
                    _resolve(dispatcher.resolved.popleft())
                except BaseException:  # a SystemExit out of a callback, say; the other futures wait for this thread
                    log.exception("calling callbacks of a future")
                finally:
                    self._calling = False
            if self._stopping and waiter.finished == seen:
                return
            dispatcher.background_step(seen)


def _resolve(task: Task) -> None:
    future = task.future
    assert future is not None
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task.result()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
