"""What runs in a worker of MultiDeviceSession: one InferSession, and the user's callables around it.

Without callables a task is arrays in, arrays out, and never meets Python: the pool serves it with `native`. Three things come
here instead: tasks of a session with a `preprocess` (an object in) or a `postprocess` (an object out), and iterations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ais_bench.pool.pickling import loads
from ais_bench.pool.protocol import Answer, WorkerContext
from ais_bench.session.descriptors import tensor_desc
from ais_bench.session.infer_session import InferSession
from ais_bench.shm import OBJECT, Task, decode, encode
from ais_bench.shm import SessionHandler as NativeSession

MODES = ("static", "dymbatch", "dymhw", "dymdims", "dymshape")  # a task's mode is an index into this


@dataclass(frozen=True)
class Iterate:
    """An `infer_iteration` on its way to a worker."""

    feeds: Any
    in_out_list: Sequence[int] | None
    times: int
    mode: str


@dataclass(frozen=True)
class Description:
    """What a worker tells the parent about the model."""

    inputs: list[tensor_desc]
    outputs: list[tensor_desc]


@dataclass(frozen=True)
class SessionFactory:
    """Makes the handler in a worker. `preprocess` and `postprocess` are pickles of callables, made in the parent."""

    model: str | bytes
    runtime: str
    acl_json_path: str | None = None
    debug: bool = False
    loop: int = 1
    warmup: int = 0
    graph_optimization_level: str | None = None
    provider_options: dict[str, Any] = field(default_factory=dict)
    device_count: int = 0
    preprocess: bytes | None = None
    postprocess: bytes | None = None

    def __call__(self, context: WorkerContext) -> SessionHandler:
        """Loads the model on the worker's device. Raises what InferSession raises."""
        options = dict(self.provider_options)
        if self.runtime == "ort":
            # A worker sees only its share of the processors, but the ids are those of the whole machine.
            options.setdefault("devices", self.device_count)
            options.setdefault("session.intra_op.allow_spinning", "0")
        session = InferSession(
            context.device_id,
            self.model,
            self.acl_json_path,
            self.debug,
            self.loop,
            threads=context.threads if self.runtime == "ort" else None,
            graph_optimization_level=self.graph_optimization_level,
            provider_options=options,
            runtime=self.runtime,
        )
        handler = SessionHandler(session, _callable(self.preprocess), _callable(self.postprocess))
        handler.warm_up(self.warmup)
        return handler


def _callable(pickled: bytes | None) -> Callable[[Any], Any] | None:
    return None if pickled is None else loads(pickled)


class SessionHandler:
    """A handler as the pool wants it, see ais_bench.pool.protocol."""

    def __init__(
        self, session: InferSession, preprocess: Callable[[Any], Any] | None, postprocess: Callable[[Any], Any] | None
    ) -> None:
        self._session = session
        self._preprocess = preprocess
        self._postprocess = postprocess
        self.native = NativeSession(session._native) if preprocess is None and postprocess is None else None

    def describe(self) -> Description:
        """Inputs and outputs of the model."""
        return Description(self._session.get_inputs(), self._session.get_outputs())

    def warm_up(self, runs: int) -> None:
        """Runs on zeros, where all shapes are known; the times do not count."""
        import numpy as np

        inputs = self._session.get_inputs()
        if runs and all(dim >= 0 for desc in inputs for dim in desc.shape):
            feeds = [np.zeros(desc.size, np.uint8) for desc in inputs]
            for _ in range(runs):
                self._session.infer(feeds)
            self._session.reset_summaryinfo()

    def run(self, task: Task) -> Answer:
        """One task that needs Python."""
        mode = MODES[task.mode]
        item = decode(task.feeds, at_home=False) if task.kind == OBJECT else task.feeds
        if isinstance(item, Iterate):
            return Answer(self._session.infer_iteration(item.feeds, item.in_out_list, item.times, item.mode))
        began_ns = time.monotonic_ns()
        feeds = self._preprocess(item) if self._preprocess is not None else item
        fed_ns = time.monotonic_ns()
        outputs = self._session.infer(feeds, mode)
        ran_ns = time.monotonic_ns()
        if self._postprocess is None:
            return Answer(outputs, copy_in_ns=fed_ns - began_ns, execute_ns=ran_ns - fed_ns)
        answer = encode(self._postprocess(outputs))
        return Answer(answer, OBJECT, fed_ns - began_ns, ran_ns - fed_ns, time.monotonic_ns() - ran_ns)

    def close(self) -> None:
        """Frees the model."""
        self._session.free_resource()
