"""What runs on a node: an actor with a MultiDeviceSession over the node's devices."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from ais_bench.ray.chunks import Order, Outcome
from ais_bench.session import MultiDeviceSession
from ais_bench.wire.pickling import dumps_error

__all__ = ["NodeActor"]


class NodeActor:
    """One node's session. Several chunks run at a time, each in a thread of the actor's."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self._session = MultiDeviceSession(model, **options)

    def start(self) -> dict[str, Any]:
        """Load the model on every device and say what there is. Raises what `MultiDeviceSession.start` raises."""
        session = self._session
        session.start()
        described = session._ready_pool(None).description()
        return {"host": socket.gethostname(), "pid": os.getpid(), "devices": session.devices, "model": described[:3]}

    def ping(self) -> int:
        """Answer: the node is there."""
        return time.monotonic_ns()

    def run(self, items: Sequence[Any], order: Order) -> tuple[list[Outcome], int]:
        """Run the items of a chunk. Returns an outcome for each, and how many nanoseconds that took."""
        began = time.monotonic_ns()
        if order.device is not None:
            outcomes = [self._one(item, order) for item in items]
        else:
            outcomes = [
                _outcome(outputs, item)
                for outputs, item in self._session.map(items, order.mode, on_error="return", details=True)
            ]
        return outcomes, time.monotonic_ns() - began

    def _one(self, item: Any, order: Order) -> Outcome:
        try:
            return _outcome(self._session.infer(item, order.mode, device=order.device), None)
        except Exception as error:
            return _outcome(error, None)

    def report(self) -> Any:
        """The session's report."""
        return self._session.report()

    def reset(self) -> None:
        """Start the session's report anew."""
        self._session.reset_summaryinfo()

    def close(self, force: bool) -> None:
        """End the session's workers."""
        self._session.close(force=force)


def _outcome(outputs: Any, item: Any) -> Outcome:
    where = None if item is None else tuple(item)
    if isinstance(outputs, BaseException):
        return Outcome(None, dumps_error(outputs), where)
    return Outcome(outputs, None, where)
