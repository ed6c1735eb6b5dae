"""ClusterSession: one model on all nodes of a Ray cluster, each with a MultiDeviceSession over its devices.

items -> chunks -> driver -> a node's actor -> MultiDeviceSession -> outcomes -> driver -> results in order
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import ray

from ais_bench.errors import AisBenchError, ConfigError, PoolClosed, TaskTimeout, no_copies, rename_task
from ais_bench.one_device import gather
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.options import (
    OnError,
    absolute,
    as_bool,
    as_device_ids,
    as_int,
    as_iterable,
    as_list,
    as_model,
    as_seconds,
    check_names,
    check_on_error,
    known_options,
    unknown_argument,
)
from ais_bench.ray.chunks import Chunk, Order, Outcome, Waiting
from ais_bench.ray.driver import Driver
from ais_bench.ray.nodes import Node
from ais_bench.session import Item, MultiDeviceSession, scatter
from ais_bench.wire.pickling import loads_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ais_bench.session.report import Counts, Report, WorkerLine

__all__ = ["ClusterReport", "ClusterSession"]

WORK_S = 0.02  # of a node's, in a chunk: twice what hides the way there and back
PATIENCE_S = 0.02  # an item waits no longer for others of its chunk
START_LIMIT_S = 600.0
STALL_S = 0.5  # between two looks whether the driver is still there


@dataclass(frozen=True)
class ClusterReport:
    """What the nodes did: a `Report` of each, and the counts of all.

    Attributes:
        nodes: {node id: Report}.
        tasks, failures: of all nodes.
        throughput_per_s: tasks without failure a second, summed over the nodes.
    """

    nodes: dict[str, Report]
    tasks: int
    failures: int
    throughput_per_s: float

    @property
    def devices(self) -> dict[str, Counts]:
        """The counts of each device, by "node id/device id"."""
        return {f"{name}/{id}": counts for name, report in self.nodes.items() for id, counts in report.devices.items()}

    @property
    def workers(self) -> list[WorkerLine]:
        """The workers of all nodes, their devices called as in `devices`."""
        lines = [(name, line) for name, report in self.nodes.items() for line in report.workers]
        return [replace(line, device=f"{name}/{line.device}") for name, line in lines]  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts and lists of numbers and texts."""
        return {
            "nodes": {name: report.to_dict() for name, report in self.nodes.items()},
            "tasks": self.tasks,
            "failures": self.failures,
            "throughput_per_s": self.throughput_per_s,
        }

    def __str__(self) -> str:
        parts = [f"node {name}\n{report}" for name, report in self.nodes.items()]
        parts.append(f"all nodes: {self.tasks} tasks, {self.failures} failed, {self.throughput_per_s:.1f} tasks/s")
        return "\n\n".join(parts)


