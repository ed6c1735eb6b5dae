"""Python objects as buffers that fit into a slot, and back.

An object becomes one pickle (protocol 5) and, out of band, the memory of its large arrays, which is copied once instead
of being pickled. ais_bench.wire.travel decides what is sent by value.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ais_bench.tuning import APART_BYTES, MOST_OUT_OF_BAND
from ais_bench.wire import travel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["decode", "encode"]


def encode(obj: object) -> list[npt.NDArray[np.uint8]]:
    """Return the buffers of one object, for `Lane.try_submit(..., kind=OBJECT)` or `Channel.reply(..., kind=OBJECT)`.

    The first buffer is the pickle. The others are views of the object's own memory, so submit them before the object changes.
    Raises errors of pickling if the object cannot be sent.
    """
    import numpy as np  # it takes longer than the rest of a worker's start

    buffers: list[npt.NDArray[np.uint8]] = []

    def begin() -> travel.Keep:
        buffers.clear()
        return keep_in_band

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < APART_BYTES or len(buffers) == MOST_OUT_OF_BAND:
            return True
        buffers.append(np.frombuffer(raw, np.uint8))
        return False

    pickled = travel.dump(obj, begin)
    return [np.frombuffer(pickled, np.uint8), *buffers]


def decode(buffers: Sequence[npt.NDArray[Any]]) -> Any:
    """Return the object that was given to `encode`. It owns its memory, so the buffers may be reused afterwards."""
    first, *rest = buffers
    return travel.loads(first.data, [bytearray(buffer) for buffer in rest])
