"""Threads beside the driver's, for calls that may take long: queries to Ray's head, and functions of the program."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import ray

from ais_bench.tuning import HELPER_WAIT_S, NODES_LOOK_S

__all__ = ["Ender", "Found", "Head", "Helper"]

_logger = logging.getLogger("ais_bench.ray")


class Helper:
    """A thread that runs one job after the other. Errors of jobs are logged."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._gate = threading.RLock()  # guards `_ended` and puts into `_jobs`
        self._ended = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def do(self, job: Callable[[], None]) -> bool:
        """Queue a job. Return False if the thread has ended; the job then does not run."""
        with self._gate:
            if not self._ended:
                self._jobs.put(job)
            return not self._ended

    def end(self, wait_s: float) -> None:
        """End the thread after its queued jobs, and wait up to `wait_s` seconds for the end."""
        with self._gate:
            self._ended = True
            self._jobs.put(None)
        if wait_s and self.thread.ident is not None:
            self.thread.join(wait_s)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=HELPER_WAIT_S)
            except queue.Empty:
                self._idle()
                continue
            if job is None:
                return
            try:
                job()
            except BaseException:  # a callback that ends the program ends its own call
                _logger.exception("a call failed in the thread %s", self.thread.name)
            self._idle()

    def _idle(self) -> None:
        """Run between jobs, and at least twice a second."""


class Found(NamedTuple):
    """The state of the nodes, from Ray's head."""

    nodes: list[dict[str, Any]]
    draining: set[str]  # ids of nodes that leave
    free: dict[str, dict[str, float]]  # free resources, by node id


class Ender(Helper):
    """Ends actors. This blocks while Ray's head does not answer, but no caller waits for it."""

    def __init__(self, is_connected: Callable[[], bool]) -> None:
        super().__init__("ais_bench cluster ends")
        self._is_connected = is_connected

    def kill(self, actor: Any) -> None:
        """End an actor. The helper keeps the handle until then."""

        def job() -> None:
            with contextlib.suppress(Exception):
                if self._is_connected():
                    ray.kill(actor, no_restart=True)

        self.do(job)


class Head(Helper):
    """Asks Ray's head periodically for the nodes. This blocks while the head does not answer."""

    def __init__(self, tell: Callable[[Found], object], is_connected: Callable[[], bool]) -> None:
        super().__init__("ais_bench cluster nodes")
        self._tell, self._is_connected = tell, is_connected
        self._looked_at = 0.0

    def _idle(self) -> None:
        if time.monotonic() - self._looked_at < NODES_LOOK_S or not self._is_connected():
            return
        try:
            found = look()
        except Exception as error:  # the head does not answer at the moment
            _logger.debug("cannot ask for nodes: %s", error)
        else:
            self._tell(found)
        self._looked_at = time.monotonic()


def look() -> Found:
    """Return the state of the nodes from Ray's head. Raises errors of Ray."""
    return Found(ray.nodes(), _draining(), _free())


# Ray provides these by internal functions, which other versions may lack.


def _draining() -> set[str]:
    with contextlib.suppress(Exception):
        return set(ray._private.state.state.get_draining_nodes())
    return set()


def _free() -> dict[str, dict[str, float]]:
    with contextlib.suppress(Exception):
        free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
        return free
    return {}
