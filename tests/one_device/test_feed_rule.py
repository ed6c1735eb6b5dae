"""The reading of an input: by its own shape, by its bytes with a warning, or refused. docs/feeds.md has the table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import aclruntime
from ais_bench.errors import FeedError, FeedWarning
from ais_bench.session import InferSession, MultiDeviceSession
from support.session import DEVICES

Path_ = Callable[[str], str]
Feed = Callable[[Any, str], list[Any]]
pytestmark = pytest.mark.usefixtures("leaves_nothing")

ELEMENTS: dict[str, Any] = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "FLOAT16": np.float16,
    "BFLOAT16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
PICTURE = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)

# Every way to feed a model with one input. Each function calls it with the feed and returns the outputs.
FORMS: dict[str, Callable[[InferSession, Any], list[Any]]] = {
    "infer list": lambda session, x: session.infer([x], "dymshape"),
    "infer bare": lambda session, x: session.infer(x, "dymshape"),
    "infer tuple": lambda session, x: session.infer((x,), "dymshape"),
    "infer mapping": lambda session, x: session.infer({"x": x}, "dymshape"),
    "infer tensor": lambda session, x: session.infer([aclruntime.Tensor(x)], "dymshape"),
    "infer bare tensor": lambda session, x: session.infer(aclruntime.Tensor(x), "dymshape"),
    "on the device": lambda session, x: arrays_of(session.infer([x], "dymshape", out_array=False)),
    "run": lambda session, x: session.run([x], out_array=True),
    "run bare": lambda session, x: session.run(x, out_array=True),
    "infer_pipeline": lambda session, x: session.infer_pipeline([[x]], "dymshape")[0],
    "infer_pipeline bare": lambda session, x: session.infer_pipeline([x], "dymshape")[0],
    "infer_iteration": lambda session, x: session.infer_iteration([x], [-1], 2, "dymshape"),
    "infer_iteration bare": lambda session, x: session.infer_iteration(x, [-1], 2, "dymshape"),
    "first_inner_run": lambda session, x: inner(session, x),
}
POOL_FORMS: dict[str, Callable[[MultiDeviceSession, Any], list[Any]]] = {
    "infer": lambda session, x: session.infer([x]),
    "infer bare": lambda session, x: session.infer(x),
    "map": lambda session, x: next(iter(session.map([x]))),
    "map list": lambda session, x: next(iter(session.map([[x]]))),
    "submit": lambda session, x: session.submit(x).result(60),
    "by device": lambda session, x: session.infer({0: [x]})[0][0],
    "infer_pipeline": lambda session, x: session.infer_pipeline([x])[0],
    "infer_iteration": lambda session, x: session.infer_iteration([x], [-1], 2),
}


def arrays_of(tensors: list[Any]) -> list[Any]:
    for tensor in tensors:
        tensor.to_host()
    return [np.array(tensor) for tensor in tensors]


def inner(session: InferSession, x: Any) -> list[Any]:
    session.first_inner_run([x], "dymshape")
    outputs = session.inner_run([-1], get_outputs=True)
    assert outputs is not None
    return arrays_of(outputs)


@contextmanager
def feed_warnings() -> Iterator[list[str]]:
    """Yield the texts of the FeedWarnings in the block."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts.extend(str(warning.message) for warning in caught if warning.category is FeedWarning)


def some(dtype: Any, shape: tuple[int, ...]) -> Any:
    return (np.arange(np.prod(shape)).reshape(shape) % 2).astype(np.float32).astype(dtype)


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_pair_of_types_on_an_open_dimension(model: Path_, element: str) -> None:
    wanted = np.dtype(ELEMENTS[element])
    with InferSession(0, model(f"open-{element}")) as session:
        for given in map(np.dtype, ELEMENTS.values()):
            x = some(given, (2, 4))
            with feed_warnings() as texts:
                for form in FORMS.values():
                    if "float8" in given.name or given.name == "bfloat16":
                        form = FORMS["infer list"]
                    if given.itemsize == wanted.itemsize:
                        (y,) = form(session, x)
                        assert (y.dtype, y.shape, y.tobytes()) == (wanted, (2, 4), x.tobytes())
                    else:
                        with pytest.raises(FeedError, match=rf"'x'.*\(2, 4\) of {given.name}.*astype\(\w+\.{wanted.name}"):
                            form(session, x)
            if given == wanted or given.itemsize != wanted.itemsize:
                assert texts == []
            else:
                assert len(texts) == 1
                assert wanted.name in texts[0]
                assert given.name in texts[0]


@pytest.mark.parametrize("form", FORMS)
def test_doubles_for_floats_are_refused_in_every_form(model: Path_, form: str) -> None:
    with InferSession(0, model("pictures")) as session:
        for wrong in (np.ones((1, 3, 8, 8)), np.ones((3, 8, 8)), np.ones((8, 8, 3)), np.ones((2, 3, 8, 8))):
            with pytest.raises(FeedError, match=r"x\.astype\(np\.float32\)"):
                FORMS[form](session, wrong)
        with pytest.raises(FeedError, match=r"x\.astype\(np\.float32\)"):
            FORMS[form](session, np.zeros((16, 16, 3), np.uint8))  # as many bytes as one sample
        (y,) = FORMS[form](session, PICTURE)
        assert y.shape == PICTURE.shape
        assert np.array_equal(np.abs(y), PICTURE)


