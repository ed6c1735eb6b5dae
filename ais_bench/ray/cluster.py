"""ClusterSession: one model on all nodes of a Ray cluster, each with a MultiDeviceSession over its devices.

items -> chunks -> driver -> a node's actor -> MultiDeviceSession -> outcomes -> driver -> results in order
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import ray

from ais_bench.errors import AisBenchError, ConfigError, PoolClosed, no_copies, rename_task
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.picking import picker
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
from ais_bench.pool import PoolSettings, WorkerInfo
from ais_bench.ray.bundles import BundleOrRef, pack, pack_item, unpack
from ais_bench.ray.chunks import Chunk, ChunkWaiter, ItemOutcome, Order
from ais_bench.ray.connection import connect
from ais_bench.ray.driver import Driver, DriverWatch
from ais_bench.ray.nodes import Settings
from ais_bench.session import Item, MultiDeviceSession, batching, run_feeds
from ais_bench.session.own_process import OwnProcess
from ais_bench.tuning import LARGEST_CHUNK, PATIENCE_S, PROCESS_START_S, REPORT_S, TICK_S, WORK_S
from ais_bench.wire.pickling import loads_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ais_bench.session.report import Counts, Report

__all__ = ["ClusterReport", "ClusterSession"]


@dataclass(frozen=True)
class ClusterReport:
    """A `Report` of each node, and the counts of all nodes.

    Attributes:
        nodes: {node id: Report}.
        tasks, failures: the sums over all nodes.
        throughput_per_s: successful tasks per second, summed over the nodes.
    """

    nodes: dict[str, Report]
    tasks: int
    failures: int
    throughput_per_s: float

    @property
    def devices(self) -> dict[str, Counts]:
        """Return the counts of each device, by "node id/device id"."""
        return {f"{name}/{id}": counts for name, report in self.nodes.items() for id, counts in report.devices.items()}

    @property
    def workers(self) -> list[WorkerInfo]:
        """Return the workers of all nodes, with the device names of `devices`."""
        lines = [(name, line) for name, report in self.nodes.items() for line in report.workers]
        return [replace(line, device=f"{name}/{line.device}") for name, line in lines]  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of numbers and texts."""
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

    An actor on each node holds a MultiDeviceSession. Items are sent in chunks. If a node is lost, its chunks run on other
    nodes. Results come in order, and each comes once. An item may be executed more than once. A chunk that is lost with two
    nodes is split, and an item that is lost with two more nodes fails alone, with WorkerDied. Methods may be called from any
    thread.

    Args:
        model: a path that exists on this machine and on every node, or the model's content as bytes, which is sent to each node
            once.
        address: the address of the cluster: "auto", or what `ray.init` takes. A program that has called `ray.init` keeps its
            connection.
        nodes: node ids, host names or addresses; None: all nodes with NPUs or GPUs, or, if there are none, with processors.
            Nodes that join later are used as well.
        devices: the device ids to use on each node; None: all devices that the actor sees.
        chunk: number of items in a chunk; None: 20 ms of a node's work, and at least one item for each of its devices.
        max_node_failures: if a node's actor fails more often than this in a row, the actor is not restarted.
        reserve: whether the actor reserves the node's devices in Ray, so that no other job gets them.
        options: as for MultiDeviceSession: preprocess, postprocess, task_timeout and so on. They apply on each node.

    Raises ConfigError and ModelLoadError before anything is started. Calls raise the errors of MultiDeviceSession, and
    WorkerStartError if no node becomes ready.
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
        names = None if nodes is None else [str(node) for node in as_list("nodes", nodes, "node ids, host names or addresses")]
        if names == []:
            raise ConfigError("nodes must name at least one node, or be None for all, got []")
        failures = as_int("max_node_failures", max_node_failures, 0)
        reserve = as_bool("reserve", reserve)
        asked = None if devices is None else as_device_ids(devices)
        if asked is not None:
            options["devices"] = list(asked)
        # This finds wrong options, and a model that this machine does not have, before anything is started.
        MultiDeviceSession(self._model, **options).close()
        options.pop("on_error", None)
        limits = [options.get(name, getattr(PoolSettings(), name)) for name in ("start_timeout", "close_timeout")]
        connect(address)
        self._settings = Settings(pack(options), names, asked, reserve, failures, *limits)
        self._finishes = options.get("postprocess") is not None
        self._process = OwnProcess()
        self._making = threading.RLock()  # guards making the driver
        self._made: Driver | None = None
        self._ending: Any = None  # ends the driver if there is no reference to the session any more
        self._started = False
        self._closed = False

    @classmethod
    def _option_names(cls) -> list[str]:
        return [*known_options(ClusterSession), *MultiDeviceSession._option_names()]

    # ---- life ----

    @property
    def _driver(self) -> Driver:
        """Return the driver. Raises SessionClosed in a forked child, PoolClosed after `close`."""
        self._process.check()
        with self._making:
            if self._closed:
                raise PoolClosed("the session is closed")
            if self._made is None:
                self._made = Driver(self._model, self._settings)
                self._ending = weakref.finalize(self, self._made.stop, force=True, wait=False)
                self._ending.atexit = False  # the driver's module ends it
            return self._made

    def start(self) -> None:
        """Load the model on all nodes, and wait until each node is ready or has failed.

        If other nodes are ready, it does not wait for a node whose devices another job has reserved. It may be called again
        after an error. Raises WorkerStartError if no node becomes ready, ConfigError if the cluster or a node does not exist,
        PoolClosed after `close`, and SessionClosed in a forked child.
        """
        driver = self._driver
        if self._started:
            return
        try:
            with self._making:
                driver.start(self._settings.start_timeout + PROCESS_START_S + 10)
        except Exception:
            driver.stop(force=True)
            with self._making:
                if self._made is driver and not self._closed:
                    self._made = None
            raise
        self._started = True

    def close(self, *, force: bool = False, **unknown: NoReturn) -> None:
        """End the actors and their workers. Accepted work finishes first, for at most `close_timeout` seconds. Idempotent.

        `force`: do not wait; unfinished tasks fail with PoolClosed. May be called from any thread, and from the callback of a
        future. Raises ConfigTypeError for an unknown argument.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.close)
        self._closed = True
        if self._process.is_here() and self._made is not None:
            self._made.stop(force=force)

    def __enter__(self) -> ClusterSession:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        self.close(force=kind is not None)

    async def __aenter__(self) -> ClusterSession:
        await asyncio.get_running_loop().run_in_executor(None, self.start)
        return self

    async def __aexit__(self, kind: object, _error: object, _traceback: object) -> None:
        force = kind is not None
        await asyncio.get_running_loop().run_in_executor(None, lambda: self.close(force=force))

    def __reduce__(self) -> tuple[Any, ...]:
        raise no_copies("a ClusterSession", "make one where it is needed")

    def __repr__(self) -> str:
        ready = f"{len(self._made.ready())} nodes ready" if self._made is not None and self._started else "not started"
        state = "closed" if self._closed else ready
        return f"<ClusterSession: {state}>"

    @property
    def devices(self) -> list[tuple[str, int]]:
        """The devices in use, as (node id, device id). Raises the errors of `start`."""
        self.start()
        return [(node.id, device) for node in self._driver.ready() for device in node.devices]

    def get_inputs(self) -> list[tensor_desc]:
        """Return a description of the inputs. A node answers. Raises the errors of `start`."""
        return [tensor_desc._from_native(native) for native in self._described()[0]]

    def get_outputs(self) -> list[tensor_desc]:
        """Return a description of the outputs. Raises the errors of `start`."""
        return [tensor_desc._from_native(native) for native in self._described()[1]]

    def _described(self) -> Any:
        self.start()
        return next(node.model for node in self._driver.nodes() if node.model is not None)

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...] | None:
        """Return the checked names of the wanted outputs. Raises FeedError for an unknown name, ConfigError."""
        if outputs is None:
            return None
        if self._finishes:
            raise ConfigError("outputs must be None if there is a postprocess, which is given all of them")
        picker(outputs, [desc.name for desc in self.get_outputs()])
        return tuple(outputs)

    # ---- one set of feeds ----

    def infer(
        self,
        feeds: Any,
        mode: str = "static",
        *,
        device: tuple[str, int] | None = None,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run one set of feeds on any node, or on the device (node id, device id), and return its outputs.

        Raises the errors of `start`, ConfigError for an unknown device, the task's error, WorkerDied, TaskTimeout, PoolBroken.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer)
        return self.submit(feeds, device, mode=mode, outputs=outputs).result()

    def submit(
        self,
        feeds: Any,
        device: tuple[str, int] | None = None,
        timeout: float | None = None,
        mode: str = "static",
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Future[Any]:
        """Run one set of feeds and return a future of its outputs. The feeds may be reused at once.

        `timeout`: seconds until the future fails with TaskTimeout. A cancelled task that was not sent to a node does not run.
        Raises the errors of `start`, and ConfigError for an unknown device. `result()` raises all other errors.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.submit)
        run_feeds.mode_number(mode)
        as_seconds("timeout", timeout, optional=True)
        self.start()
        number, id = (None, None) if device is None else self._place_of(device)
        bundle, _size = pack_item(feeds)
        chunk = Chunk(0, [bundle], Order(mode, id, self._wanted(outputs)), ChunkWaiter(), number)
        result = _ChunkFuture(self, self._driver, chunk)
        self._driver.submit(chunk, timeout)
        return result

    def _place_of(self, device: Any) -> tuple[int, int]:
        """Return the number of a device's node, and the device's id on that node. Raises ConfigError."""
        for node in self._driver.ready():
            for id in node.devices:
                if (node.id, id) == device:
                    return node.number, id
        raise ConfigError(f"device must be one of {self.devices}, got {device!r}")

    async def infer_async(
        self,
        feeds: Any,
        device: tuple[str, int] | None = None,
        timeout: float | None = None,
        mode: str = "static",
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run one set of feeds from asyncio: `await session.infer_async(feeds)`. Raises the errors of `infer`."""
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer_async)
        if not self._started:
            await asyncio.get_running_loop().run_in_executor(None, self.start)
        return await asyncio.wrap_future(self.submit(feeds, device, timeout, mode, outputs=outputs))

    # ---- many ----

    def map(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Iterator[Any]:
        """Run every item of any iterable, which may be endless, and yield the outputs in order.

        `details`: yield (outputs, Item) instead; `device_id` of the Item is (node id, device id). With on_error="return" an
        error takes the place of the outputs. `error.index` is the item's position in the whole stream. `outputs`: names of the
        outputs to return.

        Raises the errors of `start`, ConfigError, an item's error unless on_error="return", and any error of the iterable.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.map)
        return self._results(iterable, mode, on_error, outputs, details=details, ordered=True)

    def map_unordered(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Iterator[tuple[Any, Any]]:
        """Like `map`, but yield (index, outputs), or (outputs, Item) with `details`, as chunks finish.

        Raises the errors of `map`.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.map_unordered)
        return self._results(iterable, mode, on_error, outputs, details=details, ordered=False)

    def infer_batch(
        self,
        arrays: Any,
        batch_size: int | None = None,
        mode: str = "static",
        *,
        batch_axis: Any = None,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> list[NDArray[Any]]:
        """Run a whole data set, split along axis 0 over all devices, and return whole arrays: see MultiDeviceSession.

        Raises the errors of `map`, and FeedError if the arrays do not fit each other or the model.
        """
        if unknown:
            raise unknown_argument(unknown, ClusterSession.infer_batch)
        inputs, every = self.get_inputs(), self.get_outputs()
        names = self._wanted(outputs)
        wanted: list[tensor_desc] = picker(names, [desc.name for desc in every])(every)
        kind, gears = self._described()[2]
        data = batching.as_data_set(arrays, inputs, [native[0] for native in self._described()[7]])
        batches = sorted(gear[0] for gear in gears) if kind == "dymbatch" else []
        size = batching.batch_size_for(data.inputs, batch_size, data.samples, len(self.devices), batches)

        def run(sets: Iterator[Any]) -> Iterator[Any]:
            return self.map(sets, mode, on_error="raise", outputs=names)

        return batching.infer_whole(run, data, wanted, batch_axis, size, finishes=self._finishes)

    def _results(
        self,
        iterable: Iterable[Any],
        mode: str,
        on_error: OnError | None,
        outputs: Sequence[str] | None,
        *,
        details: bool,
        ordered: bool,
    ) -> Iterator[Any]:
        run_feeds.mode_number(mode)
        returns = check_on_error(self._on_error if on_error is None else on_error) == "return"
        items, details = as_iterable("iterable", iterable, "items"), as_bool("details", details)
        self.start()
        order = Order(mode, None, self._wanted(outputs))
        return self._stream(iter(items), order, returns, details=details, ordered=ordered)

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
        """Return counts and times since the start or the last reset: of each node and device, and in total.

        Raises the errors of `start`.
        """
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
        """Restart the counts of `report()`. Raises the errors of `start`."""
        list(self._of_each("reset"))

    def _of_each(self, method: str) -> Iterator[tuple[str, Any]]:
        """Yield the result of a method of each node's actor. A node that does not answer is left out."""
        self.start()
        driver = self._driver
        asked = driver.ask(lambda: [(node.id, getattr(node.actor, method).remote()) for node in driver.ready()])
        for name, reference in asked:
            with contextlib.suppress(ray.exceptions.RayError):
                yield name, ray.get(reference, timeout=REPORT_S)


class _Stream:
    """One iterable whose items go through the driver. Only one thread may use it."""

    def __init__(self, driver: Driver, items: Iterator[Any], order: Order, chunk: int | None) -> None:
        self._driver, self._items, self._order, self._chunk = driver, items, order, chunk
        self._waiting = ChunkWaiter()
        self._under_way: deque[Chunk] = deque()
        self._next = 0
        self._ended = False
        self._error: BaseException | None = None  # the error of the iterable
        self._took_s = 0.0  # time to read the last item of the iterable

    def next(self, ordered: bool) -> Chunk | None:
        """Return the next finished chunk; None at the end. An error of the iterable is raised after the earlier results."""
        watch = DriverWatch(self._driver)
        while True:
            ready = self._ready(ordered)
            if ready is not None:
                return ready
            # A due chunk never waits for this limit: it is in progress, and runs again if its node is lost.
            if not self._ended and len(self._under_way) < self._driver.room():
                self._draw()
                continue
            if not self._under_way:
                if self._error is not None:
                    raise self._error
                return None
            with self._waiting.changed:
                if self._ready_place(ordered) is None:
                    self._waiting.changed.wait(TICK_S)
            if self._ready_place(ordered) is None:
                watch.check()

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
        """Read the next items and send them as one chunk."""
        size = self._chunk or self._driver.chunk_size(WORK_S)
        bundles: list[BundleOrRef] = []
        total, until = 0, None
        # Do not wait for a slow source while there are items to send: its next item takes as long as the last one.
        while len(bundles) < size and total < LARGEST_CHUNK and (until is None or time.monotonic() + self._took_s < until):
            began = time.monotonic()
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
                break
            except Exception as error:
                self._ended, self._error = True, error
                break
            now = time.monotonic()
            self._took_s, until = now - began, now + PATIENCE_S if until is None else until
            try:
                bundle, size_of = pack_item(item)
            except Exception as error:  # this item cannot be sent; its error takes its place
                self._send(bundles)
                bundles, total, until = [], 0, None
                self._refused(error)
                break
            bundles.append(bundle)
            total += size_of
        self._send(bundles)

    def _send(self, bundles: list[BundleOrRef]) -> None:
        if bundles:
            chunk = Chunk(self._next, bundles, self._order, self._waiting)
            self._driver.submit(chunk)
            self._next += len(bundles)
            self._under_way.append(chunk)

    def _refused(self, error: Exception) -> None:
        self._under_way.append(Chunk(self._next, (), self._order, self._waiting, count=1, error=error, done=True))
        self._next += 1

    def close(self) -> None:
        """Cancel the chunks in progress."""
        left = [chunk for chunk in self._under_way if not chunk.finished()]
        self._under_way.clear()
        if left:
            self._driver.cancel(left)


class _ChunkFuture(Future[Any]):
    """The future of a chunk of one item. Its callbacks run in a separate thread, so they may call the session."""

    def __init__(self, session: ClusterSession, driver: Driver, chunk: Chunk) -> None:
        super().__init__()
        self._session: ClusterSession | None = session  # keeps the session until there is an answer
        self._driver, self._chunk = driver, chunk
        chunk.then = self._resolve

    def _resolve(self, chunk: Chunk) -> None:
        try:
            ((_, outputs, _),) = _answers(chunk)
        except Exception as error:  # no caller may wait without end
            outputs = error
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled
            if isinstance(outputs, BaseException):
                self.set_exception(outputs)
            else:
                self.set_result(outputs)
        self._session = None

    def cancel(self) -> bool:
        """Cancel the future and return True, or return False if it has a result."""
        cancelled = super().cancel()
        if cancelled:
            self._driver.cancel([self._chunk])
            with contextlib.suppress(RuntimeError):  # a second call
                self.set_running_or_notify_cancel()
        return cancelled

    def _invoke_callbacks(self) -> None:
        invoke = super()._invoke_callbacks  # type: ignore[misc]
        if not self._driver.calls.do(invoke):
            invoke()


def _answers(chunk: Chunk) -> Iterator[tuple[int, Any, Item]]:
    """Yield (index, outputs or exception, Item) of each item of a finished chunk."""
    for leaf in chunk.leaves():
        if leaf.error is not None:
            for place in range(leaf.count):
                index = leaf.first + place
                yield index, rename_task(_copy(leaf.error), index), Item(index, None, None)
            continue
        assert leaf.outcomes is not None
        for place, outcome in enumerate(leaf.outcomes):
            index = leaf.first + place
            yield index, _outputs(outcome, index), _item(outcome, index, leaf.where)


def _outputs(outcome: ItemOutcome, index: int) -> Any:
    if outcome.error is not None:
        return rename_task(loads_error(outcome.error), index)
    assert outcome.outputs is not None
    try:
        return unpack(outcome.outputs, writable=True)
    except Exception as error:  # an object of its class cannot be unpickled
        return rename_task(error, index)


def _item(outcome: ItemOutcome, index: int, node: str) -> Item:
    if outcome.item is None:
        return Item(index, None, None)
    try:
        item = Item(*unpack(outcome.item))
    except Exception:  # its key cannot be unpickled
        return Item(index, None, None)
    device: Any = None if item.device_id is None else (node, item.device_id)
    return item._replace(index=index, device_id=device)


def _copy(error: BaseException) -> BaseException:
    """Return a copy of an error, so that each item has its own."""
    try:
        made = type(error)(*error.args)
    except Exception:  # its class needs other arguments than those in `args`
        made = AisBenchError(f"{type(error).__name__}: {error}")
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made
