"""Valid feeds: one test for each usage in programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import aclruntime
from ais_bench.errors import FeedError, FeedTypeError, FeedWarning
from ais_bench.session import InferSession
from support.scripts import run_script

Path_ = Callable[[str], str]
pytestmark = pytest.mark.usefixtures("leaves_nothing")

X = np.arange(12, dtype=np.float32).reshape(3, 4)
ELEMENTS = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "BFLOAT16": ml_dtypes.bfloat16,
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "INT4": ml_dtypes.int4,
    "UINT4": ml_dtypes.uint4,
}


class OnlyDLPack:
    """A tensor of another library that has only DLPack."""

    def __init__(self, array: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self._array = array
        self._device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


class TwoArrays:
    """A batch of a data loader: an iterable that is neither a list nor a tuple."""

    def __init__(self, *arrays: Any) -> None:
        self._arrays = arrays

    def __iter__(self) -> Any:
        return iter(self._arrays)


def difference(session: InferSession, feeds: Any) -> list[int]:
    return [int(value) for value in session.infer(feeds)[0]]


A, B = np.array([9, 8, 7, 6], np.int32), np.array([1, 2, 3, 4], np.int32)


@pytest.mark.parametrize(
    "feeds",
    [
        [A, B],
        (A, B),
        np.stack([A, B]),
        {"a": A, "b": B}.values(),
        TwoArrays(A, B),
        lambda: (array for array in (A, B)),
        {"b": B, "a": A},
    ],
    ids=["list", "tuple", "array", "dict values", "iterable", "generator", "mapping by name"],
)
def test_feeds_are_any_iterable_or_a_mapping(model: Path_, feeds: Any) -> None:
    with InferSession(0, model("sub_then_swap")) as session:
        assert difference(session, feeds() if callable(feeds) else feeds) == [8, 6, 4, 2]


def test_a_4d_array_is_iterated_over_its_first_axis(model: Path_) -> None:
    both = np.random.default_rng(0).random((2, 1, 3, 32, 32), np.float32)
    with InferSession(0, model("add")) as session:
        assert np.array_equal(session.infer(both)[0], both[0] + both[1])
        assert np.array_equal(session.infer(both[:, 0])[0], both[0] + both[1])
    image = np.ones((1, 3, 8, 8), np.float32)
    with InferSession(0, model("image")) as session:
        assert np.array_equal(session.infer(image, mode="dymshape")[0], -image)


def test_mapping_names_missing_and_unknown_inputs(model: Path_) -> None:
    with InferSession(0, model("sub_then_swap")) as session:
        with pytest.raises(FeedError, match=r"missing are \['b'\], unknown are \['c'\]"):
            session.infer({"a": A, "c": B})
        assert difference(session, [A, B]) == [8, 6, 4, 2]


def test_only_the_byte_size_counts(model: Path_) -> None:
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    with InferSession(0, model("add")) as session:
        for same_bytes in (
            x[0],
            x.reshape(1, 32, 32, 3),
            x.ravel(),
            np.frombuffer(x.tobytes(), np.int8),
            np.frombuffer(x.tobytes(), np.float64),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FeedWarning)
                assert np.array_equal(session.infer([same_bytes, x])[0], x + x)


def test_wrong_byte_size_names_input_sizes_and_shapes(model: Path_) -> None:
    x = np.zeros((1, 3, 32, 32), np.float32)
    with InferSession(0, model("add")) as session:
        with pytest.raises(FeedError) as error:
            session.infer([x, x.astype(np.float64)])
        for part in ("'y'", "12288", "24576", "(1, 3, 32, 32)", "float32", "float64"):
            assert part in str(error.value)
        assert session.infer([x, x])[0].shape == x.shape


def test_an_element_type_of_another_kind_warns_once_per_input(model: Path_) -> None:
    with InferSession(0, model("sub_then_swap")) as session:
        with pytest.warns(FeedWarning) as caught:
            session.infer_pipeline([[A.view(np.float32), B.view(np.float32)]] * 2)
        assert [name for name in ("'a'", "'b'") for warning in caught if name in str(warning.message)] == ["'a'", "'b'"]
        assert len(caught) == 2
        assert difference(session, [A, B]) == [8, 6, 4, 2]


def test_warning_turned_into_an_error_leaves_the_session_usable(model: Path_) -> None:
    with InferSession(0, model("sub_then_swap")) as session, warnings.catch_warnings():
        warnings.simplefilter("error", FeedWarning)
        with pytest.raises(FeedWarning):
            session.infer([A.view(np.float32), B])
        assert difference(session, [A, B]) == [8, 6, 4, 2]


class Subclass(np.ndarray):  # type: ignore[type-arg]
    """A subclass like those of programs."""


def _strided(array: Any) -> Any:
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize(
    "change",
    [
        _strided,
        np.asfortranarray,
        lambda x: x[:, ::-1][:, ::-1],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.view(Subclass),
        lambda x: x.astype(">f4"),
        lambda x: np.broadcast_to(x, (1, 3, 4))[0],
    ],
    ids=["strided", "fortran", "twice reversed", "negative strides", "subclass", "big-endian", "broadcast"],
)
def test_arrays_in_any_layout(model: Path_, change: Callable[[Any], Any]) -> None:
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer([change(X)], mode="dymbatch")[0], -X)


def test_channel_reversal_and_transposes(model: Path_) -> None:
    image = np.random.default_rng(0).random((8, 6, 3), np.float32)
    fed = image[:, :, ::-1].transpose(2, 0, 1)[None]
    with InferSession(0, model("image")) as session:
        assert np.array_equal(session.infer([fed], mode="dymhw")[0], -np.ascontiguousarray(fed))


def test_memmap_and_read_only_arrays(model: Path_, tmp_path: Path) -> None:
    X.tofile(tmp_path / "x.bin")
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "r", shape=X.shape)
    frozen = X.copy()
    frozen.flags.writeable = False
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer([mapped], "dymbatch")[0], -X)
        assert np.array_equal(session.infer([frozen], "dymbatch")[0], -X)


@pytest.mark.parametrize("value", [np.float32(3), np.array(3, np.float32), np.array([3], np.float32)])
def test_scalars(model: Path_, value: Any) -> None:
    with InferSession(0, model("scalar")) as session:
        (output,) = session.infer([value])
        assert output.shape == ()
        assert output == -3


def test_arrays_without_elements(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        (output,) = session.infer([np.empty((0, 4), np.float32)], mode="dymshape")
        assert output.shape == (0, 4)
        assert output.dtype == np.float32


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_element_type_goes_in_and_comes_out(model: Path_, element: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(ELEMENTS[element])
    with InferSession(0, model(f"identity-{element}")) as session:
        (desc,) = session.get_inputs()
        assert np.dtype(getattr(ml_dtypes, desc.datatype.name, desc.datatype.name)) == array.dtype
        for fed in (array, _strided(array)):
            (output,) = session.infer([fed])
            assert output.dtype == array.dtype
            assert output.tobytes() == array.tobytes()


def test_negative_int4_values(model: Path_) -> None:
    array = np.array([[-8, -1, 7], [3, -4, 0]]).astype(ml_dtypes.int4)
    with InferSession(0, model("identity-INT4")) as session:
        assert session.infer([array])[0].astype(np.int8).tolist() == [[-8, -1, 7], [3, -4, 0]]
        tensor = aclruntime.Tensor(array)
        tensor.to_device(0)
        assert session.infer([tensor])[0].astype(np.int8).tolist() == [[-8, -1, 7], [3, -4, 0]]


def test_dlpack_producers(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer([OnlyDLPack(X)], "dymbatch")[0], -X)
        assert np.array_equal(session.infer([OnlyDLPack(np.asfortranarray(X))], "dymbatch")[0], -X)
        with pytest.raises(FeedError, match=r"DLPack device \(2, 0\)"):
            session.infer([OnlyDLPack(X, device=(2, 0))], "dymbatch")


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        [1.0, 2.0],
        None,
        "text",
        b"bytes",
        np.array(["a"]),
        np.array([{}]),
        np.zeros(4, [("a", "f4")]),
        np.zeros(4, ml_dtypes.float8_e3m4),
    ],
)
def test_what_is_no_array_is_named(model: Path_, value: Any) -> None:
    with InferSession(0, model("batch")) as session:
        with pytest.raises(FeedTypeError, match="input 'x' is an? ") as error:
            session.infer([value], "dymbatch")
        assert isinstance(error.value, RuntimeError)
        assert isinstance(error.value, TypeError)
        wanted = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
        assert wanted in str(error.value)
        assert np.array_equal(session.infer([X], "dymbatch")[0], -X)


class Raising:
    """An object whose conversion to an array raises an error of its own."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("in __array__")


