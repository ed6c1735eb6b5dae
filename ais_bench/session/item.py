"""The details of an item from `map(..., details=True)`, and items with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ais_bench.pool import Task

__all__ = ["Item", "Keyed"]


class Keyed(NamedTuple):
    """An item and a key by which the caller identifies it, such as a file name. `Item.key` returns it; nothing else uses it."""

    key: Any
    feeds: Any


class Item(NamedTuple):
    """The device and the times of one item. Times are 0 if the item has no answer: it was refused, or lost with its worker.

    The stages in their order: queued, copied in, preprocessed, executed, postprocessed, copied out.

    Attributes:
        index: position among the items, from 0.
        key: the key of a `Keyed` item, otherwise None.
        device_id: the device that answered, or failed last; None if no device ever had the item.
        started_ns: `time.monotonic_ns()` when the worker took the item.
        queued_ms: time from handing the item to the pool until the worker took it, without copying.
        copy_in_ms: time of the copies into shared memory and to the device.
        execute_ms: time on the device.
        copy_out_ms: time of the copies from the device and out of shared memory.
        end_to_end_ms: time from the first copy of the feeds until the caller has the outputs.
        preprocess_ms: time of the session's `preprocess`.
        postprocess_ms: time of the session's `postprocess`.
        attempts: how often workers began the item; more than 1 after a worker died, a device failed, or a callable raised one
            of `retry_on`. Attempts of the `preprocess_workers` that failed count, too.
        done_ns: `time.monotonic_ns()` when the worker published the outputs.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    key: Any
    device_id: int | None
    started_ns: int = 0
    queued_ms: float = 0.0
    copy_in_ms: float = 0.0
    execute_ms: float = 0.0
    copy_out_ms: float = 0.0
    end_to_end_ms: float = 0.0
    preprocess_ms: float = 0.0
    postprocess_ms: float = 0.0
    attempts: int = 0
    done_ns: int = 0


def item_of(task: Task) -> Item:
    """Return the details of a task that is done. The task must have an `index`."""
    assert task.index is not None
    failed = task.crashes + task.faults + task.lost_before
    if not task.started:
        device = task.ran_on if task.ran_on is not None else getattr(task.error, "device_id", None)
        return Item(task.index, task.key, device, attempts=failed)
    started_ns, done_ns, queued, copy_in, execute, copy_out, end_to_end, preprocess, postprocess = task.details()
    return Item(
        task.index,
        task.key,
        task.ran_on,
        started_ns,
        queued / 1e6,
        copy_in / 1e6,
        execute / 1e6,
        copy_out / 1e6,
        end_to_end / 1e6,
        preprocess / 1e6,
        postprocess / 1e6,
        failed + 1,
        done_ns,
    )
