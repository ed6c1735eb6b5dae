"""preprocess in separate CPU workers, before the devices: the parent's side.

item -> task for a CPU worker -> PreparedItem (feeds, or why there are none) -> task for a device
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from ais_bench import _native
from ais_bench.errors import DeviceMemoryError, FeedError
from ais_bench.one_device.feeds import to_array
from ais_bench.pool import DevicePool, PoolSettings, Task
from ais_bench.session.chained import Chained
from ais_bench.session.item import Keyed
from ais_bench.session.run_feeds import as_feeds, by_name
from ais_bench.wire import OBJECT, TENSORS, decode, encode
from ais_bench.wire.carry import LENT
from ais_bench.wire.factories import Named, PreprocessFactory, read_header
from ais_bench.wire.lent import lend
from ais_bench.wire.parcel import Packed

if TYPE_CHECKING:
    from ais_bench.one_device.descriptors import tensor_desc


class PreparedItem(NamedTuple):
    """The result of a CPU worker for one item."""

    arrays: list[Any]  # the feeds, then the arrays of Carry's extra
    feeds: int  # how many of the arrays are feeds
    carries: bool
    lent: list[Any] | None = None  # how the arrays travel, if some stay in the CPU worker's memory
    key: Any = None
    error: Exception | None = None
    named: Named | None = None  # in place of the arrays, if only names identify the feeds
    failed: tuple[int, int] = (0, 0)  # attempts of CPU workers: how often preprocess raised, and how often a worker died

    def task(self, index: int | None, mode: int, device: int | None) -> Task:
        """Return the task for a device. If preprocess has failed, the task has failed, too."""
        if self.error is not None:
            return Task.failed(self.error, index, device, self.key, self.failed)
        if self.named is not None:
            return Task(encode(self.named), mode, OBJECT, 0, device, index, self.key, failed_before=self.failed)
        option = (self.feeds + 1 if self.carries else 0) | (LENT if self.lent is not None else 0)
        arrays = self.arrays if self.lent is None else self.lent
        return Task(arrays, mode, TENSORS, option, device, index, self.key, self.arrays, self.failed)


class Preprocessing:
    """The CPU workers of one session. Any thread may call its methods."""

    def __init__(self, callables: Packed, workers: int, settings: PoolSettings, *, carries: bool) -> None:
        """Make the pool of CPU workers. `carries`: whether a postprocess needs the extra of Carry."""
        self._carries = carries
        self.lends = False  # whether the devices' workers can read feeds in a CPU worker's memory
        self.overridable: list[str] = []  # names of the model's constants that feeds may override
        self._pool = DevicePool(PreprocessFactory(callables), range(workers), settings, called="preprocess worker")
        self._pool.share_arenas()
        self.start = self._pool.start
        self.close = self._pool.close
        self.workers = self._pool.workers
        self.device_infos = self._pool.device_infos
        self.wall_s = self._pool.wall_s
        self.reset_times = self._pool.reset_times

    def one(self, item: Any, inputs: list[tensor_desc]) -> PreparedItem:
        """Prepare one item. Raises the errors of preprocess."""
        prepared = self._prepared(self._pool.run(_task(item, None)), inputs)
        if prepared.error is not None:
            raise prepared.error
        return prepared

    def stream(self, items: Iterable[Any], inputs: list[tensor_desc]) -> Iterator[PreparedItem]:
        """Yield each prepared item, in order, as soon as it is ready."""
        return (self._prepared(task, inputs) for task in self._pool.ordered(items, _task))

    def submit(
        self,
        item: Any,
        inputs: list[tensor_desc],
        then: Callable[[PreparedItem, float | None], Future[Any]],
        timeout: float | None,
    ) -> Future[Any]:
        """Return a future of `then` of the prepared item, with the seconds that are left at that time."""
        began_ns = _native.monotonic_ns()
        task = _task(item, None)

        def go_on(first: Future[Any]) -> None:
            try:
                first.result()
                left = None if timeout is None else max(1e-6, timeout - (_native.monotonic_ns() - began_ns) / 1e9)
                both.follow(then(self._prepared(task, inputs), left))
            except Exception as error:  # CancelledError, too: then no caller waits any more
                both.fail(error)

        both = Chained()
        both.follow_first(self._pool.submit(task, timeout=timeout), go_on)
        return both

    def _prepared(self, task: Task, inputs: list[tensor_desc]) -> PreparedItem:
        failed = task.faults, task.crashes
        try:
            header, *arrays = task.result()
            made = read_header(header)
            feeds, extra = arrays[: made.feeds], arrays[made.feeds :] if self._carries else []
            given: Any = feeds[0] if made.bare else feeds
            if made.names is not None:
                given = dict(zip(made.names, feeds, strict=True))
            for place in made.absent:
                given.insert(place, None)
            named = by_name(given, inputs, self.overridable)
            if named is not None:
                carried = (decode(extra),) if extra else ()
                return PreparedItem([], 0, False, None, task.key, named=Named(named, carried), failed=failed)
            feeds = list(as_feeds(given, inputs))
            for desc, one in zip(inputs, feeds, strict=False):
                if one is None:
                    to_array(one, f"input {desc.name!r}")  # raises
            arrays = [*feeds, *extra]
            lent = lend(arrays, self._pool.place_of) if self.lends else None
            return PreparedItem(arrays, len(feeds), bool(extra), lent, task.key, failed=failed)
        except Exception as error:
            failed = failed[0] + task.started, failed[1]
            return PreparedItem([], 0, False, None, task.key, _naming_input(error, inputs), failed=failed)


def _naming_input(error: Exception, inputs: list[tensor_desc]) -> Exception:
    """Return an error of a CPU worker with the input's name in place of its number: the worker does not know the model."""
    found = re.match(r"input (\d+) ", str(error)) if isinstance(error, (FeedError, DeviceMemoryError)) else None
    if found is not None and int(found[1]) < len(inputs):
        error.args = (f"input {inputs[int(found[1])].name!r} {error.args[0][found.end() :]}", *error.args[1:])
    return error


def _task(item: Any, index: int | None) -> Task:
    key = None
    if type(item) is Keyed:
        key, item = item
    return Task(encode(item), 0, OBJECT, 0, None, index, key)
