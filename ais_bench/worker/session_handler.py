"""The code in a worker of MultiDeviceSession: one model, and the user's callables around it.

Without callables a task is arrays in, arrays out, and needs no Python: the pool serves it with `native`. Three kinds of tasks
come here instead: those of a session with a `preprocess` (an object in) or a `postprocess` (an object out), and iterations.
They use an InferSession around the model. It is made for the first such task, because with numpy, which it needs, it would take
two thirds of a worker's start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ais_bench import _native
from ais_bench.errors import AisBenchError
from ais_bench.wire import OBJECT, Channel, Task, decode, encode
from ais_bench.wire import SessionHandler as NativeSession
from ais_bench.wire.carry import carried, ready_made
from ais_bench.wire.factories import Iterate, Named, SessionFactory
from ais_bench.wire.protocol import Answer, WorkerContext
from ais_bench.worker import log

if TYPE_CHECKING:
    from ais_bench.one_device.infer_session import InferSession
    from ais_bench.wire.lent import Borrower


def make(factory: SessionFactory, context: WorkerContext) -> ModelHandler:
    """Load the model on the worker's device. Raises the errors of InferSession."""
    options = dict(factory.options)
    if factory.acl_json_path:
        options["acl_json_path"] = factory.acl_json_path
    if "profile" in options:  # one for each worker: ONNX Runtime adds only the time
        options["profile"] += f"_device{context.device_id}_{os.getpid()}"
    if factory.runtime == "ort":
        # A worker sees only its share of the processors, but the ids are those of the whole machine.
        options.setdefault("devices", str(factory.device_count))
        options.setdefault("session.intra_op.allow_spinning", "0")
        options["threads"] = str(context.threads)
    if factory.callables is not None:
        log.begin()
    callables: dict[str, Any] = factory.callables.load() if factory.callables is not None else {}
    if "init" in callables:
        callables["init"]()
    native, weights = _open(factory, context.device_id, options)
    # The content of the model, and the packed callables, are not needed any more.
    model = factory.model if isinstance(factory.model, str) else f"<{len(factory.model)} bytes>"
    handler = ModelHandler(native, factory._replace(model=model, callables=None), callables, weights)
    if factory.debug or factory.acl_json_path:
        handler.session()  # may warn about them
    handler.warm_up(factory.warmup)
    return handler


def _open(factory: SessionFactory, device_id: int, options: dict[str, str]) -> tuple[_native.Session, str]:
    """Return the session, and whether its weights are shared; "": no weights were prepared."""
    why = ""
    if factory.prepared and os.path.isdir(factory.prepared):
        from ais_bench.wire.prepared import await_prepared

        found, why = await_prepared(factory.prepared)
        if found is not None:
            shared = {**options, "prepared": found}
            try:
                return _native.Session(factory.model, device_id, factory.loop, shared, factory.runtime), "shared"
            except AisBenchError as error:  # the model itself may still load
                why = f"the prepared model does not load: {error}"
        why = f"not shared: {why}"
    return _native.Session(factory.model, device_id, factory.loop, options, factory.runtime), why