def test_what_cannot_be_converted_is_named_although_its_conversion_raises(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        with pytest.raises(FeedTypeError, match="input 'x' is a .*Raising; accepted are"):
            session.infer([Raising()], "dymbatch")
        with pytest.raises(FeedTypeError, match=r"must have a pair of ints as DLPack device, got \('cpu', None\)"):
            session.infer([OnlyDLPack(X, device=("cpu", None))], "dymbatch")  # type: ignore[arg-type]


@pytest.mark.parametrize("feeds", [None, 3, "text", b"bytes"])
def test_feeds_that_are_no_iterable_are_named(model: Path_, feeds: Any) -> None:
    with InferSession(0, model("batch")) as session, pytest.raises(FeedError, match=type(feeds).__name__):
        session.infer(feeds)


def test_inputs_may_be_overwritten_after_return(model: Path_) -> None:
    x = X.copy()
    with InferSession(0, model("batch")) as session:
        (output,) = session.infer([x], "dymbatch")
        (tensor,) = session.infer([x], "dymbatch", out_array=False)
        x[:] = 100
        tensor.to_host()
        assert np.array_equal(output, -X)
        assert np.array_equal(np.array(tensor), -X)


def test_an_input_that_the_model_hands_through_is_not_shared(model: Path_) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with InferSession(0, model("identity-FLOAT")) as session:
        (output,) = session.infer([x])
        (tensor,) = session.infer([x], out_array=False)
        x[:] = 100
        tensor.to_host()
        assert output.ravel().tolist() == np.array(tensor).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_an_open_input_that_the_model_hands_through_is_not_shared(model: Path_) -> None:
    x = np.arange(4, dtype=np.float32)
    with InferSession(0, model("hand_through")) as session:
        (output, _) = session.infer([x])
        (tensor, _) = session.infer([x], out_array=False)
        x[:] = 100
        tensor.to_host()
        assert output.tolist() == np.array(tensor).tolist() == [0, 1, 2, 3]
        # The output is in the input's memory and replaces its content.
        assert session.infer_iteration([output], [0], 50)[0].tolist() == [0, 1, 2, 3]


def test_a_bare_input_of_a_model_with_one(model: Path_) -> None:
    with InferSession(0, model("scalar")) as session:
        assert session.infer(np.float32(3))[0] == -3
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer(X)[0], -X)
        assert np.array_equal(session.infer(aclruntime.Tensor(X))[0], -X)


