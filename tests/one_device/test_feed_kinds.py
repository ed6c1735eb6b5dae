"""Unusual and invalid feeds in every form: they give the right numbers, a warning, or an error that names the input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import aclruntime
from ais_bench.errors import DeviceMemoryError, FeedError, FeedTypeError, FeedWarning
from ais_bench.session import InferSession, MultiDeviceSession
from support.session import DEVICES

pytestmark = pytest.mark.usefixtures("leaves_nothing")
X = np.arange(12, dtype=np.float32).reshape(3, 4)


class Kind(NamedTuple):
    """One feed for a float32 input of shape (n, 4). `says`: words of the error; None: the result is that of X."""

    value: Any
    says: tuple[str, ...] | None = None
    error: type[FeedError] = FeedError
    warns: bool = False


def wide(dtype: Any) -> Kind:
    name = np.dtype(dtype).name
    return Kind(X.astype(dtype), ("input 'x'", f"shape (3, 4) of {name}", "pass x.astype(np.float32)"))


REMEDY = "pass np.asarray(x, np.float32)"
KINDS: dict[str, Kind] = {
    "plain": Kind(X),
    "big endian": Kind(X.astype(">f4")),
    "negative strides": Kind(np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]),
    "every other": Kind(np.repeat(X, 2, axis=0)[::2]),
    "fortran": Kind(np.asfortranarray(X)),
    "read only": Kind(np.frombuffer(X.tobytes(), np.float32).reshape(3, 4)),
    "matrix": Kind(np.asmatrix(X)),
    "masked, nothing masked": Kind(np.ma.masked_array(X)),
    "masked": Kind(np.ma.masked_array(X, X > 3), ("input 'x' is a masked array", "x.filled(value)"), FeedTypeError),
    "int32": Kind(X.view(np.int32), warns=True),
    "uint32": Kind(X.view(np.uint32), warns=True),
    "double": wide(np.float64),
    "double, big endian": wide(">f8"),
    "half": wide(np.float16),
    "bfloat16": wide(ml_dtypes.bfloat16),
    "float8": wide(ml_dtypes.float8_e4m3fn),
    "complex64": wide(np.complex64),
    "bool": wide(np.bool_),
    "uint8": wide(np.uint8),
    "int64": wide(np.int64),
    "longdouble": Kind(X.astype(np.longdouble), ("input 'x' is an array of", REMEDY), FeedTypeError),
    "objects": Kind(X.astype(object), ("input 'x' is an array of object", REMEDY), FeedTypeError),
    "texts": Kind(np.array(["a", "b"]), ("input 'x' is an array of <U1; a device",), FeedTypeError),
    "bytes": Kind(np.array([b"a", b"b"]), ("input 'x' is an array of |S1; a device",), FeedTypeError),
    "dates": Kind(np.array(["2020-01-01"], "M8[D]"), ("input 'x' is an array of datetime64[D]; a device",), FeedTypeError),
    "records": Kind(np.zeros(3, [("a", "f4")]), ("input 'x' is an array of [('a', '<f4')]; a device",), FeedTypeError),
    "range": Kind(range(12), ("input 'x' is a range", REMEDY), FeedTypeError),
    "float": Kind(1.5, ("input 'x' is a float", REMEDY), FeedTypeError),
    "text": Kind("1.5", ("input 'x' is a str; accepted are numpy arrays",), FeedTypeError),
    "none": Kind(None, ("input 'x' is a NoneType; accepted are numpy arrays",), FeedTypeError),
    "no dimensions": Kind(np.float32(1), ("input 'x'", "shape () of float32")),
    "other rows": Kind(np.ones((3, 5), np.float32), ("input 'x'", "shape (3, 5) of float32")),
}
FORMS: dict[str, Callable[[InferSession, Any], Any]] = {
    "infer": lambda session, x: session.infer([x], "dymshape"),
    "mapping": lambda session, x: session.infer({"x": x}, "dymshape"),
    "on the device": lambda session, x: session.infer([x], "dymshape", out_array=False),
    "pipeline": lambda session, x: session.infer_pipeline([[x]], "dymshape")[0],
    "iteration": lambda session, x: session.infer_iteration([x], [-1], 2, "dymshape"),
    "iteration, mapping": lambda session, x: session.infer_iteration({"x": x}, [-1], 2, "dymshape"),
    "run": lambda session, x: session.run([x], out_array=True),
}
POOL_FORMS: dict[str, Callable[[MultiDeviceSession, Any], Any]] = {
    "infer": lambda session, x: session.infer([x]),
    "mapping": lambda session, x: session.infer({"x": x}),
    "by device": lambda session, x: session.infer({0: [[x]]})[0][0],
    "submit": lambda session, x: session.submit([x]).result(60),
    "map": lambda session, x: next(iter(list(session.map([[x]])))),
    "map, mapping": lambda session, x: next(iter(list(session.map([{"x": x}])))),
    "pipeline": lambda session, x: session.infer_pipeline([[x]])[0],
    "iteration": lambda session, x: session.infer_iteration([x], [-1], 2),
}


def check(kind: Kind, form: Callable[[Any, Any], Any], session: Any) -> list[str]:
    """Return the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind.says is None:
            (y,) = form(session, kind.value)
            if isinstance(y, aclruntime.Tensor):
                y.to_host()
            assert np.array_equal(np.array(y), -X)
        else:
            with pytest.raises(kind.error) as raised:
                form(session, kind.value)
            assert all(words in str(raised.value) for words in kind.says), str(raised.value)
    return [str(one.message) for one in caught if one.category is FeedWarning]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_in_every_form(model: Callable[[str], str], name: str) -> None:
    kind = KINDS[name]
    with InferSession(0, model("batch")) as session:
        said = [text for form in FORMS.values() for text in check(kind, form, session)]
        assert [f"was given {name};" in text for text in said] == [True] * kind.warns
        (y,) = session.infer([X], "dymshape")
        assert np.array_equal(y, -X)


