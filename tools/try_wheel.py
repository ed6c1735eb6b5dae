"""Test an installed wheel: one device, all devices with callables, and the emulated NPUs."""

import platform
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import ais_bench
from ais_bench.emulator import npus, pack
from ais_bench.session import InferSession, MultiDeviceSession, system_info

sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "abc"]
graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "graph", sides[:2], sides[2:])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "add.onnx")
feeds = [np.full((2, 3), 2, np.float32), np.full((2, 3), 3, np.float32)]


def total(outputs: Any) -> float:
    """Return the sum. This function travels by value, because it is in `__main__`."""
    return float(outputs[0].sum())


with InferSession(0, "add.onnx") as one:
    assert (one.infer(feeds)[0] == 5).all()
with MultiDeviceSession("add.onnx", postprocess=total) as all_devices:
    assert list(all_devices.map([feeds] * 20)) == [30.0] * 20
pack("add.onnx", "add.om")
with npus(2), MultiDeviceSession("add.om", devices=[0, 1]) as emulated:
    assert all((outputs[0] == 5).all() for outputs in emulated.map([feeds] * 20))
assert str(system_info(devices=False))
versions = f"Python {platform.python_version()}, numpy {np.__version__}"
print(f"ais_bench {ais_bench.__version__} works with {versions}")
