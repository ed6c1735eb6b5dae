"""onnxruntime's own Python API as the reference for a model's results, bit for bit."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

onnxruntime.set_default_logger_severity(4)  # refused models are part of the test
Array = NDArray[Any]

_NARROW = ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")


class NotInPython(Exception):
    """onnxruntime runs the model, but its Python API cannot feed or return a type narrower than a byte."""


class Reference:
    """An onnxruntime session with the same settings as ours: all optimisations, `threads` threads."""

    def __init__(self, model: str | bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Sequence[Array | None]) -> list[Array]:
        """Return the outputs. None is an input that is not given."""
        given = {name: array for name, array in zip(self.inputs, feeds, strict=True) if array is not None}
        values = {name: _to_value(array) for name, array in given.items()}
        return [_from_value(value) for value in self._session.run_with_ort_values(self.outputs, values)]


def _to_value(array: Array) -> onnxruntime.OrtValue:
    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    if array.dtype.name in _NARROW:
        raise NotInPython(array.dtype.name)
    if array.dtype.kind == "V" or array.dtype.num >= 256:  # a type of ml_dtypes: the same bytes, named by number
        raw = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, element)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array if array.flags.c_contiguous else array.copy(order="C"))


def _from_value(value: onnxruntime.OrtValue) -> Array:
    element = value.element_type()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    if dtype.name in _NARROW:
        raise NotInPython(dtype.name)
    if dtype.num < 256:
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype).reshape(shape)


def same(ours: Array, theirs: Array) -> bool:
    """Return whether dtype, shape and bits are equal; bits of NaN may differ."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.tobytes() == theirs.tobytes():
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.all((ours == theirs) | ((ours != ours) & (theirs != theirs))))


def describe(arrays: Sequence[Array]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)


def on_host(tensors: list[Any]) -> list[Any]:
    """Copy the tensors to the host and return them."""
    for tensor in tensors:
        tensor.to_host()
    return tensors
