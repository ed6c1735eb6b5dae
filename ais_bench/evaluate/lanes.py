"""Run batches through a model and return them in order, for each kind of session.

A lane is called with batches and yields (batch, answer, item) for each, in order. The answer is the result of `Finisher`, or an
exception. The item has the device and the times, see `ais_bench.session`; it is None if the session does not provide them.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ais_bench.evaluate.batches import Batch, Finisher, Inputs, Reader
from ais_bench.wire.carry import Carry

__all__ = ["Answer", "Lane", "in_the_workers", "in_this_process"]

Answer = tuple[Batch, Any, Any]
Lane = Callable[[Iterable[Batch]], Iterator[Answer]]


def _map(session: Any, items: Iterable[Any], mode: str) -> Iterator[tuple[Any, Any]]:
    """Yield (outputs or exception, item) of each item, in order, from a session that has `map`."""
    if "details" in inspect.signature(session.map).parameters:
        yield from session.map(items, mode=mode, on_error="return", details=True)
    else:
        for outputs in session.map(items, mode=mode, on_error="return"):
            yield outputs, None


def in_the_workers(session: Any, mode: str) -> Lane:
    """Return the lane of a session whose callables are `Reader` and `Finisher`."""

    def lane(batches: Iterable[Batch]) -> Iterator[Answer]:
        under_way: deque[Batch] = deque()

        def sent() -> Iterator[Batch]:
            for batch in batches:
                under_way.append(batch)
                yield batch

        for answer, item in _map(session, sent(), mode):
            yield under_way.popleft(), answer, item

    return lane


def in_this_process(session: Any, mode: str, reader: Reader, finisher: Finisher) -> Lane:
    """Return the lane of the caller's own session: samples are read and postprocessed in this process."""
    through = _map if hasattr(session, "map") else _one_by_one

    def finished(outputs: Any, extra: Any) -> Any:
        if isinstance(outputs, BaseException):
            return outputs
        try:
            return finisher(outputs, extra)
        except Exception as error:
            return error

    def lane(batches: Iterable[Batch]) -> Iterator[Answer]:
        under_way: deque[tuple[Batch, Any]] = deque()  # with the extra of Carry, or the error if there are no feeds

        def sent() -> Iterator[Any]:
            for batch in batches:
                try:
                    carry: Carry = reader(batch)
                except Exception as error:
                    under_way.append((batch, error))
                    continue
                under_way.append((batch, carry.extra))
                yield carry.feeds

        def without_feeds() -> Iterator[Answer]:
            while under_way and isinstance(under_way[0][1], Exception):
                batch, error = under_way.popleft()
                yield batch, error, None

        for outputs, item in through(session, sent(), mode):
            yield from without_feeds()
            batch, extra = under_way.popleft()
            yield batch, finished(outputs, extra), item
        yield from without_feeds()

    return lane


def _one_by_one(session: Any, items: Iterable[Any], mode: str) -> Iterator[tuple[Any, Any]]:
    """Do the same as `_map` for an InferSession."""
    for index, feeds in enumerate(items):
        started_ns = time.monotonic_ns()
        try:
            outputs = session.infer(feeds, mode)
        except Exception as error:
            outputs = error
        took_ms = (time.monotonic_ns() - started_ns) / 1e6
        yield (
            outputs,
            SimpleNamespace(
                index=index,
                device_id=session.device_id,
                started_ns=started_ns,
                execute_ms=took_ms,
                end_to_end_ms=took_ms,
                attempts=1,
            ),
        )


def inputs_of(descriptions: Iterable[Any]) -> Inputs:
    """Return the description of a session's inputs for batches."""
    several = list(descriptions)
    return Inputs(
        tuple(desc.name for desc in several),
        tuple(len(desc.shape) for desc in several),
        tuple(desc.datatype.name for desc in several),
    )