def test_doubles_for_floats_are_refused_by_a_pool(model: Path_) -> None:
    with MultiDeviceSession(model("pictures"), devices=DEVICES[:1]) as session:
        for form in POOL_FORMS.values():
            for wrong in (np.ones((1, 3, 8, 8)), np.ones((3, 8, 8)), np.zeros((16, 16, 3), np.uint8)):
                with pytest.raises(FeedError, match=r"x\.astype\(np\.float32\)"):
                    form(session, wrong)
            (y,) = form(session, PICTURE)
            assert np.array_equal(y, -PICTURE)


def test_a_sample_of_another_width_is_no_batch(model: Path_) -> None:
    with InferSession(0, model("open-INT32")) as session:
        with pytest.raises(FeedError, match=r"x\.astype\(np\.int32\)"):
            session.infer([np.ones(4, np.int64)], "dymshape")
        assert session.infer([np.ones(4, np.int32)], "dymshape")[0].shape == (1, 4)


@pytest.mark.parametrize(
    "raw",
    [
        lambda x: np.frombuffer(x.tobytes(), np.uint8),
        lambda x: np.frombuffer(x.tobytes(), np.int8),
        lambda x: np.frombuffer(x.tobytes(), np.float64),
        lambda x: np.frombuffer(x.tobytes(), "V16"),
        lambda x: bytearray(x.tobytes()),
        lambda x: memoryview(x.tobytes()),
        lambda x: aclruntime.BaseTensor(x.ctypes.data, x.nbytes),
        lambda x: np.concatenate([x, x]).ravel()[: x.size],
    ],
    ids=["uint8", "int8", "float64", "void", "bytearray", "memoryview", "BaseTensor", "flat floats"],
)
def test_flat_data_is_measured_with_a_warning(model: Path_, raw: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    with InferSession(0, model("pictures")) as session:
        with feed_warnings() as texts:
            for _ in range(3):
                (y,) = session.infer([raw(x)], "dymshape")
        assert np.array_equal(y, -x)
        measured = [text for text in texts if "(3, 3, 8, 8)" in text]
        assert len(measured) == 1
        with pytest.raises(FeedError):
            session.infer([raw(x)[:-1] if hasattr(raw(x), "__getitem__") else raw(x[:, :, :, :7].copy())], "dymshape")


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("batch", np.zeros(3, np.float32), "2 dimensions, or a multiple of 16 bytes; .* 12 bytes; reshape it to 2 dimensions"),
        ("batch", np.zeros((), np.float32), "2 dimensions, or a multiple of 16 bytes; .* 4 bytes; reshape it to 2 dimensions"),
        ("batch", np.zeros(7, np.uint8), r"a multiple of 16 bytes; .* 7 bytes; pass x.view\(np.float32\) with 2 dimensions"),
        (
            "image",
            np.zeros(64, np.float32),
            r"4 dimensions, because 2 of them are open \(-1\), which a number of bytes does not",
        ),
        ("image", np.zeros((1, 1, 3, 8, 8), np.float32), r"given shape \(1, 1, 3, 8, 8\).*; reshape it to 4 dimensions"),
        (
            "image",
            np.zeros((1, 3, 8), np.float32),
            r"takes .*, \(1, 3, 3, 8\) with the given dimensions in place of -1, 288 bytes",
        ),
    ],
)
def test_the_wrong_number_of_dimensions_is_told_with_the_right_one(model: Path_, name: str, given: Any, text: str) -> None:
    with InferSession(0, model(name)) as session, pytest.raises(FeedError, match=text):
        session.infer([given], "dymshape")


def test_raw_bytes_of_a_fixed_shape_are_taken_without_a_word(model: Path_) -> None:
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    with InferSession(0, model("add")) as session, feed_warnings() as texts:
        assert np.array_equal(session.infer([np.frombuffer(x.tobytes(), np.int8), x])[0], x + x)
    assert texts == []


def test_one_warning_hides_no_other(model: Path_) -> None:
    with InferSession(0, model("open-FLOAT")) as session:
        for given in (np.int32, np.uint32):
            with feed_warnings() as texts:
                session.infer([some(given, (2, 4))], "dymshape")
                session.infer([some(given, (2, 4))], "dymshape")
            assert [np.dtype(given).name in text for text in texts] == [True]
        with feed_warnings() as texts:
            session.infer([some(np.int32, (8,))], "dymshape")
        assert len(texts) == 2  # flat now, and still of another type


def test_pictures_in_another_order_keep_their_batch(model: Path_) -> None:
    with InferSession(0, model("pictures")) as session, feed_warnings() as texts:
        for shape in ((2, 8, 8, 3), (8, 8, 3), (3, 8, 8), (2, 3, 8, 8)):
            x = np.random.default_rng(0).random(shape, np.float32)
            (y,) = session.infer([x], "dymshape")
            assert y.shape == (shape[0] if len(shape) == 4 else 1, 3, 8, 8)
            assert y.tobytes() == (-x).tobytes()
    assert texts == []


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (16, 16, 3), (4, 3, 8, 16), (1, 12, 8, 8)])
def test_a_picture_of_another_size_is_no_batch(model: Path_, shape: tuple[int, ...]) -> None:
    with InferSession(0, model("pictures")) as session, pytest.raises(FeedError, match="bytes"):
        session.infer([np.ones(shape, np.float32)], "dymshape")
