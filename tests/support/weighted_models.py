"""Models with weights of many kinds, large enough that kernels pack them: for tests of shared and of converted weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.generic]
Model = tuple[onnx.ModelProto, list[Array]]  # a model and its feeds

WIDTH = 96
_random = np.random.default_rng(7)


def _weights(*shape: int, dtype: type = np.float32) -> Array:
    values = _random.standard_normal(shape) / np.sqrt(shape[0])
    return (values * 40).astype(dtype) if np.issubdtype(dtype, np.integer) else values.astype(dtype)


def _feed(*shape: int, dtype: type = np.float32) -> Array:
    return _random.standard_normal(shape).astype(dtype)


def make(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, Array],
    outputs: dict[str, int],
    weights: dict[str, Array],
    open_batch: bool = False,
    ir_version: int = 8,
) -> Model:
    """Return a model of these nodes; with `open_batch` the first dimension of every input is open."""

    def shape(array: Array) -> list[int | str]:
        return ["n", *array.shape[1:]] if open_batch else list(array.shape)

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape(array))
        for name, array in feeds.items()
    ]
    made = [helper.make_tensor_value_info(name, element, None) for name, element in outputs.items()]
    if ir_version < 4:  # files of that time list their weights among the inputs
        inputs += [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in weights.items()
        ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "weighted", inputs, made, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), list(feeds.values())


def layers(
    dtype: type = np.float32, open_batch: bool = False, ir_version: int = 8, count: int = 2, width: int = WIDTH
) -> Model:
    """MatMul and Relu, `count` times, of [4, width]."""
    nodes, weights, last = [], {}, "x"
    for layer in range(count):
        weights[f"w{layer}"] = _weights(width, width, dtype=dtype)
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = f"r{layer}"
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [last]))
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return make(nodes, {"x": _feed(4, width, dtype=dtype)}, {last: element}, weights, open_batch, ir_version)


def gears() -> Model:
    """The same with an open batch and the gears 1, 2 and 4."""
    model, feeds = layers(open_batch=True)
    helper.set_model_props(model, {"ais_bench.dynamic_batch_size": "1,2,4"})
    return model, feeds


def convolutions() -> Model:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], strides=[2, 2]),
    ]
    weights = {"w": _weights(32, 3, 3, 3), "b": _weights(32), "v": _weights(64, 32, 3, 3)}
    return make(nodes, {"x": _feed(1, 3, 20, 20)}, {"y": TensorProto.FLOAT}, weights)


def quantised() -> Model:
    """Weights of int8 in the form of quantise and dequantise pairs, and a product of integers."""
    scale, zero = np.array(0.02, np.float32), np.array(0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["qx"]),
        helper.make_node("DequantizeLinear", ["qx", "s", "z"], ["dx"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dw"]),
        helper.make_node("MatMul", ["dx", "dw"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["qm"]),
        helper.make_node("DequantizeLinear", ["qm", "s", "z"], ["y"]),
        helper.make_node("DynamicQuantizeLinear", ["y"], ["u", "us", "uz"]),
        helper.make_node("MatMulInteger", ["u", "v", "uz"], ["i"]),
    ]
    weights = {"s": scale, "z": zero, "w": _weights(WIDTH, WIDTH, dtype=np.int8), "v": _weights(WIDTH, WIDTH, dtype=np.int8)}
    outputs = {"y": TensorProto.FLOAT, "i": TensorProto.INT32}
    return make(nodes, {"x": _feed(4, WIDTH)}, outputs, weights)


def blockwise() -> Model:
    """Weights of four bits in blocks, as in language models."""
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=WIDTH, N=WIDTH, bits=4, block_size=32)
    ]
    packed = _random.integers(0, 256, (WIDTH, WIDTH // 32, 16)).astype(np.uint8)
    scales = np.abs(_weights(WIDTH * (WIDTH // 32)))
    return make(nodes, {"x": _feed(4, WIDTH)}, {"y": TensorProto.FLOAT}, {"w": packed, "s": scales})


def recurrent() -> Model:
    hidden = 32
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], hidden_size=hidden)]
    weights = {
        "w": _weights(1, 4 * hidden, 16),
        "r": _weights(1, 4 * hidden, hidden),
        "b": _weights(1, 8 * hidden),
    }
    return make(nodes, {"x": _feed(5, 2, 16)}, dict.fromkeys(("y", "h", "c"), TensorProto.FLOAT), weights)


def branches() -> Model:
    """Weights inside of the two branches of an If."""

    def branch(name: str, sign: float) -> onnx.GraphProto:
        inner = numpy_helper.from_array((_weights(WIDTH, WIDTH) * sign).astype(np.float32), f"w_{name}")
        node = helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])
        out = helper.make_tensor_value_info(f"y_{name}", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out], [inner])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", -2))]
    return make(nodes, {"c": np.array(True), "x": _feed(4, WIDTH)}, {"y": TensorProto.FLOAT}, {})


def lookup() -> Model:
    """A table with two uses: some of its rows are read, and it is a factor of a product."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    return make(nodes, {"ids": np.array([[3, 1, 2]], np.int64)}, {"y": TensorProto.FLOAT}, {"table": _weights(200, WIDTH)})


KINDS: dict[str, Callable[[], Model]] = {
    "float32": layers,
    "float16": lambda: layers(np.float16),
    "float64": lambda: layers(np.float64),
    "open batch": lambda: layers(open_batch=True),
    "weights among the inputs": lambda: layers(ir_version=3),
    "gears": gears,
    "convolutions": convolutions,
    "quantised": quantised,
    "blockwise": blockwise,
    "recurrent": recurrent,
    "branches": branches,
    "lookup": lookup,
}


def save(model: onnx.ModelProto, path: Path, *, external: bool = False) -> str:
    """Write the model; with `external` its weights go to the file "weights.bin" beside it."""
    onnx.save(model, path, save_as_external_data=external, location="weights.bin", size_threshold=256)
    return str(path)
