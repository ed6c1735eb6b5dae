"""Measure the time lost around a provider's devices: a stream on eight stand-in devices, with copies as long as the execution.

    python benchmarks/bench_standin.py [--devices 8] [--ms 5] [--tasks 2000]

The stand-in for a provider library (tests/native/standin_provider.cpp) takes the times asked for, one copy in each direction
and one execution at a time for each device. Prints the rate of `map` against that of a session with one task in flight, where
nothing overlaps, and against devices / ms, the maximum.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ais_bench.session import MultiDeviceSession

PROVIDER = "StandInExecutionProvider"
SOURCE = Path(__file__).parent.parent / "tests" / "native" / "standin_provider.cpp"


def prepare(folder: str, devices: int, ms: float) -> str:
    """Build the library, set its properties, and write the model y = -x."""
    library = Path(folder) / "libstandin.so"
    subprocess.run(["c++", "-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", SOURCE, "-o", library], check=True)
    os.environ["AIS_BENCH_PROVIDER_LIBRARY"] = str(library)
    os.environ |= {"STANDIN_DEVICES": str(devices), "STANDIN_EXEC_MS": f"{ms:g}", "STANDIN_COPY_MS": f"{ms:g}"}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", infos[:1], infos[1:])
    path = str(Path(folder) / "negative.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def rate(path: str, tasks: int, **options: Any) -> float:
    feeds = [np.ones((1, 256), np.float32)]
    with MultiDeviceSession(path, provider=PROVIDER, **options) as session:
        list(session.map([feeds] * (4 * len(session.devices))))
        began = time.perf_counter()
        done = sum(1 for _ in session.map([feeds] * tasks))
        return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--ms", type=float, default=5.0)
    parser.add_argument("--tasks", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = prepare(folder, options.devices, options.ms)
        apart = rate(path, options.tasks // 4, tasks_in_flight=1)
        together = rate(path, options.tasks)
    most = options.devices / options.ms * 1000
    print(f"{options.devices} devices of {options.ms:g} ms with copies of {options.ms:g} ms each way: {together:.0f} runs/s,")
    print(f"  {together / apart:.2f} times one task in flight ({apart:.0f}/s),")
    print(f"  {together / most:.2f} of devices / time ({most:.0f}/s)")


if __name__ == "__main__":
    main()
