"""Random models and feeds with the expected result: that of `onnxruntime`, or an error; if the API accepts more feeds, its
table decides.

The reference is docs/feeds.md in a few lines of Python, which share no code with the library.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnxruntime
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from support.models import values, wrap

TYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.BOOL: np.dtype(np.bool_),
}
NUMBERS = [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64]
NAMES = st.sampled_from(["x", "input.1", "a b", "图像", "in:0", "y", "images"])
Shape = tuple[int, ...]


Declared = list[tuple[np.dtype[Any], list[int | str]]]


class Case(NamedTuple):
    """A model of one to three inputs, and one set of feeds."""

    model: ModelProto
    names: list[str]
    declared: Declared
    feeds: list[np.ndarray[Any, Any]]
    form: str


class Wanted(NamedTuple):
    """The expected result of a run: outputs as `bits`, or the kind of error."""

    outputs: list[Any] | None
    refused: bool = False  # a FeedError; otherwise, without outputs, any error
    taken: list[tuple[Shape, bool]] | None = None  # by the table, if onnxruntime refuses the unchanged feeds


@st.composite
def declared_shape(draw: st.DrawFn) -> list[int | str]:
    rank = draw(st.integers(0, 4))
    return [draw(st.one_of(*[st.integers(1, 4)] * 4, st.just(0), *[st.sampled_from(["n", "m", "k"])] * 4)) for _ in range(rank)]


@st.composite
def a_model(draw: st.DrawFn) -> tuple[ModelProto, list[str], list[tuple[Any, list[int | str]]]]:
    count = draw(st.integers(1, 3))
    names = draw(st.lists(NAMES, min_size=count, max_size=count, unique=True))
    nodes, inputs, outputs, declared = [], [], [], []
    for index, name in enumerate(names):
        op = draw(st.sampled_from(["Identity", "Transpose", "Neg", "Concat", "Shape", "out", "NonZero"]))
        kinds = {"Neg": NUMBERS, "Concat": NUMBERS, "NonZero": [TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64]}
        kind = draw(st.sampled_from(kinds.get(op, list(TYPES))))
        shape = draw(declared_shape())
        if op in ("Concat", "NonZero") and not shape:
            op = "Identity"
        inputs += values([(name, shape)], kind)
        declared.append((TYPES[kind], shape))
        result = f"result {index}"
        if op == "out":
            if not any(name == output.name for output in outputs):
                outputs += values([(name, shape)], kind)
            op = "Identity"
        open_shape: list[int | str] = [f"d{index}{axis}" for axis in range(len(shape))]
        if op == "Shape":
            outputs += values([(result, [len(shape)])], TensorProto.INT64)
        elif op == "NonZero":
            outputs += values([(result, [len(shape), f"count{index}"])], TensorProto.INT64)
        elif op == "Transpose":
            outputs += values([(result, list(reversed(shape)))], kind)
        else:
            outputs += values([(result, open_shape if op == "Concat" else shape)], kind)
        attributes = {"axis": 0} if op == "Concat" else {}
        nodes.append(helper.make_node(op, [name, name] if op == "Concat" else [name], [result], **attributes))
    return wrap(nodes, inputs, outputs), names, declared


@st.composite
def a_feed(draw: st.DrawFn, dtype: np.dtype[Any], shape: list[int | str]) -> np.ndarray[Any, Any]:
    known = {name: draw(st.sampled_from([1, 1, 2, 2, 3, 3, 4, 4, 0])) for name in ("n", "m", "k")}
    right = [known[dim] if isinstance(dim, str) else dim for dim in shape]
    how = draw(
        st.sampled_from(["right"] * 4 + ["flat", "no batch", "reversed", "other", "longer", "raw", "type", "type", "both"])
    )
    given_type = dtype
    if how in ("type", "both"):
        given_type = draw(st.sampled_from(list(TYPES.values())))
    dims = list(right)
    if how == "flat":
        dims = [math.prod(right) * draw(st.integers(1, 2))]
    elif how == "no batch":
        dims = right[1:]
    elif how == "reversed":
        dims = right[::-1]
    elif how in ("other", "both"):
        dims = draw(st.lists(st.sampled_from([1, 2, 3, 4, 4, 0]), max_size=4))
    elif how == "longer" and right:
        dims[draw(st.integers(0, len(dims) - 1))] += 1
    elif how == "raw":
        given_type = np.dtype(draw(st.sampled_from([np.uint8, np.int8])))
        dims = [math.prod(right) * dtype.itemsize * draw(st.integers(1, 2))]
    plain = np.random.default_rng(draw(st.integers(0, 2**31))).integers(0, 3, dims)
    array = (
        plain.astype(np.float32).astype(given_type) if given_type == np.dtype(ml_dtypes.bfloat16) else plain.astype(given_type)
    )
    layout = draw(st.sampled_from(["plain", "plain", "fortran", "strided", "negative", "foreign"]))
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "negative" and array.ndim:
        return np.ascontiguousarray(array[::-1])[::-1]
    if layout == "foreign" and array.dtype.num < 256:
        return array.astype(array.dtype.newbyteorder(">"))
    return array


@st.composite
def a_case(draw: st.DrawFn) -> Case:
    model, names, declared = draw(a_model())
    feeds = [draw(a_feed(dtype, shape)) for dtype, shape in declared]
    return Case(model, names, declared, feeds, draw(st.sampled_from(["list", "mapping", "tuple", "device", "pipeline"])))


def taken_as(dtype: np.dtype[Any], shape: list[int | str], array: np.ndarray[Any, Any]) -> tuple[Shape, bool] | None:
    """Return an array's shape by the table, and whether it is computed from its size; None: refused."""
    pattern = [-1 if isinstance(dim, str) else dim for dim in shape]
    given_type, dims = array.dtype.newbyteorder("="), list(array.shape)

    def agree(one: list[int]) -> bool:
        return len(one) == len(pattern) and all(want in (-1, have) for want, have in zip(pattern, one, strict=True))

    def fits(one: list[int]) -> tuple[Shape, bool] | None:
        return (tuple(one), False) if math.prod(one) * dtype.itemsize == array.nbytes else None

    def measured() -> tuple[Shape, bool] | None:
        rest = math.prod(dim for dim in pattern if dim >= 0) * dtype.itemsize
        if pattern.count(-1) != 1 or rest == 0 or array.nbytes % rest:
            return None
        return tuple(array.nbytes // rest if dim < 0 else dim for dim in pattern), True

    if -1 not in pattern:
        return fits(pattern)
    raw = len(dims) == 1 and given_type in (np.uint8, np.int8)
    if given_type.itemsize != dtype.itemsize:
        if agree(dims) or (agree([1, *dims]) and not raw):
            return None
        return measured() if len(dims) == 1 and len(pattern) != 1 else None
    if agree(dims):
        return tuple(dims), False
    if agree([1, *dims]):
        return (1, *dims), False
    if len(dims) == len(pattern):
        return fits([have if want < 0 else want for want, have in zip(pattern, dims, strict=True)])
    if len(dims) + 1 == len(pattern) and len(dims) > 1:
        return fits([have if want < 0 else want for want, have in zip(pattern, [1, *dims], strict=True)])
    return measured()


class Reference:
    """A model in onnxruntime."""

    def __init__(self, model: ModelProto, names: list[str], declared: Declared) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._names, self._declared = names, declared
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def wanted(self, feeds: list[Any]) -> Wanted:
        """Return the expected result of these feeds."""
        plain = [feed.astype(feed.dtype.newbyteorder("=")) for feed in feeds]
        expected = self.run(plain)
        if expected is not None:
            return Wanted(expected)
        found = [taken_as(dtype, shape, feed) for (dtype, shape), feed in zip(self._declared, plain, strict=True)]
        taken = [one for one in found if one is not None]
        if len(taken) < len(found):
            return Wanted(None, refused=True)
        meant = [
            np.frombuffer(feed.tobytes(), dtype).reshape(shape)
            for (dtype, _), feed, (shape, _) in zip(self._declared, plain, taken, strict=True)
        ]
        return Wanted(self.run(meant), taken=taken)

    def run(self, feeds: list[Any]) -> list[Any] | None:
        """Return the result of onnxruntime; None for an error.

        It does not check the rank of a scalar, and uses (1,) as such; here it is read as the declared scalar.
        """
        if any(not shape and feed.ndim for (_, shape), feed in zip(self._declared, feeds, strict=True)):
            return None
        try:
            given_values = {}
            for name, feed, (dtype, _) in zip(self._names, feeds, self._declared, strict=True):
                if feed.dtype != dtype:
                    return None
                kind = next(number for number, known in TYPES.items() if known == dtype)
                given_values[name] = (
                    onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.array(feed, order="C"), kind)
                    if dtype == np.dtype(ml_dtypes.bfloat16)
                    else onnxruntime.OrtValue.ortvalue_from_numpy(np.array(feed, order="C"))
                )
            results = self._session.run_with_ort_values(None, given_values)
        except Exception:
            return None
        return [bits(result) for result in results]


def bits(value: Any) -> tuple[Any, ...]:
    if isinstance(value, onnxruntime.OrtValue):
        if value.element_type() == TensorProto.BFLOAT16:
            import ctypes

            count = math.prod(value.shape()) * 2
            return tuple(value.shape()), ctypes.string_at(value.data_ptr(), count)
        array = value.numpy()
    else:
        array = value
    return tuple(array.shape), array.tobytes()