class ClusterSession:
    """One model on the devices of all nodes of a Ray cluster. Feeds and outputs are those of MultiDeviceSession.

    An actor on each node holds a MultiDeviceSession. Items travel in chunks; a node that is lost costs no item: its chunks run
    elsewhere, and results come in order, each once. An item may have been executed more than once. A chunk that costs two nodes
    is split, and an item that costs two more fails alone, with WorkerDied. Methods may be called from any thread.

    Args:
        model: a path that this machine and every node have, or the model's content as bytes, which travels to each node once.
        address: of the cluster: "auto", or what `ray.init` takes. A program that has called `ray.init` keeps its connection.
        nodes: node ids, host names or addresses; None: all nodes with NPUs or GPUs, or, if there are none, with processors.
            Nodes that join later are used as well.
        devices: the device ids to use on each node; None: all that Ray lets the actor see.
        chunk: items in a chunk; None: as many as are 20 ms of a node's work, and at least one for each of its devices.
        max_node_failures: a node whose actor fails more often than this in a row is not started again.
        reserve: the actor asks Ray for the node's devices, so that nobody else gets them.
        options: as for MultiDeviceSession: preprocess, postprocess, task_timeout and so on. They hold on each node.

    Raises ConfigError; WorkerStartError if no node gets ready.
    """

    def __init__(
        self,
        model: Any,
        *,
        address: str = "auto",
        nodes: Sequence[str] | None = None,
        devices: Any = None,
        chunk: int | None = None,
        max_node_failures: int = 3,
        reserve: bool = True,
        **options: Any,
    ) -> None:
        check_names(options, self._option_names())
        self._model = absolute(as_model(model))
        self._chunk = as_int("chunk", chunk, 1, optional=True)
        self._on_error = check_on_error(options.get("on_error", "raise"))
        if devices is not None:
            options["devices"] = list(as_device_ids(devices))
        # Wrong options, and a model that this machine has not, are found here, before anything is started.
        MultiDeviceSession(self._model, **options).close()
        options.pop("on_error", None)
        names = None if nodes is None else [str(node) for node in as_list("nodes", nodes, "node ids, host names or addresses")]
        failures = as_int("max_node_failures", max_node_failures, 0)
        self._connected = not ray.is_initialized()
        if self._connected:
            ray.init(address=address, log_to_driver=False)
        self._finishes = options.get("postprocess") is not None
        self._driver = Driver(self._model, options, names, as_bool("reserve", reserve), failures)
        self._started = False
        self._closed = False

    @classmethod
    def _option_names(cls) -> list[str]:
        return [*known_options(ClusterSession), *MultiDeviceSession._option_names()]

    # ---- life ----

    def start(self) -> None:
        """Load the model on all nodes, and wait until each is ready or known not to be. Raises WorkerStartError."""
        if self._closed:
            raise PoolClosed("the session is closed")
        if not self._started:
            self._driver.start(START_LIMIT_S)
            self._started = True

    def close(self, *, force: bool = False, **unknown: NoReturn) -> None:
        """End the actors and their workers. Accepted work finishes first, unless `force`. May be called again."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.close)
        if self._closed:
            return
        self._closed = True
        self._driver.stop(force=force)

    def __enter__(self) -> ClusterSession:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        self.close(force=kind is not None)

    def __reduce__(self) -> tuple[Any, ...]:
        raise no_copies("a ClusterSession", "make one where it is needed")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._driver.ready())} nodes ready" if self._started else "not started"
        return f"<ClusterSession: {state}>"

    @property
    def devices(self) -> list[tuple[str, int]]:
        """The devices in use, as (node id, device id)."""
        self.start()
        return [(node.id, device) for node in self._driver.ready() for device in node.devices]

    def get_inputs(self) -> list[tensor_desc]:
        """Describe the inputs. A node answers."""
        return [tensor_desc._from_native(native) for native in self._described()[0]]

    def get_outputs(self) -> list[tensor_desc]:
        """Describe the outputs."""
        return [tensor_desc._from_native(native) for native in self._described()[1]]

    def _described(self) -> Any:
        self.start()
        return next(node.model for node in self._driver.nodes() if node.model is not None)

    # ---- one set of feeds ----

    def infer(self, feeds: Any, mode: str = "static", *, device: tuple[str, int] | None = None, **unknown: NoReturn) -> Any:
        """Run one set of feeds on any node, or on the device (node id, device id), and return its outputs."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer)
        return self.submit(feeds, device, mode=mode).result()

    def submit(
        self,
        feeds: Any,
        device: tuple[str, int] | None = None,
        timeout: float | None = None,
        mode: str = "static",
        **unknown: NoReturn,
    ) -> Future[Any]:
        """Run one set of feeds and return a future of its outputs.

        `timeout`: seconds until the future fails with TaskTimeout. Cancelling frees what has not been sent to a node.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.submit)
        scatter.mode_number(mode)
        as_seconds("timeout", timeout, optional=True)
        self.start()
        node = None if device is None else self._node(device)
        order = Order(mode, None if device is None else device[1])
        chunk = Chunk(0, [_taken(feeds)], order, Waiting(), None if node is None else node.number)
        result = _ChunkFuture(self, chunk)
        result.begin(timeout)
        return result

    def _node(self, device: tuple[str, int]) -> Node:
        for node in self._driver.ready():
            if node.id == device[0] and device[1] in node.devices:
                return node
        raise ConfigError(f"device must be one of {self.devices}, got {device!r}")

    async def infer_async(
        self,
        feeds: Any,
        device: tuple[str, int] | None = None,
        timeout: float | None = None,
        mode: str = "static",
        **unknown: NoReturn,
    ) -> Any:
        """The same for asyncio: `await session.infer_async(feeds)`."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer_async)
        loop = asyncio.get_running_loop()
        if not self._started:
            await loop.run_in_executor(None, self.start)
        return await asyncio.wrap_future(self.submit(feeds, device, timeout, mode))

    # ---- many ----

    def map(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        **unknown: NoReturn,
    ) -> Iterator[Any]:
        """Run every item of any iterable, an endless one too, and yield the outputs in order.

        `details`: yield (outputs, Item) instead; `device_id` of the item is (node id, device id). With on_error="return" an
        error stands in the place of the outputs. `error.index` is the item's place in the whole stream.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.map)
        return self._results(iterable, mode, on_error, details=details, ordered=True)

    def map_unordered(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        **unknown: NoReturn,
    ) -> Iterator[tuple[Any, Any]]:
        """The same, but yield (index, outputs), or (outputs, Item) with `details`, as chunks finish."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.map_unordered)
        return self._results(iterable, mode, on_error, details=details, ordered=False)

    def infer_batch(
        self,
        arrays: Any,
        batch_size: int | None = None,
        mode: str = "static",
        *,
        batch_axis: Any = None,
        **unknown: NoReturn,
    ) -> list[NDArray[Any]]:
        """Run a whole data set, split along axis 0 over all devices, and return whole arrays: see MultiDeviceSession."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer_batch)
        inputs, outputs = self.get_inputs(), self.get_outputs()
        kind, gears = self._described()[2]
        data = scatter.as_data_set(arrays, inputs, [native[0] for native in self._described()[7]])
        samples = data.samples
        batches = sorted(gear[0] for gear in gears) if kind == "dymbatch" else []
        size, pad = scatter.batch_size_for(data.inputs, batch_size, samples, len(self.devices), batches)
        axes = gather.BatchAxes(data.inputs, outputs, batch_axis, declared=not self._finishes)
        if samples == 0:
            return gather.no_samples(outputs)
        runs = self.map(data.runs(size, pad), mode, on_error="raise")
        return gather.whole_arrays(runs, samples, size, pad, outputs, axes)

    def _results(
        self, iterable: Iterable[Any], mode: str, on_error: OnError | None, *, details: bool, ordered: bool
    ) -> Iterator[Any]:
        scatter.mode_number(mode)
        returns = check_on_error(self._on_error if on_error is None else on_error) == "return"
        items, details = as_iterable("iterable", iterable, "items"), as_bool("details", details)
        self.start()
        return self._stream(iter(items), Order(mode), returns, details=details, ordered=ordered)

    def _stream(self, items: Iterator[Any], order: Order, returns: bool, *, details: bool, ordered: bool) -> Iterator[Any]:
        stream = _Stream(self._driver, items, order, self._chunk)
        try:
            while (chunk := stream.next(ordered)) is not None:
                for index, outputs, item in _answers(chunk):
                    if isinstance(outputs, BaseException) and not returns:
                        raise outputs
                    if details:
                        yield outputs, item
                    else:
                        yield outputs if ordered else (index, outputs)
        finally:
            stream.close()

    # ---- times ----

    def report(self) -> ClusterReport:
        """Counts and times since the start or the last reset: of each node and device, and in all."""
        reports: dict[str, Report] = {}
        for name, report in self._of_each("report"):
            reports[name] = report
        totals = [report.total for report in reports.values()]
        return ClusterReport(
            reports,
            sum(total.tasks for total in totals),
            sum(total.failures for total in totals),
            sum(total.throughput_per_s for total in totals),
        )

    def reset_summaryinfo(self) -> None:
        """Start `report()` anew."""
        list(self._of_each("reset"))

    def _of_each(self, method: str) -> Iterator[tuple[str, Any]]:
        """What a method of each node's actor returns. A node that does not answer is left out."""
        self.start()
        asked = self._driver.ask(
            lambda: [(node.id, getattr(node.actor, method).remote()) for node in self._driver.ready() if node.actor is not None]
        )
        for name, reference in asked:
            with contextlib.suppress(ray.exceptions.RayError):
                yield name, ray.get(reference, timeout=10)


