"""The code in a CPU worker of MultiDeviceSession: preprocess, for any device.

The answer is a list of arrays: a header, the feeds, and the extra of `Carry`. The header (a pickle, as bytes) has the number of
feeds, and their names if preprocess returned a mapping.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ais_bench import _native
from ais_bench.one_device.feeds import is_one_array, to_array, to_sequence
from ais_bench.wire import Task, decode, encode
from ais_bench.wire.carry import carried
from ais_bench.wire.factories import FeedHeader, PreprocessFactory
from ais_bench.wire.protocol import Answer, WorkerContext
from ais_bench.worker import log


def make(factory: PreprocessFactory, _context: WorkerContext) -> PreprocessHandler:
    """Make the handler. Raises the errors of `init`."""
    log.begin()
    callables = factory.callables.load()
    if "init" in callables:
        callables["init"]()
    return PreprocessHandler(callables["preprocess"], callables.get("retry_on", ()))


class PreprocessHandler:
    """A handler for the pool, see ais_bench.wire.protocol."""

    native = None

    def __init__(self, preprocess: Callable[[Any], Any], retry_on: tuple[type[Exception], ...]) -> None:
        self._preprocess = preprocess
        self.retry_on = retry_on

    def describe(self) -> None:
        """Return None: there is no description."""

    def run(self, task: Task) -> Answer:
        """Preprocess one item."""
        began_ns = _native.monotonic_ns()
        feeds, extra = carried(self._preprocess(decode(task.feeds)))
        names, bare = None, is_one_array(feeds)
        if isinstance(feeds, Mapping):
            names = tuple(str(name) for name, value in feeds.items() if value is not None)
            given = [value for value in feeds.values() if value is not None]
        else:
            given = [feeds] if bare else list(to_sequence(feeds, [], []))
        absent = tuple(place for place, value in enumerate(given) if value is None)
        arrays = [to_array(value, f"input {place}") for place, value in enumerate(given) if value is not None]
        more = encode(extra[0]) if extra else []
        header = np.frombuffer(pickle.dumps(tuple(FeedHeader(len(arrays), names, bool(extra), bare, absent))), np.uint8)
        spent_ns = _native.monotonic_ns() - began_ns
        return Answer([header, *arrays, *more], execute_ns=1, preprocess_ns=spent_ns)

    def close(self) -> None:
        """Do nothing: the handler holds no resources."""
