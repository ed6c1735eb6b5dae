"""The data that a MultiDeviceSession sends: the model with its settings, and items that are more than arrays.

The factories are data. This file names the functions that make a handler from them. These functions are in `ais_bench.worker`,
which only workers import.
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
    options: dict[str, str]  # the checked options of the runtime
    acl_json_path: str | None
    debug: bool  # whether InferSession logs at DEBUG
    loop: int
    warmup: int
    device_count: int
    callables: Packed | None
    callable_threads: tuple[int, int]  # for preprocess and postprocess; 0: see ais_bench.worker.callables
    borrows: bool  # whether feeds may be in the memory of CPU workers
    prepared: str = ""  # folder of the weights that a helper prepares, if it exists (ais_bench.wire.prepared)

    def __repr__(self) -> str:
        """Return the text for errors: its fields mean nothing to a user."""
        return f"the session of {self.model!r}" if isinstance(self.model, str) else "the session of a model in memory"

    @property
    def begins_logging(self) -> bool:
        """See ais_bench.wire.protocol.Factory."""
        return True

    def __call__(self, context: WorkerContext) -> Handler:
        """Load the model on the worker's device. Raises the errors of InferSession."""
        return _made_by(SESSION_HANDLER, self, context)


class PreprocessFactory(NamedTuple):
    """Makes the handler in a worker. `callables`: {"preprocess", "init", "retry_on"}, packed in the parent."""

    callables: Packed

    def __repr__(self) -> str:
        """Return the text for errors."""
        return "the preprocess of the session"

    @property
    def begins_logging(self) -> bool:
        """See ais_bench.wire.protocol.Factory."""
        return True

    def __call__(self, context: WorkerContext) -> Handler:
        """Make the handler. Raises the errors of `init`."""
        return _made_by(PREPROCESS, self, context)


def _made_by(module: str, factory: Any, context: WorkerContext) -> Handler:
    handler: Handler = importlib.import_module(module).make(factory, context)
    return handler


class Iterate(NamedTuple):
    """The data of an `infer_iteration` for a worker."""

    feeds: Any
    in_out_list: Sequence[int] | None
    times: int
    mode: str


class Named(NamedTuple):
    """Feeds by name for a worker, for which a list in the model's order is not enough."""

    feeds: dict[str, Any]
    extra: tuple[Any, ...] = ()  # further arguments of the postprocess


class FeedHeader(NamedTuple):
    """The description of the arrays that follow it, in the answer of a worker that preprocesses."""

    feeds: int  # the number of feeds; the rest is the encoded `extra`, if `carries`
    names: tuple[str, ...] | None  # the names of a mapping
    carries: bool
    bare: bool = False  # whether it is an array, and not a list of one
    absent: tuple[int, ...] = ()  # the positions of None in a list


def read_header(array: Any) -> FeedHeader:
    """Return the header from the first array of an answer."""
    return FeedHeader(*pickle.loads(array))
