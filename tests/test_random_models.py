"""Random models and feeds: what `onnxruntime` gives, or an error; where the API takes more than it does, by its table alone.

The oracle is docs/feeds.md in a few lines of Python, written apart from the code that it checks.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from models import values, wrap
from onnx import ModelProto, TensorProto, helper

from ais_bench.errors import FeedError, FeedWarning, InferenceError
from ais_bench.session import InferSession

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


class Case(NamedTuple):
    """A model of one to three inputs, and one set of feeds."""

    model: ModelProto
    names: list[str]
    declared: list[tuple[np.dtype[Any], list[int | str]]]
    feeds: list[np.ndarray[Any, Any]]
    form: str


@st.composite
def declared_shape(draw: st.DrawFn) -> list[int | str]:
    rank = draw(st.integers(0, 4))
    return [draw(st.one_of(st.integers(1, 4), st.sampled_from(["n", "m", "k"]))) for _ in range(rank)]


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
    known = {name: draw(st.integers(1, 4)) for name in ("n", "m", "k")}
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
        dims = draw(st.lists(st.integers(1, 4), max_size=4))
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
    """The shape that the table gives an array, and whether it was measured by its size; None where it refuses it."""
    pattern = [-1 if isinstance(dim, str) else dim for dim in shape]
    given_type, dims = array.dtype.newbyteorder("="), list(array.shape)

    def agree(one: list[int]) -> bool:
        return len(one) == len(pattern) and all(want in (-1, have) for want, have in zip(pattern, one, strict=True))

    def fits(one: list[int]) -> tuple[Shape, bool] | None:
        return (tuple(one), False) if math.prod(one) * dtype.itemsize == array.nbytes else None

    def measured() -> tuple[Shape, bool] | None:
        rest = math.prod(dim for dim in pattern if dim >= 0) * dtype.itemsize
        if pattern.count(-1) != 1 or array.nbytes % rest:
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


def reference(case: Case, feeds: list[Any]) -> list[Any] | None:
    """What onnxruntime gives; None where it gives an error.

    Of a scalar it does not check the rank, and passes (1,) on as that; here it is read as the scalar that the model declares.
    """
    if any(not shape and feed.ndim for (_, shape), feed in zip(case.declared, feeds, strict=True)):
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    try:
        given_values = {}
        for name, feed, (dtype, _) in zip(case.names, feeds, case.declared, strict=True):
            if feed.dtype != dtype:
                return None
            kind = next(number for number, known in TYPES.items() if known == dtype)
            given_values[name] = (
                onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(feed).reshape(feed.shape), kind)
                if dtype == np.dtype(ml_dtypes.bfloat16)
                else onnxruntime.OrtValue.ortvalue_from_numpy(np.array(feed, order="C"))
            )
        results = session.run_with_ort_values(None, given_values)
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


def ours(case: Case) -> tuple[list[Any] | Exception, list[str]]:
    feeds: Any = case.feeds
    with (
        InferSession(0, case.model.SerializeToString(), threads=1) as session,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        if case.form == "mapping":
            feeds = dict(zip(case.names, feeds, strict=True))
        elif case.form == "tuple":
            feeds = tuple(feeds)
        try:
            if case.form == "pipeline":
                outputs = session.infer_pipeline([feeds, feeds], "dymshape")[1]
            elif case.form == "device":
                tensors = session.infer(feeds, "dymshape", out_array=False)
                session.convert_tensors_to_host(tensors)
                outputs = session.convert_tensors_to_arrays(tensors)
            else:
                outputs = session.infer(feeds, "dymshape")
        except (FeedError, InferenceError) as error:
            return error, []
    return [bits(output) for output in outputs], [str(one.message) for one in caught if one.category is FeedWarning]


@pytest.mark.parametrize("part", range(4))
def test_random_models_and_feeds(part: int) -> None:
    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @seed(part)
    @given(a_case())
    def check(case: Case) -> None:
        plain = [feed.astype(feed.dtype.newbyteorder("=")) for feed in case.feeds]
        expected = reference(case, plain)
        outcome, said = ours(case)
        if expected is not None:
            assert outcome == expected, outcome
            assert said == []
            return
        found = [taken_as(dtype, shape, feed) for (dtype, shape), feed in zip(case.declared, plain, strict=True)]
        taken = [one for one in found if one is not None]
        if len(taken) < len(found):
            assert isinstance(outcome, FeedError), outcome
            return
        meant = [
            np.frombuffer(feed.tobytes(), dtype).reshape(shape)
            for (dtype, _), feed, (shape, _) in zip(case.declared, plain, taken, strict=True)
        ]
        right = reference(case, meant)
        assert isinstance(outcome, Exception) if right is None else outcome == right, outcome
        if right is None:
            return
        for name, (dtype, _), feed, (_, measured) in zip(case.names, case.declared, plain, taken, strict=True):
            raw = feed.ndim == 1 and feed.dtype in (np.uint8, np.int8) and feed.dtype.itemsize != dtype.itemsize
            texts = [text for text in said if text.startswith(f"input '{name}' ")]
            assert any("nothing is converted" in text for text in texts) == (feed.dtype != dtype and not raw), texts
            assert any("by its size" in text for text in texts) == measured, texts

    check()
