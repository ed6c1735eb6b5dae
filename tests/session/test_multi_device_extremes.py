"""MultiDeviceSession at the edges: the largest feeds, the smallest element types, and a notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from ais_bench.session import InferSession, MultiDeviceSession
from support.models import build
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def saved(model: onnx.ModelProto, folder: Path) -> str:
    path = str(folder / "model.onnx")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("size", [1, 64, pytest.param(512 << 20, marks=pytest.mark.long)])
def test_feeds_from_one_byte_to_half_a_gigabyte(tmp_path: Path, size: int) -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["n"]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    path = saved(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    given = np.resize(np.arange(251, dtype=np.uint8), size)
    with MultiDeviceSession(path, devices=[0]) as session:
        (result,) = session.infer([given])
    assert result.shape == given.shape
    assert np.array_equal(result, given)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
def test_element_types_numpy_lacks_equal_one_device(model: Callable[[str], str], name: str) -> None:
    path = model(f"identity-{name.upper().replace('FLOAT8_', 'FLOAT8')}")
    given = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name))
    with InferSession(0, path) as alone:
        (wanted,) = alone.infer([given])
    assert np.array_equal(wanted.view(np.uint8), given.view(np.uint8))
    with MultiDeviceSession(path, devices=[0]) as session:
        (result,) = session.infer([given])
    assert result.dtype == wanted.dtype
    assert np.array_equal(result.view(np.uint8), wanted.view(np.uint8))


def test_a_notebook_kernel(tmp_path: Path) -> None:
    """Functions of a cell travel to the workers, and the cell's event loop waits for a result."""
    pytest.importorskip("ipykernel")
    cell = f"""
import numpy as np
from ais_bench.session import MultiDeviceSession
scale = 3
with MultiDeviceSession({saved(build("batch"), tmp_path)!r}, devices=[0],
                        preprocess=lambda n: [np.full((1, 4), n * scale, np.float32)]) as session:
    mapped = [float(y[0, 0]) for y, in session.map(range(3), mode="dymshape")]
    awaited = float((await session.infer_async(5, mode="dymshape"))[0][0, 0])
print(mapped, awaited)
"""
    program = f"""
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(startup_timeout=60)
try:
    client.execute_interactive({cell!r}, timeout=60)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()
"""
    folder = str(tmp_path / "jupyter")
    printed = run_script(program, seconds=100, JUPYTER_RUNTIME_DIR=folder, JUPYTER_DATA_DIR=folder, IPYTHONDIR=folder)
    assert "[-0.0, -3.0, -6.0] -15.0" in printed
