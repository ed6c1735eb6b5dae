"""Measure the transport of arrays to a worker and back, beside memcpy and multiprocessing.Pool in the same run.

    python benchmarks/bench_transport.py [--rounds N]

Workers return or drop arrays natively, so only the transport is measured. Every row is the median of its rounds; rounds of
the two sides of a ratio alternate, so that a disturbance affects both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ais_bench.shm import Doorbell, Lane, Reply

SMALL = (1, 3, 32, 32)
LARGE_BYTES = 19 << 20
SPIN_US = 200.0
WAIT_US = 300  # simulated work, after which every side that does not spin is asleep
ECHO, SWALLOW = 0, 1  # modes of the EchoHandler
WORKER = """
import sys
from ais_bench.shm import Channel, EchoHandler
Channel(int(sys.argv[1]), int(sys.argv[2])).serve(EchoHandler())
"""


class Workers:
    """`count` workers that return their feeds, and their lanes."""

    def __init__(self, count: int) -> None:
        self.bell = Doorbell()
        self.lanes = [Lane(self.bell) for _ in range(count)]
        self.processes = []
        for lane in self.lanes:
            fds = (lane.fd, self.bell.fd)
            self.processes.append(subprocess.Popen([sys.executable, "-c", WORKER, *map(str, fds)], pass_fds=fds))
            lane.release_fd()

    def set_spin(self, us: float) -> None:
        """Set how long the workers spin before they sleep."""
        for lane in self.lanes:
            lane.spin_us = us

    def wait(self, lane: Lane, spin_us: float = SPIN_US) -> Reply:
        """Return the next reply on `lane`."""
        while True:
            ticket = self.bell.ticket()
            reply = lane.poll()
            if reply is not None:
                return reply
            self.bell.wait(ticket, None, spin_us)

    def close(self) -> None:
        """End the workers."""
        for lane in self.lanes:
            lane.close()
        for process in self.processes:
            process.wait()


def round_trip(workers: Workers, array: np.ndarray, calls: int, option: int = 0) -> float:
    """Return the seconds for each of `calls` calls, one in flight."""
    lane = workers.lanes[0]
    begun = time.perf_counter()
    for _ in range(calls):
        lane.try_submit([array], 0, None, option=option)
        workers.wait(lane, 0.0 if option else SPIN_US)
    return (time.perf_counter() - begun) / calls


def streamed(workers: Workers, array: np.ndarray, tasks: int, in_flight: int) -> float:
    """Return the seconds for each of `tasks` tasks over all workers, `in_flight` for each worker. Replies are dropped."""
    submitted = finished = 0
    begun = time.perf_counter()
    while finished < tasks:
        ticket = workers.bell.ticket()
        moved = False
        for lane in workers.lanes:
            while submitted < tasks and lane.in_flight < in_flight and lane.try_submit([array], 0, submitted):
                submitted += 1
                moved = True
            while lane.poll() is not None:
                finished += 1
                moved = True
        if not moved:
            workers.bell.wait(ticket, None, 20.0)
    return (time.perf_counter() - begun) / tasks


class Buffers:
    """Source and target buffers that are together larger than any cache."""

    def __init__(self) -> None:
        self.sources = [np.full(LARGE_BYTES, number, np.uint8) for number in range(4)]
        self.targets = [np.zeros(LARGE_BYTES, np.uint8) for _ in range(4)]

    def memcpy(self, copies: int) -> float:
        """Return the seconds in which one thread copies one buffer."""
        begun = time.perf_counter()
        for number in range(copies):
            np.copyto(self.targets[number % 4], self.sources[number % 4])
        return (time.perf_counter() - begun) / copies

    def submitted(self, workers: Workers, tasks: int, mode: int, kept: list[np.ndarray] | None = None) -> float:
        """Return the seconds for each task of one buffer, two in flight. In mode SWALLOW the worker reads nothing."""
        lane = workers.lanes[0]
        begun = time.perf_counter()
        submitted = finished = 0
        while finished < tasks:
            while submitted < tasks and lane.in_flight < 2:
                assert lane.try_submit([self.sources[submitted % 4]], mode, None)
                submitted += 1
            outputs = workers.wait(lane).outputs
            finished += 1
            if kept is not None:
                kept.extend(outputs or [])
        return (time.perf_counter() - begun) / tasks


def alternate(rounds: int, *sides: Callable[[], float]) -> list[float]:
    """Return the median of each side over rounds in which all sides take turns. The first round is a warm-up."""
    samples = [[side() for side in sides] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*samples, strict=True)]


def show(name: str, value: str, ratio: str = "") -> None:
    print(f"{name:<54}{value:>18}   {ratio}", flush=True)


def echo(array: np.ndarray) -> np.ndarray:
    return array


def bench_small(one: Workers, two: Workers, pool: Any, rounds: int) -> None:
    array = np.zeros(SMALL, np.float32)

    def by_pool() -> float:
        begun = time.perf_counter()
        for _ in range(300):
            pool.apply(echo, (array,))
        return (time.perf_counter() - begun) / 300

    def streamed_by_pool() -> float:
        begun = time.perf_counter()
        for _ in pool.imap(echo, (array for _ in range(2000))):
            pass
        return (time.perf_counter() - begun) / 2000

    one.set_spin(SPIN_US)
    ours, theirs = alternate(rounds, lambda: round_trip(one, array, 3000), by_pool)
    one.set_spin(0)
    (asleep,) = alternate(rounds, lambda: round_trip(one, array, 300, WAIT_US))
    show("small there and back, both sides spinning", f"{ours * 1e6:.1f} us", f"{theirs / ours:.0f} x Pool.apply")
    show("small there and back, both sides asleep between", f"{asleep * 1e6 - WAIT_US:.1f} us")
    two.set_spin(20.0)
    many, imap = alternate(rounds, lambda: streamed(two, array, 30_000, 64), streamed_by_pool)
    two.set_spin(0)
    show("small tasks, two workers, 64 in flight each", f"{1 / many:,.0f} /s", f"{imap / many:.0f} x Pool.imap")


def bench_large(one: Workers, rounds: int) -> None:
    buffers = Buffers()
    one.lanes[0].warm(LARGE_BYTES, LARGE_BYTES, 4)
    memcpy, in_only, both = alternate(
        rounds,
        lambda: buffers.memcpy(12),
        lambda: buffers.submitted(one, 12, SWALLOW),
        lambda: buffers.submitted(one, 12, ECHO),
    )
    show("memcpy of 19 MiB, one thread, cold", f"{LARGE_BYTES / memcpy / 1e9:.1f} GB/s")
    show("19 MiB in, nothing out", f"{LARGE_BYTES / in_only / 1e9:.1f} GB/s", f"{memcpy / in_only:.2f} of memcpy")
    show("19 MiB in and out, dropped by the caller", f"{both * 1e3:.2f} ms")
    (kept,) = alternate(min(rounds, 3), lambda: buffers.submitted(one, 12, ECHO, []))
    show("19 MiB in and out, kept by the caller", f"{kept * 1e3:.2f} ms")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (by_pool,) = alternate(2, lambda: sum(timed(pool.apply, buffers.sources[i]) for i in range(4)) / 4)
    show("the same by Pool.apply", f"{by_pool * 1e3:.2f} ms", f"{by_pool / kept:.0f} x ours")


def timed(apply: Callable[..., Any], array: np.ndarray) -> float:
    begun = time.perf_counter()
    apply(echo, (array,))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measurement")
    rounds = parser.parse_args().rounds
    print(f"{os.cpu_count()} cores; feeds of {SMALL} float32 are small\n")
    one, two = Workers(1), Workers(2)
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            bench_small(one, two, pool, rounds)
        bench_large(one, rounds)
    finally:
        one.close()
        two.close()


if __name__ == "__main__":
    main()
