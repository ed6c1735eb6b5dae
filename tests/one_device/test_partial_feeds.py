"""Feeds that a run may omit or add: optional inputs, and constants that can be overridden."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ais_bench.emulator import pack
from ais_bench.errors import AisBenchError, FeedError, FeedWarning
from ais_bench.session import InferSession, MultiDeviceSession
from support.partial_models import SCALE, SHIFT, affine, handed_through, save, with_optional
from support.reference import on_host
from support.session import DEVICES

pytestmark = pytest.mark.usefixtures("leaves_nothing")

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def reference(path: str, feeds: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def same(got: Any, wanted: list[Any]) -> bool:
    return len(got) == len(wanted) and all(np.array_equal(one, two) for one, two in zip(got, wanted, strict=True))


FEEDS: list[dict[str, Any]] = [
    {"x": X},
    {"x": X, "scale": np.float32([7, 8, 9])},
    {"shift": np.float32([0, 0, 1]), "x": X},
    {"x": X[:1], "scale": np.float32([0, 1, 0]), "shift": np.float32([5, 5, 5])},
]
ONE: dict[str, Callable[[InferSession, Any], Any]] = {
    "infer": lambda session, feeds: session.infer(feeds, "dymshape"),
    "tensors": lambda session, feeds: session.convert_tensors_to_arrays(
        on_host(session.infer(feeds, "dymshape", out_array=False))
    ),
    "run": lambda session, feeds: session.run(feeds, out_array=True),
    "infer_pipeline": lambda session, feeds: session.infer_pipeline([feeds, feeds], "dymshape")[1],
    "infer_iteration": lambda session, feeds: session.infer_iteration(feeds, [-1], 3, "dymshape"),
}
MANY: dict[str, Callable[[MultiDeviceSession, Any], Any]] = {
    "infer": lambda session, feeds: session.infer(feeds),
    "by device": lambda session, feeds: session.infer({0: [feeds, feeds]})[0][1],
    "submit": lambda session, feeds: session.submit(feeds).result(60),
    "map": lambda session, feeds: list(session.map([feeds] * 3))[2],
    "infer_pipeline": lambda session, feeds: session.infer_pipeline([feeds])[0],
    "infer_iteration": lambda session, feeds: session.infer_iteration(feeds, [-1], 2),
}


@pytest.mark.parametrize("call", ONE)
def test_a_constant_that_may_be_overridden_is_fed_by_name(tmp_path: Path, call: str) -> None:
    path = save(tmp_path / "affine.onnx", affine())
    with InferSession(0, path) as session:
        assert [desc.name for desc in session.get_inputs()] == ["x"]
        assert [(desc.name, desc.shape, desc.optional) for desc in session.get_overridable_initializers()] == [
            ("scale", [3], True),
            ("shift", [3], True),
        ]
        for feeds in [*FEEDS, FEEDS[0], FEEDS[1], FEEDS[0]]:  # values of one run do not affect the next run
            assert same(ONE[call](session, feeds), reference(path, feeds))
        assert same(ONE[call](session, [X]), reference(path, FEEDS[0]))


@pytest.mark.parametrize("call", MANY)
def test_a_pools_workers_take_them_too(tmp_path: Path, call: str) -> None:
    path = save(tmp_path / "affine.onnx", affine())
    with MultiDeviceSession(path, devices=DEVICES) as session:
        assert [desc.name for desc in session.get_overridable_initializers()] == ["scale", "shift"]
        for feeds in [*FEEDS, FEEDS[0]]:
            assert same(MANY[call](session, feeds), reference(path, feeds))


@pytest.mark.parametrize("threads", [0, None])
def test_callables_have_them(tmp_path: Path, threads: int | None) -> None:
    path = save(tmp_path / "affine.onnx", affine())
    wanted = [reference(path, feeds) for feeds in FEEDS]
    with MultiDeviceSession(path, devices=DEVICES[:1], preprocess=lambda n: FEEDS[n], callable_threads=threads) as made:
        assert all(map(same, made.map(range(len(FEEDS))), wanted))
    with MultiDeviceSession(
        path, devices=DEVICES[:1], postprocess=lambda out: out[0] + 1, callable_threads=threads
    ) as finished:
        assert all(np.array_equal(got, one[0] + 1) for got, one in zip(finished.map(FEEDS), wanted, strict=True))


def test_an_output_that_is_the_constant_has_the_value_given(tmp_path: Path) -> None:
    path = save(tmp_path / "through.onnx", handed_through())
    x = np.ones(3, np.float32)
    with InferSession(0, path) as session:
        for feeds in ({"x": x}, {"x": x, "scale": np.float32([4, 5, 6])}, {"x": x}):
            got = session.infer(feeds)
            assert same(got, reference(path, feeds))
            got[1][:] = 0  # the output belongs to the caller


def test_values_of_constants_are_held_to_the_rules_of_inputs(tmp_path: Path) -> None:
    with InferSession(0, save(tmp_path / "affine.onnx", affine())) as session:
        with pytest.raises(FeedError, match=r"'scale' takes .* 12 bytes.*\(3,\) of float64.*astype\(np\.float32\)"):
            session.infer({"x": X, "scale": np.ones(3)})
        with pytest.raises(FeedError, match="input 'scale' is a list; pass np.asarray"):
            session.infer({"x": X, "scale": [1, 2, 3]})
        with pytest.warns(FeedWarning, match="'scale' takes float32 and was given int32"):
            session.infer({"x": X, "scale": np.ones(3, np.int32)})
        with pytest.raises(FeedError, match="unknown are \\['scael'\\]; did you mean 'scale'"):
            session.infer({"x": X, "scael": SCALE})
        with pytest.raises(FeedError, match="missing are \\['x'\\]"):
            session.infer({"scale": SCALE})
        for places in (
            [X, SCALE],
            [X, SCALE, SHIFT],
            (X, None, None),
            iter([X, SCALE, SHIFT]),
        ):  # constants can be given only by name
            with pytest.raises(FeedError, match="takes 1 input"):
                session.infer(places)
    with MultiDeviceSession(save(tmp_path / "affine.onnx", affine()), devices=DEVICES[:1]) as many:
        mistaken = {"x": X, "scale": np.ones(3, np.int32)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", FeedWarning)
            for _ in range(3):
                many.infer(mistaken)
                many.infer_iteration(mistaken, [0], 2)
        assert [warning.filename for warning in told] == [__file__]
        assert "'scale' takes float32 and was given int32" in str(told[0].message)
        with pytest.raises(FeedError, match="input 'scale' is a list; pass np.asarray"):
            many.infer({"x": X, "scale": [1, 2, 3]})
        for wrong in ([X, SCALE, SHIFT], (X, SCALE)):
            with pytest.raises(FeedError, match="takes 1 input"):
                many.infer(wrong)
        with pytest.raises(FeedError, match="did you mean 'scale'"):
            many.infer({"x": X, "scael": SCALE})
        with pytest.raises(FeedError, match="did you mean 'scale'"):
            many.infer_batch({"x": X, "scael": SCALE})
        with pytest.raises(FeedError, match="input 'scale' is a list; pass np.asarray"):
            many.infer_batch({"x": X, "scale": [1, 2, 3]})
        with pytest.raises(FeedError, match="got 2 arrays"):
            many.infer_batch([X, SCALE])


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "optional.onnx", with_optional())
    extra = np.ones(2, np.float32)
    ways: list[tuple[Any, bool]] = [
        ([X, None], False),
        ((X, None), False),
        ({"x": X}, False),
        ({"x": X, "extra": None}, False),
        ([X, extra], True),
        ({"extra": extra, "x": X}, True),
    ]
    with InferSession(0, path) as one, MultiDeviceSession(path, devices=DEVICES) as many:
        assert [(desc.name, desc.shape, desc.optional) for desc in one.get_inputs()] == [
            ("x", [-1, 3], False),
            ("extra", [2], True),
        ]
        for feeds, has in ways:
            for got in (
                *(call(one, feeds) for name, call in ONE.items() if name != "infer_iteration"),
                one.infer_iteration(feeds, [-1, -1], 2, "dymshape"),
                *(call(many, feeds) for name, call in MANY.items() if name != "infer_iteration"),
            ):
                assert same(got, [-X, np.array(has)]), (feeds, got)
        assert [bool(has) for _, has in many.map([feeds for feeds, _ in ways])] == [has for _, has in ways]
        for session in (one, many):
            with pytest.raises(FeedError, match="input 'x' is a NoneType"):
                session.infer([None, extra])  # type: ignore[attr-defined]
            with pytest.raises(FeedError, match=r"missing are \['x'\]"):
                session.infer({"extra": extra})  # type: ignore[attr-defined]
            with pytest.raises(FeedError, match="takes 2 inputs"):
                session.infer([X])  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", [{}, {"scale": np.float32([7, 8, 9])}, {"shift": np.float32([1, 0, 1]), "scale": None}])
@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_a_data_set_has_constants_for_all_of_its_runs(tmp_path: Path, given: dict[str, Any], batch_size: int | None) -> None:
    path = save(tmp_path / "affine.onnx", affine())
    rows = np.arange(33, dtype=np.float32).reshape(11, 3)
    constants = {name: value for name, value in given.items() if value is not None}
    with MultiDeviceSession(path, devices=DEVICES) as session:
        (y,) = session.infer_batch({"x": rows, **given}, batch_size, outputs=["y"])
        assert np.array_equal(y, reference(path, {"x": rows, **constants})[0])
        assert np.array_equal(session.infer_batch(rows, batch_size, outputs=["y"])[0], reference(path, {"x": rows})[0])


@pytest.mark.parametrize(
    "arrays", [lambda x: {"x": x}, lambda x: [x, None], lambda x: (x, None), lambda x: {"x": x, "extra": None}]
)
def test_a_data_set_may_be_without_an_optional_input(tmp_path: Path, arrays: Callable[[Any], Any]) -> None:
    path = save(tmp_path / "optional.onnx", with_optional())
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    with MultiDeviceSession(path, devices=DEVICES) as session:
        assert np.array_equal(session.infer_batch(arrays(rows), 2, outputs=["y"])[0], -rows)
        with pytest.raises(FeedError, match="input 'x' is a NoneType"):
            session.infer_batch([None, rows])
        with pytest.raises(FeedError, match="missing are"):
            session.infer_batch({"extra": rows})
    prepare = {"preprocess": lambda feeds: {**feeds, "x": feeds["x"] + 1}, "postprocess": lambda outputs: outputs[:1]}
    with MultiDeviceSession(path, devices=DEVICES[:1], **prepare) as prepared:  # type: ignore[arg-type]
        assert np.array_equal(prepared.infer_batch({"x": rows}, 2)[0], -rows - 1)


@pytest.mark.usefixtures("npu")
def test_an_npu_has_neither(tmp_path: Path) -> None:
    path = pack(save(tmp_path / "affine.onnx", affine()), tmp_path / "affine.om", input_shape="x:2,3")
    with InferSession(0, path) as one, MultiDeviceSession(path, devices=[0]) as many:
        for session in (one, many):
            assert session.get_overridable_initializers() == []  # type: ignore[attr-defined]
            assert np.array_equal(session.infer({"x": X})[0], X * SCALE + SHIFT)  # type: ignore[attr-defined]
            with pytest.raises(FeedError, match=r"unknown are \['scale'\]"):
                session.infer({"x": X, "scale": SCALE})  # type: ignore[attr-defined]
    with pytest.raises(AisBenchError, match="extra"):
        pack(save(tmp_path / "optional.onnx", with_optional()), tmp_path / "optional.om")
