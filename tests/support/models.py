"""Minimal models, each for one purpose. `build(name)` makes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET, IR = 21, 10  # onnxruntime 1.17 and later load them
Shape = Sequence[int | str] | None

_BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {}


def build(name: str) -> onnx.ModelProto:
    """Return the named model; "identity-<dtype>" is y = x of that element type, shape [2, 3]; "open-<dtype>" of [n, 4]."""
    if name.startswith("identity-"):
        element = getattr(TensorProto, name.removeprefix("identity-"))
        if "INT4" in name:  # onnxruntime's Identity does not support it
            return one_node("Transpose", [("x", [2, 3])], [("y", [2, 3])], element, perm=[0, 1])
        return one_node("Identity", [("x", [2, 3])], [("y", [2, 3])], element)
    if name.startswith("open-"):
        return one_node("Identity", [("x", ["n", 4])], [("y", ["n", 4])], getattr(TensorProto, name.removeprefix("open-")))
    return _BUILDERS[name]()


def _model(function: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    _BUILDERS[function.__name__] = function
    return function


def values(sides: Sequence[tuple[str, Shape]], element: int = TensorProto.FLOAT) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, element, shape) for name, shape in sides]


def wrap(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    helper.set_model_props(made, metadata or {})
    return made


def one_node(
    op: str,
    inputs: Sequence[tuple[str, Shape]],
    outputs: Sequence[tuple[str, Shape]],
    element: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    node = helper.make_node(op, [name for name, _ in inputs], [name for name, _ in outputs], **attributes)
    return wrap([node], values(inputs, element), values(outputs, element), metadata=metadata)


@_model
def add() -> onnx.ModelProto:
    """z = x + y, all float32 [1, 3, 32, 32]."""
    shape = [1, 3, 32, 32]
    return one_node("Add", [("x", shape), ("y", shape)], [("z", shape)])


@_model
def sub_then_swap() -> onnx.ModelProto:
    """difference = a - b, total = a + b over int32 [4]: two inputs and two outputs that cannot be mistaken for each other."""
    nodes = [helper.make_node("Sub", ["a", "b"], ["difference"]), helper.make_node("Add", ["a", "b"], ["total"])]
    int32 = TensorProto.INT32
    return wrap(nodes, values([("a", [4]), ("b", [4])], int32), values([("difference", [4]), ("total", [4])], int32))


@_model
def batch() -> onnx.ModelProto:
    """y = -x over float32 [n, 4]."""
    return one_node("Neg", [("x", ["n", 4])], [("y", ["n", 4])])


@_model
def image() -> onnx.ModelProto:
    """y = -x over float32 [1, 3, h, w]."""
    return one_node("Neg", [("x", [1, 3, "h", "w"])], [("y", [1, 3, "h", "w"])])


@_model
def dims() -> onnx.ModelProto:
    """z = x + y over float32 [a, b] and [b]."""
    return one_node("Add", [("x", ["a", "b"]), ("y", ["b"])], [("z", ["a", "b"])])


def _geared(key: str, text: str, shape: Shape) -> onnx.ModelProto:
    return one_node("Neg", [("x", shape)], [("y", shape)], metadata={f"ais_bench.dynamic_{key}": text})


@_model
def gears_batch() -> onnx.ModelProto:
    return _geared("batch_size", "1,2,8", ["n", 4])


@_model
def gears_image() -> onnx.ModelProto:
    return _geared("image_size", "8,16;16,8", [1, 3, "h", "w"])


@_model
def gears_dims() -> onnx.ModelProto:
    return _geared("dims", "1,4;2,6", ["a", "b"])


@_model
def nonzero() -> onnx.ModelProto:
    """The indexes, int64 [2, ?], of the elements of float32 [3, 4] that are not zero: the data decides the shape."""
    node = helper.make_node("NonZero", ["x"], ["where"])
    return wrap([node], values([("x", [3, 4])]), values([("where", [2, "count"])], TensorProto.INT64))


@_model
def scalar() -> onnx.ModelProto:
    """y = -x over a float32 of no dimensions."""
    return one_node("Neg", [("x", [])], [("y", [])])


@_model
def unranked() -> onnx.ModelProto:
    """y = -x over float32 of any rank."""
    return one_node("Neg", [("x", None)], [("y", None)])


@_model
def hand_through() -> onnx.ModelProto:
    """The input x, float32 [n], is an output too, beside y = -x."""
    return wrap([helper.make_node("Neg", ["x"], ["y"])], values([("x", ["n"])]), values([("x", ["n"]), ("y", ["n"])]))


@_model
def hand_through_fixed() -> onnx.ModelProto:
    """The input x, float32 [4], is an output too, beside y = -x."""
    return wrap([helper.make_node("Neg", ["x"], ["y"])], values([("x", [4])]), values([("x", [4]), ("y", [4])]))


@_model
def pictures() -> onnx.ModelProto:
    """y = -x over float32 [n, 3, 8, 8]."""
    return one_node("Neg", [("x", ["n", 3, 8, 8])], [("y", ["n", 3, 8, 8])])


@_model
def doubling() -> onnx.ModelProto:
    """y = x twice over float32 [n, 4], with the batch gears 1, 2 and 8."""
    return wrap(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        values([("x", ["n", 4])]),
        values([("y", ["m", 4])]),
        metadata={"ais_bench.dynamic_batch_size": "1,2,8"},
    )


@_model
def to_integers() -> onnx.ModelProto:
    """y = int32 of x, float32 [4]."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT32)
    return wrap([node], values([("x", [4])]), values([("y", [4])], TensorProto.INT32))