class _Stream:
    """One iterable on its way through the driver. For one thread."""

    def __init__(self, driver: Driver, items: Iterator[Any], order: Order, chunk: int | None) -> None:
        self._driver, self._items, self._order, self._chunk = driver, items, order, chunk
        self._waiting = Waiting()
        self._under_way: deque[Chunk] = deque()
        self._next = 0
        self._ended = False
        self._error: BaseException | None = None  # of the iterable

    def next(self, ordered: bool) -> Chunk | None:
        """The next chunk that is done; None at the end. Raises what the iterable raised, after what came before it."""
        while True:
            ready = self._ready(ordered)
            if ready is not None:
                return ready
            # What is due never waits for this limit: it is under way, and runs again if its node is lost.
            if not self._ended and len(self._under_way) < self._driver.room():
                self._draw()
                continue
            if not self._under_way:
                if self._error is not None:
                    raise self._error
                return None
            with self._waiting.changed:
                if self._ready_place(ordered) is None:
                    self._waiting.changed.wait(STALL_S)
            if not self._driver.alive() and self._ready_place(ordered) is None:
                raise PoolClosed("the session was closed")

    def _ready_place(self, ordered: bool) -> int | None:
        for place, chunk in enumerate(self._under_way):
            if chunk.finished():
                return place
            if ordered:
                break
        return None

    def _ready(self, ordered: bool) -> Chunk | None:
        place = self._ready_place(ordered)
        if place is None:
            return None
        chunk = self._under_way[place]
        del self._under_way[place]
        return chunk

    def _draw(self) -> None:
        size = self._chunk or self._driver.chunk_size(WORK_S)
        items: list[Any] = []
        until = None
        while len(items) < size and (until is None or time.monotonic() < until):
            try:
                items.append(next(self._items))
            except StopIteration:
                self._ended = True
                break
            except Exception as error:
                self._ended, self._error = True, error
                break
            until = time.monotonic() + PATIENCE_S if until is None else until
        if items:
            chunk = Chunk(self._next, [_taken(item) for item in items], self._order, self._waiting)
            self._next += len(items)
            self._under_way.append(chunk)
            self._driver.submit(chunk)

    def close(self) -> None:
        """Forget what is under way."""
        left = [chunk for chunk in self._under_way if not chunk.finished()]
        self._under_way.clear()
        if left and self._driver.alive():
            self._driver.cancel(left)


