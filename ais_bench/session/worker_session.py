"""What runs in a worker of MultiDeviceSession: one model, and the user's callables around it.

Without callables a task is arrays in, arrays out, and never meets Python: the pool serves it with `native`. Three things come
here instead: tasks of a session with a `preprocess` (an object in) or a `postprocess` (an object out), and iterations.
For these there is an InferSession around the model. It is made when the first of them comes: with numpy, which it needs, it
would take two thirds of a worker's start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ais_bench import _native
from ais_bench.pool.pickling import loads
from ais_bench.pool.protocol import Answer, WorkerContext
from ais_bench.session.carry import Carry
from ais_bench.shm import OBJECT, Task
from ais_bench.shm import SessionHandler as NativeSession

if TYPE_CHECKING:
    from ais_bench.session.infer_session import InferSession


class Iterate(NamedTuple):
    """An `infer_iteration` on its way to a worker."""

    feeds: Any
    in_out_list: Sequence[int] | None
    times: int
    mode: str


class SessionFactory(NamedTuple):
    """Makes the handler in a worker. `preprocess` and `postprocess` are pickles of callables, made in the parent."""

    model: str | bytes
    runtime: str
    options: dict[str, str]  # the runtime's, checked
    acl_json_path: str | None
    debug: bool  # what InferSession logs is wanted
    loop: int
    warmup: int
    device_count: int
    preprocess: bytes | None
    postprocess: bytes | None

    def __call__(self, context: WorkerContext) -> SessionHandler:
        """Loads the model on the worker's device. Raises what InferSession raises."""
        options = dict(self.options)
        if self.acl_json_path:
            options["acl_json_path"] = self.acl_json_path
        if self.runtime == "ort":
            # A worker sees only its share of the processors, but the ids are those of the whole machine.
            options.setdefault("devices", str(self.device_count))
            options.setdefault("session.intra_op.allow_spinning", "0")
            options["threads"] = str(context.threads)
        native = _native.Session(self.model, context.device_id, self.loop, options, self.runtime)
        handler = SessionHandler(native, self)
        if self.debug or self.acl_json_path:
            handler.session()  # has something to say about them
        handler.warm_up(self.warmup)
        return handler


def _callable(pickled: bytes | None) -> Callable[..., Any] | None:
    return None if pickled is None else loads(pickled)


class SessionHandler:
    """A handler as the pool wants it, see ais_bench.pool.protocol."""

    def __init__(self, native: _native.Session, factory: SessionFactory) -> None:
        self._native = native
        self._factory = factory
        self._session: InferSession | None = None
        self._preprocess = _callable(factory.preprocess)
        self._postprocess = _callable(factory.postprocess)
        self.native: NativeSession | None = None
        if self._preprocess is None and self._postprocess is None:
            self.native = NativeSession(native)
        else:
            self.session()

    def session(self) -> InferSession:
        """The model as Python uses it."""
        if self._session is None:
            from ais_bench.session.infer_session import InferSession

            factory = self._factory
            self._session = InferSession._over(self._native, factory.model, factory.acl_json_path, factory.debug)
        return self._session

    def describe(self) -> tuple[list[Any], list[Any], tuple[str, list[Any]]]:
        """Inputs and outputs of the model, as `tensor_desc._from_native` takes them, and its gears."""
        return self._native.inputs(), self._native.outputs(), self._native.gears()

    def warm_up(self, runs: int) -> None:
        """Runs on zeros, where all shapes are known; the times do not count."""
        inputs = self._native.inputs()
        if runs and all(dim >= 0 for _, _, _, shape, _ in inputs for dim in shape):
            import numpy as np

            feeds = [np.zeros(size, np.uint8) for _, _, _, _, size in inputs]
            for _ in range(runs):
                self.session().infer(feeds)
            self.session().reset_summaryinfo()

    def run(self, task: Task) -> Answer:
        """One task that needs Python."""
        from ais_bench.options import MODES
        from ais_bench.shm import decode, encode

        session, mode = self.session(), MODES[task.mode]
        item = decode(task.feeds) if task.kind == OBJECT else task.feeds
        if isinstance(item, Iterate):
            return Answer(session.infer_iteration(item.feeds, item.in_out_list, item.times, item.mode))
        began_ns = _native.monotonic_ns()
        feeds = self._preprocess(item) if self._preprocess is not None else item
        extra: tuple[Any, ...] = ()
        if isinstance(feeds, Carry):
            feeds, extra = feeds.feeds, (feeds.extra,)
        fed_ns = _native.monotonic_ns()
        outputs = session.infer(feeds, mode)
        ran_ns = _native.monotonic_ns()
        if self._postprocess is None:
            return Answer(outputs, execute_ns=ran_ns - fed_ns, preprocess_ns=fed_ns - began_ns)
        answer = encode(self._postprocess(outputs, *extra))
        return Answer(
            answer,
            OBJECT,
            execute_ns=ran_ns - fed_ns,
            preprocess_ns=fed_ns - began_ns,
            postprocess_ns=_native.monotonic_ns() - ran_ns,
        )

    def close(self) -> None:
        """Frees the model."""
        self._native.close()
