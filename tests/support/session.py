"""Small models and their expected results, for the tests of MultiDeviceSession.

Functions that make a model import onnx themselves, because workers import this module, and onnx takes longer to import than a
worker takes to start. The same holds for files of tests whose callables run in workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ais_bench import _native
from ais_bench.emulator import pack
from support.default_provider import PROVIDER

DEVICES = [0, 1] if len(_native.allowed_cpus()) > 1 and not PROVIDER else [0]
Feeds = list[Any]


def save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
    """Write a model file and return its path. Inputs and outputs are {name: (element type, shape)}."""
    import onnx
    from onnx import helper

    infos = [[helper.make_tensor_value_info(name, *what) for name, what in some.items()] for some in (inputs, outputs)]
    graph = helper.make_graph(nodes, "graph", *infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def add_model(path: Path, shape: list[Any], kind: int = 1) -> str:
    from onnx import helper

    return save(
        path, [helper.make_node("Add", ["a", "b"], ["c"])], {"a": (kind, shape), "b": (kind, shape)}, {"c": (kind, shape)}
    )


def negative_model(path: Path, rows: int) -> str:
    """y = -x of float32 (rows, 6)."""
    from onnx import helper

    return save(path, [helper.make_node("Neg", ["x"], ["y"])], {"x": (1, [rows, 6])}, {"y": (1, [rows, 6])})


def classifier_model(path: Path, rows: int | str) -> str:
    """softmax(x @ w) of float32 (rows, 6) to (rows, 5), with random weights."""
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"]),
    ]
    return save(path, nodes, {"x": (1, [rows, 6])}, {"scores": (1, [rows, 5])})


def make_models(folder: Path, runtime: str) -> dict[str, str]:
    """Return the models as files for `runtime`, by name."""
    files = _make_onnx(folder)
    return files if runtime == "ort" else {name: str(pack(path, f"{path}.om")) for name, path in files.items()}


def _make_onnx(folder: Path) -> dict[str, str]:
    from onnx import TensorProto, helper

    nonzero = [helper.make_node("NonZero", ["x"], ["y"])]
    identity = {
        kind: save(
            folder / f"identity{kind}.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            {"x": (kind, ["a", "b"])},
            {"y": (kind, ["a", "b"])},
        )
        for kind in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)
    }
    return {
        "add": add_model(folder / "add.onnx", [2, 3]),
        "open": add_model(folder / "open.onnx", ["n", 3]),
        "bytes": save(
            folder / "bytes.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            {"x": (TensorProto.UINT8, ["n"])},
            {"y": (TensorProto.UINT8, ["n"])},
        ),
        "nonzero": save(folder / "nz.onnx", nonzero, {"x": (TensorProto.FLOAT, ["n"])}, {"y": (TensorProto.INT64, [1, "m"])}),
        **{f"identity{kind}": path for kind, path in identity.items()},
    }


def pair(n: int, rows: int = 2) -> Feeds:
    return [np.full((rows, 3), n, np.float32), np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)]


def feeds_of(number: int) -> Feeds:
    """Return feeds of one row whose total is the number, three times."""
    return [np.full((1, 3), number, np.float32), np.zeros((1, 3), np.float32)]


def number_of(outputs: Feeds) -> int:
    """Return the number of such a total."""
    return int(outputs[0][0, 0])


def total(feeds: Feeds) -> Any:
    return feeds[0] + feeds[1]


def same(one: list[Any], other: list[Any]) -> None:
    assert [(a.dtype, a.shape) for a in one] == [(b.dtype, b.shape) for b in other]
    for a, b in zip(one, other, strict=True):
        assert a.tobytes() == b.tobytes()
