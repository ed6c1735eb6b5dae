"""The actor on a node, with a MultiDeviceSession for the node's devices."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ais_bench
from ais_bench.ray.bundles import Bundle, BundleOrRef, pack, unpack, unpack_items
from ais_bench.ray.chunks import ItemOutcome, Order
from ais_bench.session import MultiDeviceSession
from ais_bench.wire.pickling import dumps_error

__all__ = ["NodeActor"]


class NodeActor:
    """One node's session. Several chunks run at a time, each in a thread of the actor."""

    def __init__(self) -> None:
        self._session: Any = None

    def start(self, model: Any, options: Bundle) -> dict[str, Any]:
        """Load the model on every device and return its description. Raises the errors of `MultiDeviceSession.start`."""
        session = self._session = MultiDeviceSession(model, **unpack(options))
        session.start()
        described = session._ready_pool(None).description()
        return {
            "version": ais_bench.__version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "devices": session.devices,
            "model": described[:8],
        }

    def ping(self) -> int:
        """Answer, to show that the node is alive."""
        return time.monotonic_ns()

    def run(self, bundles: Sequence[BundleOrRef], order: Order) -> tuple[list[ItemOutcome], int]:
        """Run the items of a chunk. Return an outcome for each item, and the time of the chunk in nanoseconds."""
        began = time.monotonic_ns()
        entries = unpack_items(bundles)
        answers = self._answers([item for item, error in entries if error is None], order)
        outcomes = [next(answers) if error is None else _outcome(error, None) for _, error in entries]
        return outcomes, time.monotonic_ns() - began

    def _answers(self, items: Sequence[Any], order: Order) -> Iterator[ItemOutcome]:
        if order.device is None:
            done = self._session.map(items, order.mode, on_error="return", details=True, outputs=order.outputs)
            yield from (_outcome(outputs, item) for outputs, item in done)
            return
        for item in items:
            try:
                outputs = self._session.infer(item, order.mode, device=order.device, outputs=order.outputs)
            except Exception as error:
                outputs = error
            yield _outcome(outputs, None)

    def report(self) -> Any:
        """Return the session's report."""
        return self._session.report()

    def reset(self) -> None:
        """Restart the counts of the session's report."""
        self._session.reset_summaryinfo()

    def close(self, force: bool) -> None:
        """End the session's workers."""
        if self._session is not None:
            self._session.close(force=force)


def _outcome(outputs: Any, item: Any) -> ItemOutcome:
    try:
        where = None if item is None else pack(tuple(item))
        if not isinstance(outputs, BaseException):
            return ItemOutcome(pack(outputs), None, where)
    except Exception as error:  # it came from a worker, but cannot be sent further
        return ItemOutcome(None, dumps_error(error), None)
    return ItemOutcome(None, dumps_error(outputs), where)
