"""Items on their way to a node, and results on their way back, as bytes.

ais_bench.wire.travel decides what goes by name and what by value, as between a session and its workers: a class of the
program's own is the same class when it comes back. Small ones are bytes. Large ones are put into Ray's object store, once,
whichever and however many nodes get them.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from ais_bench.tuning import FETCH_S, RAY_OUT_OF_BAND_BYTES, STORED_BYTES
from ais_bench.wire import travel

__all__ = ["Packed", "Parcel", "pack", "pack_item", "unpack", "unpack_items"]


class Packed(NamedTuple):
    """A pickle, and the buffers that it left out."""

    data: bytes
    buffers: list[Any]

    def size(self) -> int:
        """Bytes in all."""
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


Parcel = Any  # Packed, or the reference to one in Ray's store


def pack(value: Any) -> Packed:
    """The value as bytes. Large arrays are not copied. Raises what pickling raises."""
    buffers: list[pickle.PickleBuffer] = []

    def begin() -> Any:
        buffers.clear()

        def keep(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < RAY_OUT_OF_BAND_BYTES:
                return True
            buffers.append(buffer)
            return False

        return keep

    return Packed(travel.dump(value, begin), list(buffers))


def pack_item(item: Any) -> tuple[Parcel, int]:
    """An item as it is now, whatever its source does with its buffers, and its size in bytes. Raises what pickling raises."""
    packed = pack(item)
    size = packed.size()
    if size > STORED_BYTES and ray.is_initialized():  # a program that has left the cluster is told so by the driver
        return ray.put(packed), size
    return Packed(packed.data, [bytes(memoryview(buffer)) for buffer in packed.buffers]), size


def unpack(packed: Packed, *, writable: bool = False) -> Any:
    """The value again. Its large arrays lie in the parcel's memory, unless they are to be `writable`."""
    buffers: list[Any] = [bytearray(buffer) for buffer in packed.buffers] if writable else packed.buffers
    return travel.loads(packed.data, buffers)


def unpack_items(parcels: Sequence[Parcel]) -> list[tuple[Any, Exception | None]]:
    """(item, None) of each, on a node; (None, exception) for one that cannot be made again.

    Raises what Ray raises for lost objects, and for those that do not come in time.
    """
    stored = [parcel for parcel in parcels if isinstance(parcel, ray.ObjectRef)]
    fetched = iter(ray.get(stored, timeout=FETCH_S) if stored else [])
    items: list[tuple[Any, Exception | None]] = []
    for parcel in parcels:
        packed = next(fetched) if isinstance(parcel, ray.ObjectRef) else parcel
        try:
            items.append((unpack(packed), None))
        except Exception as error:
            items.append((None, error))
    return items