class ModelHandler:
    """A handler for the pool, see ais_bench.wire.protocol."""

    def __init__(self, native: _native.Session, factory: SessionFactory, callables: dict[str, Any], weights: str = "") -> None:
        self._native = native
        self._weights = weights
        self._factory = factory
        self._session: InferSession | None = None
        self._running: int | None = None  # the task of the present run from Python
        self._cancels: Callable[[int], None] | None = None  # of the stages
        self._preprocess = callables.get("preprocess")
        self._postprocess = callables.get("postprocess")
        self.retry_on: tuple[type[Exception], ...] = callables.get("retry_on", ())
        self._borrower: Borrower | None = None
        if factory.borrows:
            from ais_bench.wire.lent import Borrower, can_borrow

            self._borrower = Borrower() if can_borrow() else None
        self.native: NativeSession | None = None
        # Serves the tasks if there are callables around the model; see ais_bench.wire.protocol.
        self.stages: Callable[..., None] | None = None
        if self._preprocess is None and self._postprocess is None and self._borrower is None:
            self.native = NativeSession(native)
        else:
            self.session()
            in_threads = any(factory.callable_threads) or self._postprocess is None
            self.stages = self._stages if in_threads else None

    def session(self) -> InferSession:
        """Return the InferSession around the model."""
        if self._session is None:
            log.begin()
            from ais_bench.one_device.infer_session import InferSession

            factory = self._factory
            self._session = InferSession._over(self._native, factory.model, factory.acl_json_path, factory.debug)
        return self._session

    def describe(self) -> tuple[Any, ...]:
        """Return inputs and outputs of the model, for `tensor_desc._from_native`, its gears, the device's memory, whether it
        borrows feeds, how its slots are copied, the model's metadata, the constants that a run may override, whether its
        weights are shared, and which nodes run on the processor."""
        native, borrows = self._native, self._borrower is not None
        host_memory = "" if self.native is None else native.host_memory()  # Python uses its own memory
        return (
            native.inputs(),
            native.outputs(),
            native.gears(),
            native.memory(),
            borrows,
            host_memory,
            native.metadata(),
            native.overridable(),
            self._weights,
            native.placement(),
        )

    def announces(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the device has refused to register more slots: from then on `describe()` reports it."""
        if self.native is not None:
            self.native.when_slots_are_refused(tell)

    def warm_up(self, runs: int) -> None:
        """Run the model on zeros, if all shapes are known. The times do not count."""
        inputs = self._native.inputs()
        if runs and all(dim >= 0 for _, _, _, shape, *_ in inputs for dim in shape):
            import numpy as np

            feeds = [np.zeros(size, np.uint8) for _, _, _, _, size, *_ in inputs]
            for _ in range(runs):
                self.session().infer(feeds)
            self.session().reset_summaryinfo()

    def _stages(self, channel: Channel, fail: Callable[[Task, BaseException, int], None], leave: Callable[..., None]) -> None:
        from ais_bench.worker.callables import Stages

        def iteration(task: Task, item: Any) -> bool:
            if isinstance(item, Iterate):
                channel.reply(task, self._iterate(task, item))
            return isinstance(item, Iterate)

        threads = self._factory.callable_threads
        stages = Stages(channel, self._native, self._preprocess, self._postprocess, threads, fail, leave, self._borrower)
        self._cancels = stages.cancel
        stages.serve(iteration)

    def _iterate(self, task: Task, item: Iterate) -> list[Any]:
        session = self.session()
        self._running = task.id
        try:
            return session.infer_iteration(item.feeds, item.in_out_list, item.times, item.mode)
        finally:
            self._running = None

    def cancel(self, task_id: int) -> None:
        """End the model's run for this task, if there is one. A run that has not begun does not notice it."""
        native, cancels = self.native, self._cancels  # `close` resets them in another thread
        if native is not None:
            native.cancel(task_id)
        if cancels is not None:
            cancels(task_id)
        # Both lines hold the GIL, and no other run can begin in between.
        if self._running == task_id:
            self._native.cancel()

    def run(self, task: Task) -> Answer:
        """Run one task that needs Python."""
        from ais_bench.options import MODES

        session, mode = self.session(), MODES[task.mode]
        item = decode(task.feeds) if task.kind == OBJECT else task.feeds
        if isinstance(item, Iterate):
            return Answer(self._iterate(task, item))
        began_ns = _native.monotonic_ns()
        feeds: Any
        if isinstance(item, Named):
            feeds, extra = item
        elif self._preprocess is not None:
            feeds, extra = carried(self._preprocess(item))
        else:
            feeds, extra = ready_made(item, task.option, self._borrower)
        fed_ns = _native.monotonic_ns()
        self._running = task.id
        try:
            outputs = session.infer(feeds, mode)
        finally:
            self._running = None
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
        """Free the model and its resources on the device, because the process ends without destructors."""
        self._native.close()
        self.native = self._cancels = None
