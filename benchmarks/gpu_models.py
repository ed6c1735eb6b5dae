"""Write resnet50.onnx and transformer.onnx, in float16 with random weights, into a folder, for benchmarks/gpu_check.sh.

    python benchmarks/gpu_models.py FOLDER

Shapes and sizes are those of ResNet-50 and of a BERT base encoder. The speed does not depend on the values of the weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)


class Net:
    """Collects nodes and weights in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        values = (RANDOM.standard_normal(shape) * np.sqrt(2 / max(fan_in, 1))).astype(np.float16)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, values: list[int] | float) -> str:
        name = f"w{len(self.weights)}"
        array = np.array(values, np.int64 if isinstance(values, list) else np.float16)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{operator}_{len(self.nodes)}", **attributes))
        return name

    def save(self, path: Path, inputs: list[tuple[str, list[str | int]]], output: str) -> None:
        self.nodes[-1].output[0] = output
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in inputs]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT16, None)
        graph = helper.make_graph(self.nodes, path.stem, infos, [result], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def resnet50(path: Path) -> None:
    net = Net()

    def convolve(x: str, channels_in: int, channels: int, size: int, stride: int = 1) -> str:
        return net.add(
            "Conv",
            x,
            net.weight(channels, channels_in, size, size),
            net.weight(channels),
            strides=[stride] * 2,
            pads=[size // 2] * 4,
        )

    x = net.add("Relu", convolve("x", 3, 64, 7, 2))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels_in = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            y = net.add("Relu", convolve(x, channels_in, width, 1))
            y = net.add("Relu", convolve(y, width, width, 3, stride))
            y = convolve(y, width, 4 * width, 1)
            shortcut = convolve(x, channels_in, 4 * width, 1, stride) if block == 0 else x
            x = net.add("Relu", net.add("Add", y, shortcut))
            channels_in = 4 * width
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.add("MatMul", x, net.weight(2048, 1000))
    net.save(path, [("x", ["n", 3, 224, 224])], "scores")


def transformer(path: Path, layers: int = 12, width: int = 768, heads: int = 12, length: int = 128) -> None:
    net = Net()
    each = width // heads

    def split(x: str, order: list[int]) -> str:
        return net.add("Transpose", net.add("Reshape", x, net.constant([0, length, heads, each])), perm=order)

    x = "x"
    for _ in range(layers):
        query, key, value = (net.add("MatMul", x, net.weight(width, width)) for _ in range(3))
        scores = net.add("MatMul", split(query, [0, 2, 1, 3]), split(key, [0, 2, 3, 1]))
        shares = net.add("Softmax", net.add("Mul", scores, net.constant(each**-0.5)), axis=-1)
        mixed = net.add("MatMul", shares, split(value, [0, 2, 1, 3]))
        joined = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.constant([0, length, width]))
        x = net.add("Add", x, net.add("MatMul", joined, net.weight(width, width)))
        x = net.add("LayerNormalization", x, net.weight(width), net.weight(width), axis=-1)
        y = net.add("Relu", net.add("MatMul", x, net.weight(width, 4 * width)))
        x = net.add("Add", x, net.add("MatMul", y, net.weight(4 * width, width)))
        x = net.add("LayerNormalization", x, net.weight(width), net.weight(width), axis=-1)
    net.add("Identity", x)
    net.save(path, [("x", ["n", length, width])], "hidden")


def main() -> None:
    folder = Path(sys.argv[1])
    resnet50(folder / "resnet50.onnx")
    transformer(folder / "transformer.onnx")


if __name__ == "__main__":
    main()
