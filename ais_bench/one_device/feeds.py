"""Convert feeds to plain arrays: C-contiguous, native byte order.

Native code calls these functions for feeds that are not such arrays already. torch is never imported: its tensors are
recognised by their module and read through DLPack. numpy's DLPack cannot read bfloat16 and float8, so these are read as
integers of the same size and viewed as the ml_dtypes type.
"""

from __future__ import annotations

import array
import mmap
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import DeviceMemoryError, FeedError, FeedTypeError
from ais_bench.one_device.tensor import BaseTensor, Tensor
from ais_bench.options import nearest

__all__ = ["is_by_name", "is_one_array", "sets_of", "to_array", "to_sequence"]

_ACCEPTED = (
    "accepted are numpy arrays and scalars, torch CPU tensors, aclruntime.Tensor and BaseTensor, objects with __dlpack__, "
    "and raw memory: a bytearray, a memoryview, or numpy.frombuffer(data, numpy.uint8) for bytes"
)
_DLPACK_HOST = {1, 3, 11, 13}  # kDLCPU, and the host memory kinds of CUDA, ROCm and managed memory


def is_by_name(feeds: Any) -> bool:
    """Return whether the feeds of one run are given by input name."""
    return isinstance(feeds, Mapping)


def to_sequence(
    feeds: Any, names: Sequence[str], ranks: Sequence[int], optional: Sequence[str] = (), overridable: Sequence[str] = ()
) -> Sequence[Any]:
    """Turn the feeds of one run into a list in the model's order.

    `feeds` is a mapping from input names, an array or tensor (its first axis runs over the inputs, unless the model has one
    input and the array is this input), or any other iterable. `ranks` are those of the model, -1 for an input of any rank. A
    mapping may omit the inputs in `optional`; None takes their places. It may have entries for the constants in `overridable`;
    their values then follow the inputs, with None for those that it does not have. Raises FeedError.
    """
    if is_by_name(feeds):
        missing = [name for name in names if name not in feeds and name not in optional]
        unknown = [name for name in feeds if name not in names and name not in overridable]
        if missing or unknown:
            known = [*names, *overridable]
            advice = nearest(unknown[0], known) if unknown else ""
            raise FeedError(
                f"the model takes inputs {list(names)}"
                + (f" and, where they are given, {list(overridable)}" if overridable else "")
                + f"; missing are {missing}, unknown are {unknown}{advice}"
            )
        constants = list(overridable) if any(name in feeds for name in overridable) else []
        return [feeds.get(name) for name in [*names, *constants]]
    if isinstance(feeds, BaseTensor) or _is_raw(feeds):
        return [feeds]
    if is_one_array(feeds):
        shape = feeds.shape
        wrapped = len(shape) == ranks[0] + 1 and shape[0] == 1 if len(names) == 1 and ranks[0] >= 0 else len(names) != 1
        return list(feeds) if wrapped and len(shape) and not isinstance(feeds, Tensor) else [feeds]
    if isinstance(feeds, (str, bytes)) or not isinstance(feeds, Iterable):
        raise FeedTypeError(
            f"feeds must be an iterable with one entry for each {f'of the inputs {list(names)}' if names else 'input'}, "
            f"got {_type_name(feeds)}"
        )
    return list(feeds)


def is_one_array(value: Any) -> bool:
    """Return whether this is an array or tensor of any library, and not a list of them."""
    return isinstance(value, (np.ndarray, np.generic, Tensor)) or (hasattr(value, "__dlpack__") and hasattr(value, "shape"))


def sets_of(element: Any) -> Sequence[Any]:
    """Return the sets of feeds in an element of a pipeline's list: the sets in a list of lists, otherwise the element."""
    several = isinstance(element, (list, tuple)) and element and all(isinstance(entry, (list, tuple)) for entry in element)
    return element if several else [element]


