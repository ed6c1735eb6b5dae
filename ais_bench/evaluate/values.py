"""Convert results and targets to JSON and back exactly: types, element types and bits are kept.

Plain JSON values stay as they are. A value that JSON does not have is an object with one key that begins with "$". The bytes of
large arrays are in a separate file, and the JSON has their offset. Pickle is not used, so you can open a run folder from an
untrusted source.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ais_bench.tuning import INLINE_BYTES

__all__ = ["Unstorable", "decode_value", "encode_value"]


PutBytes = Callable[[memoryview], int]  # appends bytes and returns their offset
GetBytes = Callable[[int, int], bytes]  # offset, number


class Unstorable(TypeError):
    """A value whose type a run folder cannot store."""


def encode_value(value: Any, put: PutBytes) -> Any:
    """Return the JSON form of a value, for `json.dumps`. Raises Unstorable for a type that has no such form."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    encoder = _ENCODERS.get(kind)
    if encoder is not None:
        return encoder(value, put)
    if isinstance(value, np.generic):
        return {"$scalar": [_name_of(value.dtype), base64.b64encode(value.tobytes()).decode()]}
    if kind.__module__ == "torch" and kind.__name__ == "Tensor":
        return {"$torch": _array(_numpy_of(value), put)["$array"]}
    raise Unstorable(
        f"a {kind.__module__}.{kind.__qualname__} cannot be kept in a run folder; numbers, texts, bytes, arrays, and lists, "
        "tuples, sets and dicts of them can"
    )


def decode_value(value: Any, get: GetBytes) -> Any:
    """Return the value that was given to `encode_value`."""
    if type(value) is list:
        return [decode_value(entry, get) for entry in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        (key, content), *_ = value.items()
        if key.startswith("$"):
            return _DECODERS[key](content, get)
    return {key: decode_value(entry, get) for key, entry in value.items()}


def _array(value: Any, put: PutBytes) -> dict[str, Any]:
    flat = np.ascontiguousarray(value)
    head: list[Any] = [_name_of(value.dtype), list(value.shape)]
    if flat.nbytes <= INLINE_BYTES:
        return {"$array": [*head, base64.b64encode(flat.tobytes()).decode()]}
    return {"$array": [*head, put(flat.reshape(-1).view(np.uint8).data)]}


def _load_array(content: list[Any], get: GetBytes) -> Any:
    name, shape, where = content
    kind = _dtype_of(name)
    data = base64.b64decode(where) if isinstance(where, str) else get(where, math.prod(shape) * kind.itemsize)
    return np.frombuffer(bytearray(data), kind).reshape(shape)


def _mapping(value: dict[Any, Any], put: PutBytes) -> Any:
    if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
        return {key: encode_value(entry, put) for key, entry in value.items()}
    return {"$dict": [[encode_value(key, put), encode_value(entry, put)] for key, entry in value.items()]}


def _listed(name: str) -> Callable[[Any, PutBytes], Any]:
    return lambda value, put: {name: [encode_value(entry, put) for entry in value]}


def _numpy_of(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:
        raise Unstorable(f"a torch tensor of {tensor.dtype} cannot be kept in a run folder; convert it first") from None


def _torch(content: list[Any], get: GetBytes) -> Any:
    import torch  # only if the postprocess that made the value used torch, too

    return torch.from_numpy(_load_array(content, get))


def _name_of(kind: Any) -> str:
    """Return the name of an element type: numpy's name with the byte order, or the name in ml_dtypes."""
    if kind.hasobject or kind.names is not None:
        raise Unstorable(f"an array of {kind} cannot be kept in a run folder")
    return str(kind.name if kind.kind == "V" else kind.str)


def _dtype_of(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return kind


_ENCODERS: dict[type, Callable[[Any, PutBytes], Any]] = {
    list: lambda value, put: [encode_value(entry, put) for entry in value],
    tuple: _listed("$tuple"),
    set: _listed("$set"),
    frozenset: _listed("$frozenset"),
    dict: _mapping,
    bytes: lambda value, put: {"$bytes": base64.b64encode(value).decode()},
    np.ndarray: _array,
}
_DECODERS: dict[str, Callable[[Any, GetBytes], Any]] = {
    "$float": lambda content, get: float(content),
    "$tuple": lambda content, get: tuple(decode_value(entry, get) for entry in content),
    "$set": lambda content, get: {decode_value(entry, get) for entry in content},
    "$frozenset": lambda content, get: frozenset(decode_value(entry, get) for entry in content),
    "$dict": lambda content, get: {decode_value(key, get): decode_value(entry, get) for key, entry in content},
    "$bytes": lambda content, get: base64.b64decode(content),
    "$scalar": lambda content, get: np.frombuffer(base64.b64decode(content[1]), _dtype_of(content[0]))[0],
    "$array": _load_array,
    "$torch": _torch,
}
