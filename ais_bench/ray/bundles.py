"""Items that are sent to a node, and results that come back, as bytes.

As between a session and its workers, ais_bench.wire.travel decides what is sent by name and what by value: a class of the
program is the same class when it comes back. Small objects are sent as bytes. Large objects are put into Ray's object store
once, for any number of nodes.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from ais_bench.tuning import FETCH_S, RAY_OUT_OF_BAND_BYTES, STORED_BYTES
from ais_bench.wire import travel

__all__ = ["Bundle", "BundleOrRef", "pack", "pack_item", "unpack", "unpack_items"]


class Bundle(NamedTuple):
    """A pickle, and its out-of-band buffers."""

    data: bytes
    buffers: list[Any]

    def size(self) -> int:
        """The total number of bytes."""
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


BundleOrRef = Any  # Bundle, or the reference to one in Ray's store


def pack(value: Any) -> Bundle:
    """Return the value as bytes. Large arrays are not copied. Raises errors of pickling."""
    buffers: list[pickle.PickleBuffer] = []

    def begin() -> Any:
        buffers.clear()

        def keep(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < RAY_OUT_OF_BAND_BYTES:
                return True
            buffers.append(buffer)
            return False

        return keep

    return Bundle(travel.dump(value, begin), list(buffers))


def pack_item(item: Any) -> tuple[BundleOrRef, int]:
    """Return a copy of an item, so that its source may reuse its buffers, and its size in bytes. Raises errors of pickling."""
    bundle = pack(item)
    size = bundle.size()
    if size > STORED_BYTES and ray.is_initialized():  # if the program has left the cluster, the driver reports it
        return ray.put(bundle), size
    return Bundle(bundle.data, [bytes(memoryview(buffer)) for buffer in bundle.buffers]), size


def unpack(bundle: Bundle, *, writable: bool = False) -> Any:
    """Return the unpickled value. Its large arrays are in the bundle's memory, unless they must be `writable`."""
    buffers: list[Any] = [bytearray(buffer) for buffer in bundle.buffers] if writable else bundle.buffers
    return travel.loads(bundle.data, buffers)


def unpack_items(bundles: Sequence[BundleOrRef]) -> list[tuple[Any, Exception | None]]:
    """Return (item, None) of each item, on a node; (None, exception) for an item that cannot be unpickled.

    Raises Ray's errors for lost objects, and for objects that do not arrive in time.
    """
    stored = [bundle for bundle in bundles if isinstance(bundle, ray.ObjectRef)]
    fetched = iter(ray.get(stored, timeout=FETCH_S) if stored else [])
    items: list[tuple[Any, Exception | None]] = []
    for given in bundles:
        bundle = next(fetched) if isinstance(given, ray.ObjectRef) else given
        try:
            items.append((unpack(bundle), None))
        except Exception as error:
            items.append((None, error))
    return items
