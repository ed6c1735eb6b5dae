"""Tensors that own their memory, on the host or on a device: the results of `infer(out_array=False)`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ais_bench import _native
from ais_bench.errors import ConfigError, FeedError, no_copies
from ais_bench.one_device.descriptors import dtype
from ais_bench.options import as_bool, as_device_id, as_int, as_list

__all__ = ["BaseTensor", "Tensor", "batch", "type"]

_native.load_numpy()  # here, in the importing thread: the first array may be in a daemon thread


class type(enum.IntEnum):
    """The kind of a tensor's memory."""

    memory_host = 0
    memory_device = 1
    memory_dvpp = 2


class Tensor(_native.Tensor):
    """A tensor on the host (`device` is -1) or on a device.

    `Tensor(array)` copies a numpy array, any other valid input, or any object with the buffer protocol to host memory.
    `Tensor(array, device_id)` copies it to a device. `Tensor(tensor)` shares the memory of `tensor`. `to_device(id)` and
    `to_host()` move the tensor in place, and do nothing if it is already there. On the host it has the buffer protocol, and
    `numpy.array(tensor)` converts it; on a device both raise RuntimeError. Its memory is freed with it, even if the session was
    freed before. Any thread may use it, one at a time.
    """

    def __init__(self, array: Any, device_id: Any = None) -> None:
        super().__init__(_readable(array))
        if device_id is not None:
            self.to_device(device_id)

    @property
    def dtype(self) -> dtype:
        """The element type."""
        return dtype(self._dtype_number)

    @property
    def type(self) -> type:
        """The kind of memory: on the host or on a device."""
        return type.memory_host if self.device < 0 else type.memory_device

    def to_device(self, device_id: Any) -> None:
        """Move to a device. Raises DeviceUnavailable, or ConfigError if the value is not a device id."""
        super().to_device(as_device_id(device_id))

    def to_dvpp(self, device_id: Any) -> None:
        """Move to a device's media memory, which is ordinary device memory here. Raises the errors of `to_device`."""
        self.to_device(device_id)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise no_copies("an aclruntime.Tensor", "make an array of it with numpy.array(tensor), and a Tensor of that")

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape)) + ("," if len(self.shape) == 1 else "")
        return f"<Tensor>\nshape:\t({shape})\ndtype:\t{self.dtype.name}\ndevice:\t{self.device}"

    __str__ = __repr__


class BaseTensor:
    """Host memory that the caller keeps alive: an address and a number of bytes. Use it only as a feed of an immediate run.

    Raises ConfigError for a wrong address or size.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        self.buf: int = as_int("address", address, 0, 2**64 - 1)
        self.size: int = as_int("nbytes", nbytes, 0, 2**62)
        if self.buf == 0 and self.size > 0:
            raise ConfigError(f"address must be that of {self.size} bytes, got 0")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "typestr": "|u1", "shape": (self.size,), "data": (self.buf, True)}


def _readable(value: Any) -> Any:
    """Return `value`, or an array over it if it is not a valid input but has the buffer protocol."""
    if isinstance(value, (np.ndarray, np.generic, _native.Tensor, BaseTensor)) or hasattr(value, "__dlpack__"):
        return value
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        return value


def batch(inputs: Sequence[Tensor], keep_dims: bool = False) -> Tensor:
    """Join host tensors of one dtype on a new axis 0, or, with `keep_dims`, along their own axis 0. Raises ConfigError,
    FeedError."""
    inputs = as_list("inputs", inputs, "tensors")
    keep_dims = as_bool("keep_dims", keep_dims)
    if not inputs:
        raise FeedError("there are no tensors to join")
    arrays: list[NDArray[Any]] = [np.asarray(tensor) for tensor in inputs]
    try:
        return Tensor(np.concatenate(arrays) if keep_dims else np.stack(arrays))
    except (TypeError, ValueError) as error:  # different shapes, or types without a common type
        raise FeedError(f"the tensors cannot be joined: {error}") from error
