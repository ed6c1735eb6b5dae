"""Measure a cluster session on this machine: its rate as a share of its nodes' own rates, and the cost of a lost node.

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
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench_npu import SMALL, add_one_model

from ais_bench.emulator.binary import library_path
from ais_bench.emulator.machine import find_onnxruntime
from ais_bench.ray import ClusterSession
from ais_bench.session import MultiDeviceSession

NPUS, MS = 4, 20.0
HOST = Path(__file__).resolve().parent.parent / "tests" / "support" / "ray_host.py"  # a cluster in a separate process


def feeds(count: int | None = None) -> Any:
    number = 0
    while count is None or number < count:
        yield [np.full(SMALL, number, np.float32)]
        number += 1


def rate(session: Any, seconds: float) -> float:
    """Return items per second, from a second after the first result on."""
    done = 0
    began = counted_from = None
    for _ in session.map(feeds()):
        now = time.monotonic()
        if began is None:
            began = now
        if counted_from is None:
            counted_from = now if now - began > 1 else None
            continue
        done += 1
        if now - counted_from > seconds:
            return done / (now - counted_from)
    raise AssertionError("the stream ended")


def through_a_death(session: ClusterSession, items: int, kill: Any) -> tuple[float, float]:
    """Return the longest time without a result after a node was killed, and before. Every item of the run is checked."""
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
    """Return the seconds from a node's joining to the first result of one of its devices."""
    known = {node for node, _ in session.devices}
    began: list[float] = []

    def start() -> None:
        add()
        began.append(time.monotonic())

    starting = threading.Thread(target=start)
    starting.start()
    for _, item in session.map(feeds(), details=True):
        if item.device_id[0] not in known:
            starting.join()
            return max(0.0, time.monotonic() - began[0])
    raise AssertionError("the stream ended")


def driver_cost(session: ClusterSession, seconds: float) -> tuple[float, float]:
    """Return chunks of one item per second, and this process's processor time for each in microseconds."""
    session.start()  # before the measurement
    done, began, used = 0, time.monotonic(), time.process_time()
    for _ in session.map(feeds()):
        done += 1
        if time.monotonic() - began > seconds:
            break
    return done / (time.monotonic() - began), (time.process_time() - used) / done * 1e6


KILLED = """
import os, signal, sys
import numpy as np
from ais_bench.ray import ClusterSession
session = ClusterSession(sys.argv[1], address=sys.argv[2])
for n, _ in enumerate(session.map([np.full({shape}, n, np.float32)] for n in range(100000))):
    if n == 50:
        workers = [line.pid for report in session.report().nodes.values() for line in report.workers]
        print("pids:", *workers, *{{psutil.Process(pid).ppid() for pid in workers}}, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def after_a_kill(model: str, address: str) -> float:
    """Return the seconds from the SIGKILL of a driver until all its actors and workers have ended."""
    program = "import psutil" + KILLED.format(shape=SMALL)
    done = subprocess.run([sys.executable, "-c", program, model, address], stdout=subprocess.PIPE, text=True)
    killed = time.monotonic()
    pids = [int(pid) for line in done.stdout.splitlines() if line.startswith("pids:") for pid in line.split()[1:]]
    assert len(pids) >= NPUS, done.stdout
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() - killed < 60, "processes are left"
        time.sleep(0.01)
    return time.monotonic() - killed


class Host:
    """A cluster in a separate process (tests/support/ray_host.py)."""

    def __init__(self) -> None:
        command = [sys.executable, str(HOST), "2", str(NPUS), str(MS)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.address = self.line()

    def line(self) -> str:
        """Return its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the cluster is gone"
        return line

    def tell(self, command: str) -> None:
        """Send it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill the newest node."""
        self.tell("kill")
        self.line()  # its id; the node is then killed

    def add(self) -> None:
        """Start a node, and wait until it is part of the cluster."""
        self.tell("add")
        while self.line() == "killed":  # lines about a former node
            pass

    def close(self) -> None:
        """End the cluster."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def say(text: str) -> None:
    """Print without buffering."""
    print(text, flush=True)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--items", type=int, default=5000)
    asked = parser.parse_args()
    os.environ.update(
        {
            "AIS_BENCH_ACL_LIBRARY": str(library_path()),
            "AIS_BENCH_ORT_LIBRARY": str(find_onnxruntime()),
            "AIS_EMULATOR_DEVICES": str(NPUS),
            "AIS_EMULATOR_EXEC_MS": str(MS),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        model = add_one_model(folder, SMALL)
        with MultiDeviceSession(model) as session:
            alone = rate(session, asked.seconds)
        host = Host()
        try:
            say(f"a driver killed: nothing is left after {after_a_kill(model, host.address):.1f} s")
            with ClusterSession(model, address=host.address, chunk=1) as cluster:
                each, cost = driver_cost(cluster, asked.seconds)
                say(f"chunks of one item: {each:.0f}/s; {cost:.0f} us of the driver's processor time a chunk")
            for chunk in (2, 4, 16, None):
                with ClusterSession(model, address=host.address, chunk=chunk) as cluster:
                    both = rate(cluster, asked.seconds)
                    size = "by default" if chunk is None else f"of {chunk} items, {chunk * MS / NPUS:.0f} ms"
                    of_ideal = both * MS / 1000 / (2 * NPUS)
                    say(
                        f"2 nodes, chunks {size}: {both / (2 * alone):.3f} of two sessions alone, {of_ideal:.3f} of the devices"
                    )
            with ClusterSession(model, address=host.address) as cluster:
                gap, usual = through_a_death(cluster, asked.items, host.kill)
                say(f"a node killed hard: longest time without a result {gap:.2f} s (p99 before: {usual * 1e3:.0f} ms)")
                say(f"a node that joins: its first result after {until_used(cluster, host.add):.1f} s")
        finally:
            host.close()


if __name__ == "__main__":
    main()
