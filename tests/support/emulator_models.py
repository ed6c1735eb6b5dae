"""ONNX models for the emulator's tests, as small as their purpose allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def _save(path: Path, nodes: list, inputs: list, outputs: list, initializers: tuple = ()) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, list(initializers))
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _float(name: str, shape: list) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def add(folder: Path, shape: tuple = (1, 4)) -> Path:
    """sum = a + b."""
    return _save(
        folder / "add.onnx",
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [_float("a", list(shape)), _float("b", list(shape))],
        [_float("sum", list(shape))],
    )


def matmul(folder: Path, width: int = 4) -> Path:
    """y = x @ w for x of (n, 3); w counts from 0."""
    weight = numpy_helper.from_array(np.arange(3 * width, dtype=np.float32).reshape(3, width), "w")
    return _save(
        folder / "matmul.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [_float("x", ["n", 3])],
        [_float("y", ["n", width])],
        (weight,),
    )


def image(folder: Path, channels: int = 3, size: tuple | None = None) -> Path:
    """twice = 2 * picture, and mean over height and width."""
    height, width = size or ("h", "w")
    two = numpy_helper.from_array(np.float32(2), "two")
    nodes = [
        helper.make_node("Mul", ["picture", "two"], ["twice"]),
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[2, 3], keepdims=0),
    ]
    return _save(folder / "image.onnx", nodes, [_float("picture", ["n", channels, height, width])],
                 [_float("twice", ["n", channels, height, width]), _float("mean", ["n", channels])], (two,))  # fmt: skip


def pictures(folder: Path, count: int) -> Path:
    """out<i> = -p<i> for `count` pictures of (1, 3, 4, 4)."""
    nodes = [helper.make_node("Neg", [f"p{index}"], [f"out{index}"]) for index in range(count)]
    sides = [[_float(f"{name}{index}", [1, 3, 4, 4]) for index in range(count)] for name in ("p", "out")]
    return _save(folder / "pictures.onnx", nodes, *sides)


def three(folder: Path) -> Path:
    """Three inputs with varying dimensions, like the manual's example of gears: out = sum(data) + sum(label) + sum(mask)."""
    nodes = [helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0) for name in ("data", "label", "mask")]
    nodes += [
        helper.make_node("Add", ["data_sum", "label_sum"], ["partial"]),
        helper.make_node("Add", ["partial", "mask_sum"], ["out"]),
    ]
    inputs = [_float("data", [1, 1, 40, "a"]), _float("label", [1, "b"]), _float("mask", ["c", "d"])]
    return _save(folder / "three.onnx", nodes, inputs, [_float("out", [])])


def nonzero(folder: Path) -> Path:
    """where = NonZero(x): a static input, and an output whose shape is known only after the run."""
    return _save(folder / "nonzero.onnx", [helper.make_node("NonZero", ["x"], ["where"])], [_float("x", [8])],
                 [helper.make_tensor_value_info("where", TensorProto.INT64, [1, "k"])])  # fmt: skip


def unknown_rank(folder: Path, shape: list | None = None) -> Path:
    """out = x, negated `times` times, for x of (n, 3). No shape is inferred; the model declares `shape`."""
    value = helper.make_tensor_value_info
    boolean, int64 = TensorProto.BOOL, TensorProto.INT64
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [value("i", int64, []), value("go", boolean, []), value("a", TensorProto.FLOAT, None)],
        [value("on", boolean, []), value("b", TensorProto.FLOAT, None)],
    )
    return _save(folder / "unknown_rank.onnx", [helper.make_node("Loop", ["times", "", "x"], ["out"], body=body)],
                 [value("times", int64, []), _float("x", ["n", 3])], [value("out", TensorProto.FLOAT, shape)])  # fmt: skip


def gather(folder: Path) -> Path:
    """picked = table[index]: with an index out of range the run fails."""
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    return _save(folder / "gather.onnx", [helper.make_node("Gather", ["table", "index"], ["picked"])],
                 [helper.make_tensor_value_info("index", TensorProto.INT64, [2])], [_float("picked", [2])],
                 (table,))  # fmt: skip


def long_name(folder: Path, length: int = 200) -> Path:
    """y = -x, with an input name longer than AscendCL's structs hold."""
    name = "x" * length
    return _save(folder / "long.onnx", [helper.make_node("Neg", [name], ["y"])], [_float(name, [2])], [_float("y", [2])])
