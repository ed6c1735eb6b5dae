"""Python objects as buffers that fit into a slot, and back.

An object becomes one pickle (protocol 5) and, out of band, the memory of its large arrays, which is copied once instead
of being pickled. Classes and functions of the caller's `__main__` exist in no module that a worker could import, so they
travel by value (dill). Back in the process they come from they are found by name again: `isinstance` holds for results.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["decode", "encode"]

# Smaller buffers are cheaper inside the pickle.
_OUT_OF_BAND_BYTES = 4096
_MOST_OUT_OF_BAND = 1 << 14  # a frame has a place for four times as many


def encode(obj: object) -> list[npt.NDArray[np.uint8]]:
    """Return the buffers of one object, for `Lane.try_submit(..., kind=OBJECT)` or `Channel.reply(..., kind=OBJECT)`.

    The first is the pickle; the rest are views of the object's own memory, so submit them before the object changes.
    Raises what pickle or dill raise for an object that cannot be sent.
    """
    buffers: list[npt.NDArray[np.uint8]] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _OUT_OF_BAND_BYTES or len(buffers) == _MOST_OUT_OF_BAND:
            return True
        buffers.append(np.frombuffer(raw, np.uint8))
        return False

    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=keep_in_band).dump(obj)
    return [np.frombuffer(stream.getbuffer(), np.uint8), *buffers]


def decode(buffers: Sequence[npt.NDArray[Any]], *, at_home: bool = True) -> Any:
    """Return the object that `encode` was given. It owns its memory: the buffers may be reused afterwards.

    `at_home`: classes and functions of a `__main__` are this process's own, if it has them. A worker says False.
    """
    first, *rest = buffers
    unpickler = _Unpickler if at_home else pickle.Unpickler
    return unpickler(io.BytesIO(first.data), buffers=[bytearray(buffer) for buffer in rest]).load()


class _Pickler(pickle.Pickler):
    """Sends what lives in `__main__` or in a function by value, everything else as pickle does."""

    def reducer_override(self, obj: Any) -> Any:
        """Pickle's hook: a recipe for `obj`, or NotImplemented for the usual one."""
        if not isinstance(obj, type | FunctionType):
            return NotImplemented
        if obj.__module__ not in ("__main__", "__mp_main__") and "<" not in obj.__qualname__:
            return NotImplemented
        import dill  # costs tens of milliseconds, and few programs get here

        return _by_value, (obj.__module__, obj.__qualname__, dill.dumps(obj, recurse=True))


class _Unpickler(pickle.Unpickler):
    """Finds by name what was sent by value."""

    def find_class(self, module: str, name: str) -> Any:
        """Pickle's hook: the object of that name."""
        return _by_name if (module, name) == (__name__, _by_value.__name__) else super().find_class(module, name)


def _by_value(module: str, qualname: str, value: bytes) -> Any:
    """Load a class or function that travelled."""
    return _load(value)


def _by_name(module: str, qualname: str, value: bytes) -> Any:
    """Return this process's own class or function of that name; by value where there is none, as for what a function made."""
    try:
        return functools.reduce(getattr, qualname.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return _load(value)


@functools.lru_cache(maxsize=256)
def _load(value: bytes) -> Any:
    """Load a class or function once, so that two objects of a class that came by value have one class."""
    import dill

    return dill.loads(value)
