"""From what callers feed to plain arrays: C-contiguous, native byte order.

The native code calls these for everything that is not such an array already. torch is never imported: its tensors are
recognised by their module and read through DLPack, or, for bfloat16 and float8, which numpy's DLPack cannot read, as integers
of the same width that are viewed as the ml_dtypes type.
"""

from __future__ import annotations

import array
import mmap
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import FeedError
from ais_bench.session.tensor import BaseTensor, Tensor

__all__ = ["is_one_array", "sets_of", "to_array", "to_sequence"]

_ACCEPTED = (
    "an input is a numpy array or scalar, a torch CPU tensor, an aclruntime.Tensor or BaseTensor, an object with __dlpack__, "
    "or raw memory: a bytearray, a memoryview, or numpy.frombuffer(data, numpy.uint8) for bytes"
)
_DLPACK_HOST = {1, 3, 11, 13}  # kDLCPU, and the host memory kinds of CUDA, ROCm and managed memory


def to_sequence(feeds: Any, names: Sequence[str], ranks: Sequence[int]) -> Sequence[Any]:
    """Turn the feeds of one run into a list in the model's order.

    `feeds` is a mapping from every input name, an array or tensor (its first axis runs over the inputs, unless the model has
    one input and the array is that), or any other iterable. `ranks` are the model's, -1 for an input of any rank. Raises
    FeedError.
    """
    if isinstance(feeds, Mapping):
        missing = [name for name in names if name not in feeds]
        unknown = [name for name in feeds if name not in names]
        if missing or unknown:
            raise FeedError(f"the model takes inputs {list(names)}; missing are {missing}, unknown are {unknown}")
        return [feeds[name] for name in names]
    if isinstance(feeds, BaseTensor) or _is_raw(feeds):
        return [feeds]
    if is_one_array(feeds):
        shape = feeds.shape
        wrapped = len(shape) == ranks[0] + 1 and shape[0] == 1 if len(names) == 1 and ranks[0] >= 0 else len(names) != 1
        return list(feeds) if wrapped and len(shape) and not isinstance(feeds, Tensor) else [feeds]
    if isinstance(feeds, (str, bytes)) or not isinstance(feeds, Iterable):
        raise FeedError(f"feeds is a {type(feeds).__name__}; it is an iterable with one entry for each input {list(names)}")
    return list(feeds)


def is_one_array(value: Any) -> bool:
    """Whether this is an array or tensor, of whichever library, and no list of them."""
    return isinstance(value, (np.ndarray, np.generic, Tensor)) or (hasattr(value, "__dlpack__") and hasattr(value, "shape"))


def sets_of(element: Any) -> Sequence[Any]:
    """The sets of feeds in an element of a pipeline's list: itself, or, as no input is a list, all those in a list of lists."""
    several = isinstance(element, (list, tuple)) and element and all(isinstance(entry, (list, tuple)) for entry in element)
    return element if several else [element]


def to_array(value: Any, index: int) -> NDArray[Any]:
    """Turn one input into a C-contiguous array in native byte order. Raises FeedError that names the input's type."""
    if isinstance(value, (np.ndarray, np.generic, BaseTensor)):
        plain = np.asarray(value)
        if plain.dtype.type is np.void and plain.dtype.names is None:  # bytes of no type at all
            plain = np.frombuffer(plain.tobytes(), np.uint8)
    elif _is_torch_tensor(value):
        plain = _from_torch(value, index)
    elif hasattr(value, "__dlpack__"):
        plain = _from_dlpack(value, index)
    elif _is_raw(value):
        plain = np.asarray(memoryview(value))
    else:
        raise FeedError(f"input {index} is a {_type_name(value)}; {_ACCEPTED}")
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    if plain.dtype.kind in "OSUMm" or plain.dtype.names is not None or plain.dtype in (np.longdouble, np.clongdouble):
        raise FeedError(f"input {index} is an array of {plain.dtype}; a device takes numbers and booleans only")
    # ascontiguousarray would turn a 0-d array into a 1-d one
    return plain.copy(order="C").view(np.ndarray) if not plain.flags.c_contiguous else np.asarray(plain)


def _is_raw(value: Any) -> bool:
    """Whether this is host memory by the buffer protocol, and no array of a library. Not `bytes`: they are a text as often."""
    return isinstance(value, (bytearray, memoryview, array.array, mmap.mmap))


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _is_torch_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _from_torch(tensor: Any, index: int) -> NDArray[Any]:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise FeedError(f"input {index} is a torch tensor on {tensor.device}; move it to the host first, with .cpu()")
    if tensor.layout is not torch.strided:
        raise FeedError(f"input {index} is a torch tensor of layout {tensor.layout}; make it dense first, with .to_dense()")
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        raw = plain.view(torch.int16 if name == "bfloat16" else torch.int8).numpy()
        return np.asarray(raw.view(getattr(ml_dtypes, name)))
    try:
        return np.asarray(plain.numpy())
    except (RuntimeError, TypeError) as error:  # quantised, and other types numpy lacks
        raise FeedError(f"input {index} is a torch tensor of {plain.dtype}, which numpy cannot hold: {error}") from error


def _from_dlpack(value: Any, index: int) -> NDArray[Any]:
    device = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (1, 0)
    if int(device[0]) not in _DLPACK_HOST:
        raise FeedError(
            f"input {index} is a {_type_name(value)} on DLPack device {tuple(map(int, device))}; copy it to the host first"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if hasattr(value, "__array__"):  # types that DLPack or numpy's side of it lacks, bfloat16 for one
            return np.asarray(value)
        raise FeedError(f"input {index}, a {_type_name(value)}, cannot be read through DLPack: {error}") from error