class _ChunkFuture(Future[Any]):
    """The outputs of a chunk of one item."""

    def __init__(self, session: ClusterSession, chunk: Chunk) -> None:
        super().__init__()
        self._session, self._chunk = session, chunk
        self._timer: Any = None

    def begin(self, timeout: float | None) -> None:
        """Have the chunk run."""
        import threading

        inner: Future[Any] = Future()
        inner.add_done_callback(self._settle)
        self._chunk.future = inner
        self._session._driver.submit(self._chunk)
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._too_late, (timeout,))
            self._timer.daemon = True
            self._timer.start()

    def _settle(self, inner: Future[Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            error = inner.exception()
            if error is not None:
                self.set_exception(error)
                return
            ((_, outputs, _),) = _answers(self._chunk)
            if isinstance(outputs, BaseException):
                self.set_exception(outputs)
            else:
                self.set_result(outputs)

    def _too_late(self, timeout: float) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.set_exception(TaskTimeout(f"the task was not done within {timeout:g} seconds"))
            self._session._driver.cancel([self._chunk])

    def cancel(self) -> bool:
        """Cancel it, unless its result is there."""
        cancelled = super().cancel()
        if cancelled:
            self._session._driver.cancel([self._chunk])
        return cancelled


def _answers(chunk: Chunk) -> Iterator[tuple[int, Any, Item]]:
    """(index, outputs or exception, Item) of each item of a chunk that is done."""
    for leaf in chunk.leaves():
        if leaf.error is not None:
            for place in range(len(leaf.items)):
                index = leaf.first + place
                yield index, rename_task(_copy(leaf.error), index), Item(index, None, None)
            continue
        assert leaf.outcomes is not None
        for place, outcome in enumerate(leaf.outcomes):
            index = leaf.first + place
            yield index, _outputs(outcome, index), _item(outcome, index, leaf.where)


def _outputs(outcome: Outcome, index: int) -> Any:
    if outcome.error is not None:
        return rename_task(loads_error(outcome.error), index)
    outputs = outcome.outputs
    # Ray gives arrays that lie in its store and cannot be written to; whoever keeps them would keep the store's memory.
    if isinstance(outputs, list):
        return [
            np.array(output) if isinstance(output, np.ndarray) and not output.flags.writeable else output for output in outputs
        ]
    return outputs


def _item(outcome: Outcome, index: int, node: str) -> Item:
    if outcome.item is None:
        return Item(index, None, None)
    item = Item(*outcome.item)
    device: Any = None if item.device_id is None else (node, item.device_id)
    return item._replace(index=index, device_id=device)


def _copy(error: BaseException) -> BaseException:
    """One for each item that it is the error of."""
    try:
        made = type(error)(*error.args)
    except Exception:  # its class wants other arguments than those it keeps
        made = AisBenchError(f"{type(error).__name__}: {error}")
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made


def _taken(item: Any) -> Any:
    """The item as it is now: its source may use the buffers again."""
    if isinstance(item, np.ndarray):
        return np.array(item)
    if isinstance(item, (list, tuple)) and any(isinstance(part, np.ndarray) for part in item):
        return [np.array(part) if isinstance(part, np.ndarray) else part for part in item]
    if isinstance(item, Mapping) and any(isinstance(part, np.ndarray) for part in item.values()):
        return {name: np.array(part) if isinstance(part, np.ndarray) else part for name, part in item.items()}
    return item
