"""Measure callables beside the device, on emulated NPUs. Prints ratios.

    python benchmarks/bench_callables.py [--devices N] [--items N] [--rounds N]

1. A preprocess and a postprocess that each wait as long as the device works: the rate with them against the rate without.
2. A preprocess that computes in Python for twice the device's time, in as many CPU workers as there are processors, against the
   same function in multiprocessing.Pool alone, without any device.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_npu import SMALL, add_one_model
from bench_pool import consume, report

from ais_bench.emulator import npus
from ais_bench.session import MultiDeviceSession

DEVICE_MS = 20.0


def wait(argument: Any) -> Any:
    time.sleep(DEVICE_MS / 1e3)
    return argument


def compute(item: int) -> Any:
    """Compute in Python for 10 ms of processor time."""
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        item += 1
    return [np.zeros(SMALL, np.float32)]


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def waiting(model: str, devices: int, items: int, rounds: int) -> None:
    feeds = [np.zeros(SMALL, np.float32)]
    with (
        npus(devices, exec_ms=DEVICE_MS),
        MultiDeviceSession(model, devices=range(devices)) as plain,
        MultiDeviceSession(model, devices=range(devices), preprocess=wait, postprocess=wait) as staged,
        MultiDeviceSession(model, devices=range(devices), preprocess=wait, postprocess=wait, callable_threads=1) as one,
    ):
        sides = {"by default": staged, "one thread each": one}
        for session in (plain, staged, one):
            consume(session.map([feeds] * 8 * devices))
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            without = timed(lambda: consume(plain.map([feeds] * items)))
            for name, session in sides.items():
                found[name].append(without / timed(lambda s=session: consume(s.map([feeds] * items))))  # type: ignore[misc]
    for name, ratios in found.items():
        rate = statistics.median(ratios)
        report(f"{devices} NPUs of {DEVICE_MS:g} ms, callables that wait as long, {name}", f"{rate:.2f}", rate, ">= 0.95")


def computing(model: str, items: int, rounds: int) -> None:
    cpus = len(os.sched_getaffinity(0))
    with (
        npus(cpus, exec_ms=5),
        MultiDeviceSession(model, devices=range(cpus), preprocess=compute, preprocess_workers=cpus) as session,
        multiprocessing.get_context("fork").Pool(cpus) as pool,
    ):
        consume(session.map(range(8 * cpus)))
        pool.map(compute, range(8 * cpus))
        ratios = []
        for _ in range(rounds):
            mine = timed(lambda: consume(session.map(range(items))))
            ratios.append(timed(lambda: consume(pool.imap(compute, range(items)))) / mine)
    rate = statistics.median(ratios)
    report(f"preprocess in Python for twice the device's time, {cpus} CPU workers, against Pool", f"{rate:.2f}", rate, ">= 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        small = add_one_model(folder, SMALL)
        waiting(small, arguments.devices, arguments.items, arguments.rounds)
        computing(small, arguments.items // 2, arguments.rounds)


if __name__ == "__main__":
    main()
