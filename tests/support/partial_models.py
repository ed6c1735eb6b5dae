"""Models with inputs that a run may omit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.models import values, wrap

SCALE, SHIFT = np.float32([1, 2, 3]), np.float32([10, 20, 30])


def affine() -> ModelProto:
    """y = x * scale + shift, and the scale itself; both are inputs of the graph with a default."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["y"]),
        helper.make_node("Identity", ["scale"], ["used"]),
    ]
    inputs = values([("x", ["n", 3]), ("scale", [3]), ("shift", [3])])
    constants = [numpy_helper.from_array(SCALE, "scale"), numpy_helper.from_array(SHIFT, "shift")]
    return wrap(nodes, inputs, values([("y", ["n", 3]), ("used", [3])]), constants)


def handed_through() -> ModelProto:
    """An output that is the constant itself."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return wrap(
        nodes,
        values([("x", [3]), ("scale", [3])]),
        values([("y", [3]), ("scale", [3])]),
        [numpy_helper.from_array(SCALE, "scale")],
    )


def with_optional() -> ModelProto:
    """y = -x, and whether there was an extra."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    extra = helper.make_value_info("extra", helper.make_optional_type_proto(tensor))
    nodes = [helper.make_node("OptionalHasElement", ["extra"], ["has"]), helper.make_node("Neg", ["x"], ["y"])]
    outputs = [*values([("y", ["n", 3])]), *values([("has", [])], TensorProto.BOOL)]
    return wrap(nodes, [*values([("x", ["n", 3])]), extra], outputs)


def save(path: Path, model: ModelProto) -> str:
    path.write_bytes(model.SerializeToString())
    return str(path)
