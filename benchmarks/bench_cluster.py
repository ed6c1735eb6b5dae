"""Several nodes on this machine: what a cluster session reaches of what its nodes reach alone, and what a lost node costs.

    python benchmarks/bench_cluster.py [--seconds N] [--items N]

Two raylets with four emulated NPUs of 20 ms each (docs/emulator.md). Both raylets, the emulator and this program share the
processors of one machine, so the shares are lower bounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_npu import SMALL, add_one_model

from ais_bench.emulator.binary import library_path
from ais_bench.emulator.machine import find_onnxruntime
from ais_bench.ray import ClusterSession
from ais_bench.session import MultiDeviceSession

NPUS, MS = 4, 20.0
HOST = Path(__file__).resolve().parent.parent / "tests" / "ray_host.py"  # a cluster in a process of its own


def feeds(count: int | None = None) -> Any:
    number = 0
    while count is None or number < count:
        yield [np.full(SMALL, number, np.float32)]
        number += 1


def rate(session: Any, seconds: float) -> float:
    """Items a second, after the first second."""
    done, began = 0, time.monotonic()
    counted_from = None
    for _ in session.map(feeds()):
        now = time.monotonic()
        if counted_from is None:
            counted_from = now if now - began > 1 else None
            continue
        done += 1
        if now - counted_from > seconds:
            return done / (now - counted_from)
    raise AssertionError("the stream ended")


def through_a_death(session: ClusterSession, items: int, kill: Any) -> tuple[float, float]:
    """The longest time without a result after a node was killed hard, and before, in a run that is checked item by item."""
    gaps: list[float] = []
    newest = time.monotonic()
    for number, (outputs, item) in enumerate(session.map(feeds(items), details=True)):
        assert item.index == number
        assert (outputs[0] == number + 1).all()
        now = time.monotonic()
        gaps.append(now - newest)
        newest = now
        if number == items // 2:
            kill()
    assert len(gaps) == items
    return max(gaps[items // 2 :]), statistics.quantiles(gaps[: items // 2], n=100)[98]


def until_used(session: ClusterSession, add: Any) -> float:
    """Seconds from the start of a node to the first result of one of its devices."""
    known = {node for node, _ in session.devices}
    add()
    began = time.monotonic()
    for _, item in session.map(feeds(), details=True):
        if item.device_id[0] not in known:
            return time.monotonic() - began
    raise AssertionError("the stream ended")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--items", type=int, default=5000)
    asked = parser.parse_args()
    environment = {
        "AIS_BENCH_ACL_LIBRARY": str(library_path()),
        "AIS_BENCH_ORT_LIBRARY": str(find_onnxruntime()),
        "AIS_EMULATOR_DEVICES": str(NPUS),
        "AIS_EMULATOR_EXEC_MS": str(MS),
    }
    os.environ.update(environment)
    with tempfile.TemporaryDirectory() as folder:
        model = add_one_model(folder, SMALL)
        with MultiDeviceSession(model) as session:
            alone = rate(session, asked.seconds)
        command = [sys.executable, str(HOST), "2", str(NPUS), str(MS)]
        host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert host.stdin is not None
        assert host.stdout is not None
        told, answers = host.stdin, host.stdout

        def tell(command: str) -> None:
            told.write(command + "\n")
            told.flush()

        try:
            with ClusterSession(model, address=answers.readline().strip()) as cluster:
                cluster.start()
                both = rate(cluster, asked.seconds)
                ideal = 2 * NPUS * 1000 / MS
                print(
                    f"2 nodes: {both:.0f} items/s, {both / (2 * alone):.2f} of two sessions alone, {both / ideal:.2f} of ideal"
                )
                gap, usual = through_a_death(cluster, asked.items, lambda: tell("kill"))
                print(f"a node killed hard: longest time without a result {gap:.2f} s (p99 before: {usual * 1e3:.0f} ms)")
                print(f"a node that joins: {until_used(cluster, lambda: tell('add')):.1f} s from its start to its first result")
        finally:
            told.close()
            host.wait(60)


if __name__ == "__main__":
    main()
