"""infer_batch joins outputs along the axis of the samples, and never along another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from ais_bench.emulator import pack
from ais_bench.errors import ConfigError, FeedError
from ais_bench.session import MultiDeviceSession
from support.session import DEVICES, save

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def time_first(folder: Path, names: tuple[Any, Any], out: tuple[Any, Any], runtime: str) -> str:
    """y = transposed x, where x is [samples, time]: the first axis of y is the time."""
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    path = save(folder / "time.onnx", [node], {"x": (1, list(names))}, {"y": (1, list(out))})
    return path if runtime == "ort" else str(pack(path, f"{path}.om"))


def batch_of(path: str, x: np.ndarray, **options: Any) -> np.ndarray:
    with MultiDeviceSession(path, devices=DEVICES[:1]) as session:
        (whole,) = session.infer_batch(x, **options)
    return whole


X = np.arange(32, dtype=np.float32).reshape(8, 4)


def test_the_models_name_for_its_batch_finds_the_axis(tmp_path: Path) -> None:
    path = time_first(tmp_path, ("n", "t"), ("t", "n"), "ort")
    assert np.array_equal(batch_of(path, X, batch_size=4), X.T)  # four samples of four steps: both lengths are 4
    assert np.array_equal(batch_of(path, X, batch_size=3), X.T)
    assert np.array_equal(batch_of(path, X), X.T)


@pytest.mark.parametrize("runtime", ["ort", "acl"])
def test_a_choice_of_axes_is_an_error_that_says_what_to_pass(tmp_path: Path, runtime: str, request: Any) -> None:
    if runtime == "acl":
        request.getfixturevalue("npu")
    path = time_first(tmp_path, (-1, -1) if runtime == "ort" else ("n", "t"), ("a", "b"), runtime)
    with MultiDeviceSession(path, devices=DEVICES[:1]) as session:
        with pytest.raises(FeedError, match=r"each of the axes \[0, 1\].*pass batch_axis=\{'y': 0\}"):
            session.infer_batch(X, 4)
        for asked in (1, -1, [1], {"y": 1}):
            assert np.array_equal(session.infer_batch(X, 4, batch_axis=asked)[0], X.T)
        with pytest.raises(FeedError, match="batch_axis is 0"):
            session.infer_batch(X, 3, batch_axis=0)


def test_an_axis_of_the_time_is_never_the_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    axes = onnx.numpy_helper.from_array(np.array([0]), "axes")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "graph", [info("x", 1, ["n", "t"])], [info("y", 1, ["t"])], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "sum.onnx")
    said = r"'y' has shape \(4,\).*not one entry a sample; leave it out by outputs=, or use map"
    with MultiDeviceSession(str(tmp_path / "sum.onnx"), devices=DEVICES[:1]) as session, pytest.raises(FeedError, match=said):
        session.infer_batch(X, 4)


def test_a_fixed_batch_finds_its_axis(tmp_path: Path) -> None:
    path = time_first(tmp_path, (2, 4), (4, 2), "ort")
    assert np.array_equal(batch_of(path, X), X.T)
    square = time_first(tmp_path, (4, 4), (4, 4), "ort")
    with MultiDeviceSession(square, devices=DEVICES[:1]) as session:
        with pytest.raises(FeedError, match="batch_axis"):
            session.infer_batch(X)
        assert np.array_equal(session.infer_batch(X, batch_axis=1)[0], X.T)


@pytest.mark.parametrize("asked", [1.5, "y", True, {"z": 0}, [0, 1], {"y": None}])
def test_a_wrong_batch_axis_is_named(tmp_path: Path, asked: Any) -> None:
    path = time_first(tmp_path, ("n", "t"), ("t", "n"), "ort")
    with MultiDeviceSession(path, devices=DEVICES[:1]) as session, pytest.raises(ConfigError, match="batch_axis"):
        session.infer_batch(X, batch_axis=asked)