def to_array(value: Any, label: str, wanted: str = "") -> NDArray[Any]:
    """Turn one input into a C-contiguous array in native byte order.

    `label` names the input in errors ("input 'x'"), and `wanted` is the model's type as numpy spells it ("np.float32"), "" if
    there is no model. Raises FeedTypeError, which names the type of `value`, and DeviceMemoryError.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise FeedTypeError(f"{label} is a masked array, and a device knows no masks; pass x.filled(value)")
    if isinstance(value, (np.ndarray, np.generic, BaseTensor)):
        plain = np.asarray(value)
        if plain.dtype.type is np.void and plain.dtype.names is None:  # bytes without a type
            plain = np.frombuffer(plain.tobytes(), np.uint8)
    elif _is_torch_tensor(value):
        plain = _from_torch(value, label)
    elif hasattr(value, "__dlpack__"):
        plain = _from_dlpack(value, label)
    elif _is_raw(value):
        plain = np.asarray(memoryview(value))
    else:
        raise FeedTypeError(f"{label} is {_type_name(value)}; {_remedy(value, wanted)}{_ACCEPTED}")
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    if plain.dtype.kind in "OSUMm" or plain.dtype.names is not None or plain.dtype in (np.longdouble, np.clongdouble):
        advice = "" if plain.dtype.names is not None else _remedy(plain.tolist(), wanted)
        raise FeedTypeError(f"{label} is an array of {plain.dtype}; {advice}a device takes numbers and booleans only")
    if plain.flags.c_contiguous:
        return np.asarray(plain)
    try:
        copy: NDArray[Any] = plain.copy(order="C")  # ascontiguousarray would turn a 0-d array into a 1-d one
    except MemoryError as error:
        raise DeviceMemoryError(
            f"{label} is not contiguous, and there is not enough memory for a contiguous copy: {error}"
        ) from error
    return copy.view(np.ndarray)


def _is_raw(value: Any) -> bool:
    """Return whether this is host memory with the buffer protocol, and not an array. Not `bytes`, which are often a text."""
    return isinstance(value, (bytearray, memoryview, array.array, mmap.mmap))


def _type_name(value: Any) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _remedy(value: Any, wanted: str) -> str:
    """Return how to make the wanted array, if numpy can make it from this value, otherwise ""."""
    if not wanted or value is None or isinstance(value, (str, bytes)):
        return ""
    try:
        made = np.asarray(value, np.float64)
    except Exception:  # its `__array__` may raise anything
        return ""
    return f"pass np.asarray(x, {wanted}); " if made.dtype == np.float64 else ""


def _is_torch_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _from_torch(tensor: Any, label: str) -> NDArray[Any]:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise FeedTypeError(f"{label} is a torch tensor on {tensor.device}; move it to the host first, with .cpu()")
    if tensor.layout is not torch.strided:
        raise FeedTypeError(f"{label} is a torch tensor of layout {tensor.layout}; make it dense first, with .to_dense()")
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        raw = plain.view(torch.int16 if name == "bfloat16" else torch.int8).numpy()
        return np.asarray(raw.view(getattr(ml_dtypes, name)))
    try:
        return np.asarray(plain.numpy())
    except (RuntimeError, TypeError) as error:  # quantised, and other types numpy lacks
        raise FeedTypeError(f"{label} is a torch tensor of {plain.dtype}, which numpy cannot hold: {error}") from error


def _from_dlpack(value: Any, label: str) -> NDArray[Any]:
    device = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (1, 0)
    try:
        kind, number = map(int, device)
    except (TypeError, ValueError) as error:
        raise FeedTypeError(
            f"{label}, {_type_name(value)}, must have a pair of ints as DLPack device, got {device!r}"
        ) from error
    if kind not in _DLPACK_HOST:
        raise FeedTypeError(f"{label} is {_type_name(value)} on DLPack device {(kind, number)}; copy it to the host first")
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if hasattr(value, "__array__"):  # types that DLPack or numpy's side of it lacks, bfloat16 for one
            return np.asarray(value)
        raise FeedTypeError(f"{label}, {_type_name(value)}, cannot be read through DLPack: {error}") from error
