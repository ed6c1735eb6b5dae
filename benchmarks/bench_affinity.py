"""Measure the effect of pinning: `affinity="auto"` against "none" and "split", alone and beside a busy loop.

    python benchmarks/bench_affinity.py [--rounds N] [--seconds S]

Prints, for each, the ratio of the time of one `infer` (median) and of the rate of a stream to those of affinity="none". The
sides take turns in short rounds; a ratio is the median of the rounds' ratios. On a machine that others use the lines without a
busy loop say little.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ais_bench.session import MultiDeviceSession

SIDES = ("none", "auto", "split")


def model(folder: str) -> str:
    """Return a model of some matrix products, which take about 10 ms of one processor."""
    size = 512
    weights = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", "w"], [f"x{i + 1}"]) for i in range(8)]
    nodes.append(helper.make_node("Identity", ["x8"], ["y"]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xy"]
    graph = helper.make_graph(nodes, "products", [infos[0]], [infos[1]], [weights])
    path = str(Path(folder) / "products.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def one_call(session: MultiDeviceSession, feeds: list[np.ndarray], seconds: float) -> float:
    """Return the median seconds of one infer."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        session.infer(feeds)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def rate(session: MultiDeviceSession, feeds: list[np.ndarray], seconds: float) -> float:
    """Return the items a second of a stream."""
    began, count = time.perf_counter(), 0
    for _ in session.map(itertools.repeat(feeds)):
        count += 1
        if time.perf_counter() - began > seconds:
            break
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one round of one side")
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    print(f"{len(cpus)} processors, load {os.getloadavg()[0]:.1f}")
    feeds = [np.ones((512, 512), np.float32)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = model(folder)
        sessions = {
            side: stack.enter_context(MultiDeviceSession(path, devices=range(len(cpus)), affinity=side)) for side in SIDES
        }
        for session in sessions.values():
            list(session.map(itertools.repeat(feeds, 4 * len(cpus))))
        for loops in (0, 1):
            with busy_loops(loops):
                for what, measure in (("time of one infer", one_call), ("rate of a stream", rate)):
                    found = [
                        {side: measure(session, feeds, arguments.seconds) for side, session in sessions.items()}
                        for _ in range(arguments.rounds)
                    ]
                    for side in SIDES[1:]:
                        ratio = statistics.median(one[side] / one["none"] for one in found)
                        print(f'{loops} busy loop(s), {what}: "{side}" / "none" = {ratio:.2f}')


if __name__ == "__main__":
    main()
