"""What a MultiDeviceSession sends: the model with its settings, and items that are more than arrays.

The factories are data. What makes a handler of them is named here and lies in `ais_bench.worker`, which only workers import.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from ais_bench.wire.parcel import Packed
from ais_bench.wire.protocol import Handler, WorkerContext

SESSION_HANDLER = "ais_bench.worker.session_handler"
PREPROCESS = "ais_bench.worker.preprocess"


class SessionFactory(NamedTuple):
    """Makes the handler in a worker. `callables`: {"preprocess", "postprocess", "init", "retry_on"}, packed in the parent."""

    model: Any  # a path, or the content as anything with the buffer protocol
    runtime: str
    options: dict[str, str]  # the runtime's, checked
    acl_json_path: str | None
    debug: bool  # what InferSession logs is wanted
    loop: int
    warmup: int
    device_count: int
    callables: Packed | None
    callable_threads: tuple[int, int]  # of preprocess and postprocess; 0: see ais_bench.worker.callables
    borrows: bool  # feeds may lie in the memory of CPU workers
    prepared: str = ""  # a folder that a helper prepares the model's weights in, if it is there (ais_bench.wire.prepared)

    @property
    def begins_logging(self) -> bool:
        """See ais_bench.wire.protocol.Factory."""
        return True

    def __call__(self, context: WorkerContext) -> Handler:
        """Load the model on the worker's device. Raises what InferSession raises."""
        return _made_by(SESSION_HANDLER, self, context)


class PreprocessFactory(NamedTuple):
    """Makes the handler in a worker. `callables`: {"preprocess", "init", "retry_on"}, packed in the parent."""

    callables: Packed

    @property
    def begins_logging(self) -> bool:
        """See ais_bench.wire.protocol.Factory."""
        return True

    def __call__(self, context: WorkerContext) -> Handler:
        """Raises what `init` raises."""
        return _made_by(PREPROCESS, self, context)


def _made_by(module: str, factory: Any, context: WorkerContext) -> Handler:
    handler: Handler = importlib.import_module(module).make(factory, context)
    return handler


class Iterate(NamedTuple):
    """An `infer_iteration` on its way to a worker."""

    feeds: Any
    in_out_list: Sequence[int] | None
    times: int
    mode: str


class Named(NamedTuple):
    """Feeds by name on their way to a worker: those that a list in the model's order cannot be made of."""

    feeds: dict[str, Any]
    extra: tuple[Any, ...] = ()  # further arguments of the postprocess


class FeedHeader(NamedTuple):
    """What the arrays behind it are, in the answer of a worker that preprocesses."""

    feeds: int  # how many; the rest is `extra`, encoded, if `carries`
    names: tuple[str, ...] | None  # of a mapping
    carries: bool
    bare: bool = False  # it is an array, and no list of one
    absent: tuple[int, ...] = ()  # the places of None in a list, whose other entries are there


def read_header(array: Any) -> FeedHeader:
    """The first array of an answer."""
    return FeedHeader(*pickle.loads(array))