def test_every_kind_in_every_form_of_a_pool(model: Callable[[str], str]) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as session:
        for name, kind in KINDS.items():
            said = [text for form in POOL_FORMS.values() for text in check(kind, form, session)]
            assert [f"was given {name};" in text for text in said] == [True] * kind.warns


def test_tensors_are_held_to_the_same_rules(model: Callable[[str], str]) -> None:
    with InferSession(0, model("batch")) as session:
        for name, kind in KINDS.items():
            if not isinstance(kind.value, np.ndarray) or kind.error is FeedTypeError:
                continue
            tensor = aclruntime.Tensor(kind.value)
            for form in ("infer", "mapping", "iteration"):
                said = check(kind._replace(value=tensor), FORMS[form], session)
                assert len(said) == (kind.warns and form == "infer"), name


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_torch_tensors_are_held_to_the_same_rules(model: Callable[[str], str], name: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X).to(getattr(torch, name))
    with InferSession(0, model("batch")) as session, pytest.raises(FeedError, match=rf"'x'.*\(3, 4\) of {name}.*astype"):
        session.infer([tensor], "dymshape")


def test_a_list_of_numbers_is_no_array(model: Callable[[str], str]) -> None:
    with InferSession(0, model("batch")) as one, MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as many:
        for call in (
            lambda: one.infer([X.tolist()]),
            lambda: one.infer({"x": X.tolist()}),
            lambda: many.infer([X.tolist()]),
            lambda: list(many.map([[X.tolist()]])),
        ):
            with pytest.raises(FeedTypeError, match=r"input 'x' is a list; pass np\.asarray\(x, np\.float32\)"):
                call()
        for call in (lambda: one.infer_pipeline([[X.tolist()]]), lambda: many.infer_pipeline([[X.tolist()]])):
            with pytest.raises(FeedError, match="takes 1 input"):  # here a list in a list is a set of inputs
                call()


def test_a_data_sets_mistakes_name_the_input(model: Callable[[str], str]) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as session:
        with pytest.raises(FeedTypeError, match=r"input 'x' is a list; pass np\.asarray\(x, np\.float32\)"):
            session.infer_batch([X.tolist()])
        with pytest.raises(FeedError, match=r"astype\(np\.float32\)"):
            session.infer_batch(X.astype(np.float64))
        with pytest.raises(FeedError, match=r"takes inputs \['x'\], got 2 arrays"):
            session.infer_batch([X, X])


def test_what_no_memory_holds_contiguous_is_told_with_its_size(model: Callable[[str], str]) -> None:
    huge = np.broadcast_to(np.float32(1), (2**44, 4))
    words = r"input 'x' is not contiguous, and there is not enough memory.* 256. TiB"
    with InferSession(0, model("batch")) as one, MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as many:
        calls: list[Callable[[Any], Any]] = [
            lambda feeds: one.infer(feeds),
            lambda feeds: one.run(feeds),
            lambda feeds: one.infer_pipeline([feeds]),
            lambda feeds: one.infer_iteration(feeds, [0], 2),
            lambda feeds: many.infer(feeds),
            lambda feeds: many.infer({0: [feeds]}),
            lambda feeds: many.submit(feeds).result(60),
            lambda feeds: list(many.map([feeds])),
            lambda feeds: list(many.map_unordered([tuple(feeds)])),
            lambda feeds: many.infer_pipeline([feeds]),
            lambda feeds: many.infer_iteration(feeds, [0], 2),
        ]
        for call in calls:
            with pytest.raises(DeviceMemoryError, match=words):
                call([huge])
        for session in (one, many):
            (y,) = session.infer([X])  # type: ignore[attr-defined]
            assert np.array_equal(y, -X)


def test_what_is_no_input_of_a_model_is_called_what_it_is() -> None:
    with pytest.raises(FeedTypeError, match="the array of a Tensor is a str"):
        aclruntime.Tensor("abc")
    with pytest.raises(FeedTypeError, match="the array of a Tensor is an array of object"):
        aclruntime.Tensor(np.array([None]))
