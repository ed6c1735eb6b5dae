"""An object for many workers: pickled once, with its large parts once in memory that all workers map.

    pack(obj)    makes a Packed: a pickle, and the memory of large arrays and of objects in a pickle.PickleBuffer
    Parcel       an object to send: a small one goes with the start message, a large one in a sealed memfd
    receive      returns the Packed, in a worker. Arrays are in the memfd; a worker's writes to them are private.

A Packed may be a part of an object that is packed again, without a copy.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from ais_bench import _native
from ais_bench.errors import DeviceMemoryError, refused
from ais_bench.tuning import APART_BYTES, CARRIED_BYTES
from ais_bench.wire import travel

_PAGE = 4096  # parts begin at pages, so a write to one part copies no page of another


class Packed(NamedTuple):
    """The data from which `load` makes the object."""

    data: Any  # the pickle, an object with the buffer protocol
    buffers: list[Any]

    def load(self) -> Any:
        """Return the object. Its arrays may be in the memory of the buffers."""
        return travel.loads(self.data, self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (pickle.PickleBuffer(self.data), self.buffers)


def pack(obj: Any) -> Packed:
    """Return the Packed of an object. The buffers are the object's own memory.

    Raises ConfigError if the object, or a value of a dict, cannot be sent; TransportError if the system refuses a descriptor.
    """
    buffers: list[Any] = []

    def goes_in_band(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < APART_BYTES:
            return True
        buffers.append(buffer)
        return False

    def begin() -> travel.Keep:
        buffers.clear()
        return goes_in_band

    try:
        return Packed(travel.dump(obj, begin), buffers)
    except Exception as error:
        for part in obj.values() if type(obj) is dict else ():
            pack(part)  # raises an error that names the part
        raise travel.not_sent(obj, error) from error


class Parcel:
    """A snapshot of an object, for any number of workers."""

    def __init__(self, inline: Packed | None, sizes: tuple[int, ...], fd: int, begins_logging: bool = False) -> None:
        self.inline = inline  # the Packed of a small object
        self.sizes = sizes
        self.fd = fd  # the memory of a large object
        self.begins_logging = begins_logging  # see ais_bench.wire.protocol.Factory

    @classmethod
    def of(cls, obj: Any) -> Parcel:
        """Make a parcel.

        Raises ConfigError if the object cannot be pickled, DeviceMemoryError if memory runs out, and TransportError if the
        system refuses memory or a descriptor.
        """
        packed, begins = pack(obj), getattr(obj, "begins_logging", False) is True
        parts = [memoryview(packed.data).cast("B"), *(pickle.PickleBuffer(buffer).raw() for buffer in packed.buffers)]
        sizes = tuple(part.nbytes for part in parts)
        if sum(sizes) <= CARRIED_BYTES:
            return cls(pickle.loads(pickle.dumps(packed, protocol=5)), sizes, -1, begins)
        try:
            return cls(None, sizes, _in_memory(parts), begins)
        except OSError as error:
            raise refused("the system refuses shared memory for the model and the callables", error) from error

    def share(self) -> Parcel:
        """Return another parcel of the same memory, which must be closed separately."""
        return Parcel(self.inline, self.sizes, os.dup(self.fd) if self.fd >= 0 else -1, self.begins_logging)

    def close(self) -> None:
        """Release the memory. Other parcels that share it, and workers that have it, keep it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def receive(fd: int, sizes: Sequence[int]) -> Packed:
    """Return the Packed of a parcel's memory, in a worker. Takes ownership of the descriptor."""
    import mmap

    try:
        memory = memoryview(mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))
    finally:
        os.close(fd)
    data, *buffers = (memory[start : start + size] for start, size in zip(_starts(sizes), sizes, strict=True))
    return Packed(data, buffers)


def _starts(sizes: Sequence[int]) -> list[int]:
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += (size + _PAGE - 1) // _PAGE * _PAGE
    return starts


def _in_memory(parts: Sequence[memoryview]) -> int:
    """Return the descriptor of sealed memory with the parts."""
    needed = sum(part.nbytes for part in parts)
    limit, left, whose = _native.memory_room()
    if limit and needed > left:
        raise DeviceMemoryError(
            f"the model and the callables need {needed} bytes of shared memory, but only {left} bytes are left of {whose}, "
            f"{limit} bytes"
        )
    fd, seals = _new_memory()
    try:
        for start, part in zip(_starts([part.nbytes for part in parts]), parts, strict=True):
            while part.nbytes:
                written = os.pwrite(fd, part[: 1 << 30], start)
                start, part = start + written, part[written:]
        if seals:
            _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _new_memory() -> tuple[int, bool]:
    """Return a descriptor of empty memory, and whether it can be sealed."""
    try:
        return os.memfd_create("ais_bench-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), True
    except (OSError, AttributeError):  # an old kernel or a restricted container: use a file without a name
        import tempfile

        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno()), False


def _seal(fd: int) -> None:
    """Seal the memory, so that no process can change it and workers can trust it."""
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
