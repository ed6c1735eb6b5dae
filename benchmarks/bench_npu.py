"""Compare a pool of emulated NPUs with the devices' own rate, and with the method of the original. Prints ratios.

    python benchmarks/bench_npu.py [--devices N] [--rounds N] [--seconds N]

The emulator (docs/emulator.md) computes a small model on the CPU. Executions and copies take the given times, so the ratios
show how much time is lost around the devices on this machine. Compared sides take turns in short rounds; a ratio is the median
of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import onnx
from bench_pool import consume, ratios, report
from onnx import TensorProto, helper, numpy_helper

from ais_bench.emulator import npus, pack
from ais_bench.session import InferSession, MultiDeviceSession

SMALL = (1, 16)
COPIED = (1, 128, 128)  # 64 KiB each way: little work for the processors; the time of the copy is simulated
PARAMETERS = 11_700_000  # as many as ResNet-18 has
STAGE_MS = 2.0  # copy in, execution and copy out, each


def add_one_model(folder: str, shape: tuple[int, ...]) -> str:
    """Return the model y = x + 1, packed for the emulator."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    node = helper.make_node("Add", ["x", "one"], ["y"])
    return _packed(folder, helper.make_graph([node], f"add_one{math.prod(shape)}", [x], [y], [one]))


def lookup_model(folder: str, parameters: int) -> str:
    """Return the model y = table[x], packed: it has any size, and computes almost nothing."""
    table = numpy_helper.from_array(np.zeros((parameters // 16, 16), np.float32), "table")
    x = helper.make_tensor_value_info("x", TensorProto.INT64, (1,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 16))
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return _packed(folder, helper.make_graph([node], f"lookup{parameters}", [x], [y], [table]))


def _packed(folder: str, graph: Any) -> str:
    path = os.path.join(folder, graph.name)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{path}.onnx")
    return str(pack(f"{path}.onnx", f"{path}.om"))


def share_of_ideal(model: str, devices: int, rounds: int, seconds: float) -> None:
    """Compare a stream of executions with the number that the devices can execute in the same time."""
    feeds = [np.zeros(SMALL, np.float32)]
    for exec_ms, target in ((5.0, ">= 0.98"), (0.5, ">= 0.90")):
        ideal = devices / exec_ms * 1e3
        with npus(devices, exec_ms=exec_ms), MultiDeviceSession(model, devices=range(devices)) as session:
            consume(session.map(itertools.repeat(feeds, 10 * devices)))
            count = int(ideal * seconds)
            rates = []
            for _ in range(rounds):
                began = time.perf_counter()
                consume(session.map(itertools.repeat(feeds, count)))
                rates.append(count / (time.perf_counter() - began))
        rate = statistics.median(rates)
        report(f"{devices} NPUs of {exec_ms:g} ms, share of N / exec time", f"{rate:,.0f}/s", rate / ideal, target)


def overlap(model: str, devices: int, rounds: int) -> None:
    """Compare copies beside the execution with copies before and after it. Each takes as long as the execution."""
    feeds = [np.zeros(COPIED, np.float32)]
    gbps = feeds[0].nbytes / (STAGE_MS / 1e3) / 1e9
    what = f"copies as long as the execution ({STAGE_MS:g} ms)"
    with npus(devices, exec_ms=STAGE_MS, copy_gbps=gbps):
        with (
            MultiDeviceSession(model, devices=range(devices)) as many,
            MultiDeviceSession(model, devices=range(devices), tasks_in_flight=1) as one,
        ):
            batch = 100 * devices
            mine, times = ratios(
                lambda: consume(many.map(itertools.repeat(feeds, batch))),
                {"in turn": lambda: consume(one.map(itertools.repeat(feeds, batch)))},
                rounds,
            )
        report(f"{what}: map, against one task in flight", f"{batch / mine:,.0f}/s", times["in turn"], ">= 1.8")
        with InferSession(0, model) as session:  # the first use of AscendCL in this process
            batch = 100
            mine, times = ratios(
                lambda: session.infer_pipeline([feeds] * batch),
                {"in turn": lambda: [session.infer(feeds) for _ in range(batch)]},
                rounds,
            )
        report(f"{what}: infer_pipeline, against infer", f"{batch / mine:,.0f}/s", times["in turn"], ">= 1.8")


def _run_once(results: Any, model: str, device: int, index: int, feeds: list[Any]) -> None:
    results.put((device, index, InferSession(device, model).infer(feeds)))


def process_per_feeds(model: str, by_device: dict[int, list[Any]]) -> dict[int, list[Any]]:
    """Run like the original: a process for each set of feeds loads the model and answers through a manager's queue."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(sum(map(len, by_device.values()))) as pool:
        queue = manager.Queue()
        runs = [
            pool.apply_async(_run_once, (queue, model, device, index, feeds))
            for device, several in by_device.items()
            for index, feeds in enumerate(several)
        ]
        for run in runs:
            run.get()
        answers = [queue.get() for _ in runs]
    results: dict[int, list[Any]] = {device: [] for device in by_device}
    for device, _, outputs in sorted(answers, key=lambda answer: answer[:2]):
        results[device].append(outputs)
    return results


def original(what: str, model: str, feeds: Any, exec_ms: float, devices: int, rounds: int) -> None:
    """Measure repeated calls in the form of the API guide, with one set of feeds for each device."""
    by_device = {device: [[feeds]] for device in range(devices)}
    with npus(devices, exec_ms=exec_ms), MultiDeviceSession(model, devices=range(devices)) as session:
        expected = session.infer(by_device)
        for device, outputs in process_per_feeds(model, by_device).items():
            np.testing.assert_array_equal(outputs, expected[device])
        mine, times = ratios(
            lambda: session.infer(by_device), {"original": lambda: process_per_feeds(model, by_device)}, rounds
        )
    title = f"infer({{0: ...}}) of {what}, {exec_ms:g} ms, against a process a feeds list"
    report(title, f"{mine * 1e3:.1f} ms", times["original"], ">= 50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of a stream")
    arguments = parser.parse_args()
    print(f"{arguments.devices} emulated NPUs, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        small, copied = add_one_model(folder, SMALL), add_one_model(folder, COPIED)
        devices, rounds = arguments.devices, arguments.rounds
        share_of_ideal(small, devices, rounds, arguments.seconds)
        original("47 MB", lookup_model(folder, PARAMETERS), np.zeros(1, np.int64), 5.0, devices, rounds)
        for exec_ms in (5.0, 0.5):
            original("no weights", small, np.zeros(SMALL, np.float32), exec_ms, devices, rounds)
        overlap(copied, devices, rounds)


if __name__ == "__main__":
    main()
