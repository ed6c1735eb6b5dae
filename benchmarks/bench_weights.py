"""Measure shared weights: memory of 1, 2, 4, 8 CPU workers, the start of a pool, and a restart after a death.

    python benchmarks/bench_weights.py [--mib 300] [--workers 1 2 4 8]

The model is a chain of matrix products with `--mib` of weights. A bare process that loads the model with onnxruntime and
runs it once is measured, too. Memory is Private_Dirty of smaps_rollup, after a run.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ais_bench.session import MultiDeviceSession

MIB = 1 << 20
WIDTH = 2048
BARE = """
import sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((1, int(sys.argv[2])), np.float32)})
print("ready", flush=True)
sys.stdin.read()
"""


def model(folder: str, mib: int) -> str:
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer in range(max(1, mib * MIB // (4 * WIDTH * WIDTH))):
        values = random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.sqrt(WIDTH)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = f"m{layer}"
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "products", [infos[0]], [infos[1]], weights)
    path = str(Path(folder) / "products.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def private_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Private_Dirty:"))


def bare(path: str) -> tuple[float, float]:
    """Return the seconds from the start of a process with only onnxruntime to its first result, and its memory."""
    began = time.perf_counter()
    command = [sys.executable, "-c", BARE, path, str(WIDTH)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = time.perf_counter() - began, private_mib(process.pid)
        process.communicate()
    return found


def pool(path: str, workers: int, share: bool) -> tuple[float, float, float]:
    """Return the seconds of the start, all workers' memory, and the seconds from a death until another is ready."""
    feeds = [np.ones((1, WIDTH), np.float32)]
    began = time.perf_counter()
    logging.disable(logging.WARNING)  # the warning about the intended death
    with MultiDeviceSession(path, devices=[0], workers_per_device=workers, share_weights=share) as session:
        session.start()
        start_s = time.perf_counter() - began
        list(session.map([feeds] * (4 * workers)))
        pids = [worker.pid for worker in session.report().workers if worker.pid is not None]
        memory = sum(map(private_mib, pids))
        began = time.perf_counter()
        os.kill(pids[0], signal.SIGKILL)
        while not any(w.restarts == 1 and w.state == "ready" for w in session.report().workers):
            time.sleep(0.002)
        return start_s, memory, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=300)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = model(folder, options.mib)
        bare(path)  # a warm-up: the file is read from the disk, and modules are compiled
        bare_s, bare_mib = bare(path)
        print(f"a bare process: {bare_s:.2f} s to its first result, {bare_mib:.0f} MiB")
        first: dict[bool, float] = {}
        for workers in options.workers:
            for share in (False, True):
                start_s, memory, restart_s = pool(path, workers, share)
                first.setdefault(share, start_s)
                how = "shared" if share else "apart "
                print(
                    f"{workers} workers, {how}: start {start_s:.2f} s ({start_s / first[share]:.2f} of one), "
                    f"private {memory:.0f} MiB ({memory / bare_mib:.2f} of a bare process), restart {restart_s:.2f} s"
                )


if __name__ == "__main__":
    main()
