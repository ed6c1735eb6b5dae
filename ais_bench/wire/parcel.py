"""An object for many workers: pickled once, and its large parts kept once, in memory that all of them map.

    pack(obj)    a Packed: a pickle, and beside it the memory of large arrays, and of what is wrapped in a pickle.PickleBuffer
    Parcel       an object on its way: a small one goes with the start message, another one in a sealed memfd
    receive      the Packed, in a worker. Arrays lie in the memfd; what a worker writes to them is its own.

A Packed may be part of an object that is packed again; nothing of it is copied for that.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from ais_bench import _native
from ais_bench.errors import ConfigError, DeviceMemoryError
from ais_bench.tuning import APART_BYTES, CARRIED_BYTES
from ais_bench.wire import travel

_PAGE = 4096  # parts begin at pages: writing to one copies nothing of another


class Packed(NamedTuple):
    """What `load` makes the object of."""

    data: Any  # the pickle, as anything with the buffer protocol
    buffers: list[Any]

    def load(self) -> Any:
        """The object. It may lie in the memory of the buffers."""
        return travel.loads(self.data, self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (pickle.PickleBuffer(self.data), self.buffers)


def pack(obj: Any) -> Packed:
    """Raises ConfigError when the object, or one of the values of a dict, cannot be sent. The buffers are its own memory."""
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
            pack(part)  # names the one that it is
        raise ConfigError(f"{obj!r} cannot be sent to a worker: {error}") from error


class Parcel:
    """An object as it is now, for any number of workers."""

    def __init__(self, inline: Packed | None, sizes: tuple[int, ...], fd: int, begins_logging: bool = False) -> None:
        self.inline = inline  # a small one
        self.sizes = sizes
        self.fd = fd  # the memory of another one
        self.begins_logging = begins_logging  # see ais_bench.wire.protocol.Factory

    @classmethod
    def of(cls, obj: Any) -> Parcel:
        """Raises ConfigError when the object cannot be pickled, DeviceMemoryError when it needs more memory than there is."""
        packed, begins = pack(obj), getattr(obj, "begins_logging", False) is True
        parts = [memoryview(packed.data).cast("B"), *(pickle.PickleBuffer(buffer).raw() for buffer in packed.buffers)]
        sizes = tuple(part.nbytes for part in parts)
        if sum(sizes) <= CARRIED_BYTES:
            return cls(pickle.loads(pickle.dumps(packed, protocol=5)), sizes, -1, begins)
        return cls(None, sizes, _in_memory(parts), begins)

    def share(self) -> Parcel:
        """Another one of the same memory, to be closed by itself."""
        return Parcel(self.inline, self.sizes, os.dup(self.fd) if self.fd >= 0 else -1, self.begins_logging)

    def close(self) -> None:
        """Gives the memory up; whoever shares it, and a worker that has it, keeps it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def receive(fd: int, sizes: Sequence[int]) -> Packed:
    """The Packed of a parcel's memory, in a worker. Takes the descriptor."""
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
    """The descriptor of sealed memory with the parts."""
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
    """A descriptor of empty memory, and whether it can be sealed."""
    try:
        return os.memfd_create("ais_bench-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), True
    except (OSError, AttributeError):  # an old kernel, or a container that refuses it: a file without a name
        import tempfile

        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno()), False


def _seal(fd: int) -> None:
    """From here on nobody can change the memory, so that workers may trust what they map."""
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
