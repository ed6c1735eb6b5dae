"""Compare one device with `onnxruntime.InferenceSession`, in one process with the same number of threads. Prints ratios.

    python benchmarks/bench_single.py [--threads N] [--rounds N]

Both sides are called in turn, in short batches, so that a change of the machine's speed meets both; the ratio is the median of
the rounds' ratios. Below 1.00 this library takes less time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from ais_bench.session import InferSession

LIGHT = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")


def add_model(folder: str) -> str:
    shape = (1, 3, 32, 32)
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "add", [a, b], [c])
    path = os.path.join(folder, "add.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def compare(
    name: str, target: float, ours: Callable[[], object], theirs: Callable[[], object], batch: int, rounds: int
) -> None:
    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(batch):
            call()
        return (time.perf_counter() - start) / batch

    seconds(ours), seconds(theirs)  # warm up
    pairs = []
    for turn in range(rounds):
        first, second = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        times = seconds(first), seconds(second)
        pairs.append(times if turn % 2 == 0 else times[::-1])
    ratio = statistics.median(mine / other for mine, other in pairs)
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:32} {mine * 1e6:12.1f} us {other * 1e6:12.1f} us   {ratio:6.3f}   {target:5.2f}", flush=True)


def reference(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    threads, rounds = arguments.threads, arguments.rounds

    print(f"onnxruntime {onnxruntime.__version__}, {threads} thread(s), {rounds} rounds")
    print(f"{'':32} {'ais_bench':>15} {'onnxruntime':>15}    ratio  target")
    with tempfile.TemporaryDirectory() as folder:
        path = add_model(folder)
        rng = np.random.default_rng(0)
        x, y = (rng.random((1, 3, 32, 32), np.float32) for _ in range(2))
        with InferSession(0, path, threads=threads) as session:
            other = reference(path, threads)
            feeds = {"a": x, "b": y}
            compare("Add 1x3x32x32", 1.15, lambda: session.infer([x, y]), lambda: other.run(None, feeds), 2000, rounds)

            def python_loop() -> object:
                value = x
                for _ in range(1000):
                    value = other.run(None, {"a": value, "b": y})[0]
                return value

            compare(
                "infer_iteration, 1,000 x Add",
                0.70,
                lambda: session.infer_iteration([x, y], [0, -1], 1000),
                python_loop,
                2,
                rounds,
            )

        for name, batch in (("light_squeezenet", 20), ("light_resnet50", 3)):
            path = os.path.join(LIGHT, f"{name}.onnx")
            with InferSession(0, path, threads=threads) as session:
                other = reference(path, threads)
                image = rng.random(session.get_inputs()[0].shape, np.float32)
                feeds = {other.get_inputs()[0].name: image}
                compare(name, 1.01, lambda: session.infer([image]), lambda: other.run(None, feeds), batch, rounds)  # noqa: B023
            compare(
                f"{name}, session creation",
                1.10,
                lambda: InferSession(0, path, threads=threads).free_resource(),  # noqa: B023
                lambda: reference(path, threads),  # noqa: B023
                1,
                rounds,
            )


if __name__ == "__main__":
    main()
