"""Arrays of one worker that another worker reads without a copy: feeds from the CPU workers to the devices' workers.

    parent    lend(arrays, place_of)   replaces large arrays by their positions (file, offset, type, shape); the parent keeps
                                       the arrays, and with them their slots, until the task is done
    worker    Borrower.arrays(given)   makes the arrays again, over the same memory, which it maps read-only

The file is the arena of the CPU worker. The parent holds its descriptor as long as there are arrays in it. The worker opens it
through /proc/<parent>/fd; the inode proves that the number still means the same file. If /proc does not exist or must not be
read (`can_borrow`), arrays are copied instead.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ais_bench.tuning import LENT_BYTES, MOST_MAPPED


class LentArray(NamedTuple):
    """The position of an array."""

    fd: int  # the descriptor in the parent
    inode: int
    offset: int
    dtype: Any
    shape: tuple[int, ...]


def can_borrow() -> bool:
    """Return whether this worker can open the parent's descriptors."""
    try:
        return bool(os.listdir(f"/proc/{os.getppid()}/fd"))
    except OSError:
        return False


def lend(arrays: Sequence[NDArray[Any]], place_of: Callable[[Any], tuple[int, int] | None]) -> list[Any] | None:
    """Return the argument for `Borrower.arrays`; None if there is nothing to lend.

    `place_of` returns the descriptor and offset of an array.
    """
    places: list[tuple[Any, ...] | None] = []
    rest: list[Any] = []
    for array in arrays:
        place = place_of(array) if array.nbytes >= LENT_BYTES else None
        if place is None:
            places.append(None)
            rest.append(array)
        else:
            fd, offset = place
            places.append(tuple(LentArray(fd, os.fstat(fd).st_ino, offset, array.dtype, array.shape)))
    if len(rest) == len(places):
        return None
    return [np.frombuffer(pickle.dumps(places), np.uint8), *rest]


class Borrower:
    """The arenas that this worker has mapped. Only one thread at a time may use it."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._mapped: dict[int, mmap.mmap] = {}  # by inode; the oldest first

    def arrays(self, given: Sequence[Any]) -> list[Any]:
        """Return the arrays that were given to `lend`. Raises OSError if they cannot be reached."""
        rest = iter(given[1:])
        return [next(rest) if place is None else self._array(LentArray(*place)) for place in pickle.loads(given[0])]

    def _array(self, place: LentArray) -> Any:
        memory = self._mapped.get(place.inode) or self._map(place)
        count = int(np.prod(place.shape, dtype=np.int64))
        return np.frombuffer(memory, place.dtype, count, place.offset).reshape(place.shape)

    def _map(self, place: LentArray) -> mmap.mmap:
        fd = os.open(f"/proc/{self._parent}/fd/{place.fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_ino != place.inode:
                raise OSError("the memory of the worker that made the feeds is gone")
            memory = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        while len(self._mapped) >= MOST_MAPPED:
            del self._mapped[next(iter(self._mapped))]
        self._mapped[place.inode] = memory
        return memory