def test_a_bare_torch_batch_is_fed_as_an_array_would_be(model: Path_) -> None:
    torch = pytest.importorskip("torch")
    with InferSession(0, model("batch")) as session:
        for samples in (1, 3):
            assert session.infer(torch.ones(samples, 4))[0].tolist() == [[-1] * 4] * samples


def test_torch_tensors_that_numpy_cannot_hold_are_named() -> None:
    pytest.importorskip("torch")
    printed = run_script(  # in a separate process, because quantising starts threads of torch
        """
        import torch
        from ais_bench.errors import FeedError
        from ais_bench.one_device.feeds import to_array

        try:
            to_array(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8), "input 'x'")
        except FeedError as error:
            print(error)
        """
    )
    assert "input 'x' is a torch tensor of torch.quint8" in printed


def test_pipeline_elements_may_be_bare_arrays(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        results = session.infer_pipeline([X, [X * 2], (X[:1],)], mode="dymbatch")
        assert [output.tolist() for (output,) in results] == [(-X).tolist(), (X * -2).tolist(), (-X[:1]).tolist()]
        one = np.ones((1, 4), np.float32)
        assert [len(outputs) for outputs in session.infer_pipeline([one, one], "dymshape")] == [1, 1]


def test_a_list_of_sets_in_a_pipelines_list_counts_as_those_sets(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        results = session.infer_pipeline([[[X], [X[:1]]], [X * 2]], mode="dymbatch")
        assert [output.tolist() for (output,) in results] == [(-X).tolist(), (-X[:1]).tolist(), (X * -2).tolist()]
        with pytest.raises(FeedError, match="takes 1 input .'x'.; it was given 2"):
            session.infer_pipeline([[[1, 2]]])


TORCH = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")


@pytest.mark.parametrize("name", TORCH)
def test_torch_tensors_of_every_listed_class(model: Path_, name: str) -> None:
    torch = pytest.importorskip("torch")
    elements = {np.dtype(kind).name: element for element, kind in ELEMENTS.items()}
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, name))
    with InferSession(0, model(f"identity-{elements[name]}")) as session:
        for fed in (tensor, tensor.t().contiguous().t(), tensor.clone().share_memory_()):
            (output,) = session.infer([fed])
            assert output.astype(np.float32).tolist() == [[0, 1, 1], [1, 0, 1]]


def test_torch_tensors_on_a_device_are_named() -> None:
    torch = pytest.importorskip("torch")
    from ais_bench.one_device.feeds import to_array

    with pytest.raises(FeedError, match="meta"):
        to_array(torch.empty(2, device="meta"), "input 'x'")