@_model
def to_doubles() -> onnx.ModelProto:
    """y = float64 of x, float32 [n, 4]."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)
    return wrap([node], values([("x", ["n", 4])]), values([("y", ["n", 4])], TensorProto.DOUBLE))


@_model
def look_up() -> onnx.ModelProto:
    """next = table[index], index int64 [1], table [1, 2, 9], and kept = keep, float32 [1]: the third step fails."""
    table = onnx.numpy_helper.from_array(np.array([1, 2, 9]), "table")
    nodes = [helper.make_node("Gather", ["table", "index"], ["next"]), helper.make_node("Neg", ["keep"], ["kept"])]
    return wrap(
        nodes,
        [*values([("index", [1])], TensorProto.INT64), *values([("keep", [1])])],
        [*values([("next", [1])], TensorProto.INT64), *values([("kept", [1])])],
        [table],
    )


@_model
def misdeclared() -> onnx.ModelProto:
    """y = -x over float32 [n], where the model claims that y is float32 [2]."""
    return one_node("Neg", [("x", ["n"])], [("y", [2])])


@_model
def too_large() -> onnx.ModelProto:
    """y float32 [2^45], 128 TiB of the same number."""
    shape = onnx.numpy_helper.from_array(np.array([2**45]), "shape")
    return wrap([helper.make_node("Expand", ["x", "shape"], ["y"])], values([("x", [1])]), values([("y", [2**45])]), [shape])


@_model
def old_style() -> onnx.ModelProto:
    """y = x + weight, float32 [2], where the initializer is listed among the graph's inputs as old files do."""
    weight = onnx.numpy_helper.from_array(np.array([10, 20], np.float32), "weight")
    node = helper.make_node("Add", ["x", "weight"], ["y"])
    return wrap([node], values([("x", [2]), ("weight", [2])]), values([("y", [2])]), [weight])


@_model
def halve() -> onnx.ModelProto:
    """y = x / 2 over float16 [4]."""
    two = onnx.numpy_helper.from_array(np.array(2, np.float16), "two")
    node = helper.make_node("Div", ["x", "two"], ["y"])
    float16 = TensorProto.FLOAT16
    return wrap([node], values([("x", [4])], float16), values([("y", [4])], float16), [two])


@_model
def loop() -> onnx.ModelProto:
    """counter float32 [1] after `times` (int64 scalar) steps of + 1: it runs as long as the caller says."""
    one = onnx.numpy_helper.from_array(np.array([1], np.float32), "one")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Add", ["c_in", "one"], ["c_out"])],
        "body",
        [*values([("i", [])], TensorProto.INT64), *values([("go_in", [])], TensorProto.BOOL), *values([("c_in", [1])])],
        [*values([("go_out", [])], TensorProto.BOOL), *values([("c_out", [1])])],
    )
    node = helper.make_node("Loop", ["times", "", "start"], ["counter"], body=body)
    return wrap(
        [node],
        [*values([("times", [])], TensorProto.INT64), *values([("start", [1])])],
        values([("counter", [1])]),
        [one],
    )


@_model
def gather() -> onnx.ModelProto:
    """y = table[index], table float32 [3], index int64 [1]: an index outside fails the run, not the check of the feeds."""
    table = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "table")
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    return wrap([node], values([("index", [1])], TensorProto.INT64), values([("y", [1])]), [table])


@_model
def sequence_output() -> onnx.ModelProto:
    """An output that is a sequence, which cannot be returned here."""
    node = helper.make_node("SequenceConstruct", ["x"], ["many"])
    return wrap([node], values([("x", [2])]), [helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, [2])])


@_model
def string_input() -> onnx.ModelProto:
    """An input of strings, which cannot be fed here."""
    return one_node("Identity", [("words", [2])], [("same", [2])], TensorProto.STRING)
