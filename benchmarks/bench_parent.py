"""Count the parent's instructions for a task with callgrind. They do not depend on the load of the machine.

    python benchmarks/bench_parent.py [--workers 8 64] [--tasks N]

The workers return their feeds. `stream`: the workers are faster than the parent. `busy stream`: the workers wait for each task,
so the parent has time and gets each answer alone. Both count the instructions of the stream's `next`, which does the whole work
of a task; other threads and the start do other work in each run. `infer`: one call after the other, all threads counted. A
figure is the difference between a run with many tasks and one with few.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from ais_bench.pool import Answer, DevicePool, PoolSettings, Task, WorkerContext
from ais_bench.shm import EchoHandler
from ais_bench.shm import Task as Received

ARENA_BYTES = 64 << 20
BUSY_RATE = 500  # tasks a second of all workers together: valgrind makes the parent 50 times slower


class Echo:
    """Returns feeds natively at once, or after a time."""

    def __init__(self, wait_s: float) -> None:
        self.native = None if wait_s else EchoHandler()
        self._wait_s = wait_s

    def describe(self) -> None:
        return None

    def run(self, task: Received) -> Answer:
        """Wait, and return the feeds."""
        time.sleep(self._wait_s)
        return Answer(task.feeds)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def load(what: str, workers: int, tasks: int) -> None:
    """Run the program for callgrind."""
    # Under valgrind a program has too little address space for 64 workers of the usual size.
    resource.setrlimit(resource.RLIMIT_FSIZE, (ARENA_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    wait_s = workers / BUSY_RATE if what == "busy stream" else 0.0

    def factory(_context: WorkerContext) -> Echo:
        return Echo(wait_s)

    feeds = [np.zeros(16, np.float32)]  # so small that copying does not hide the rest
    with DevicePool(factory, range(workers), PoolSettings(affinity="none", spin=0, start_timeout=600)) as pool:
        for _ in range(4 * workers):
            pool.run(Task(feeds))
        if what == "infer":
            for _ in range(tasks):
                pool.run(Task(feeds))
        else:
            for _ in pool.ordered(itertools.repeat(feeds, tasks), lambda item, index: Task(item, index=index), lists=0):
                continue


def instructions(what: str, workers: int, tasks: int) -> int:
    """Return the instructions of the stream, or of the whole program, without its workers."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", f"--log-file={log}"]
        if what != "infer":
            valgrind.append("--toggle-collect=ais::bind::Stream::next()")
        program = [sys.executable, __file__, "--load", what, "--workers", str(workers), "--tasks", str(tasks)]
        # numpy's idle threads spin, and valgrind counts that.
        subprocess.run([*valgrind, *program], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        with open(log) as file:
            found = re.search(r"Collected : (\d+)", file.read())
        assert found is not None
        return int(found.group(1))


def main() -> None:
    """Print a line for each way to use a pool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64], help="how many; a figure for each")
    parser.add_argument("--tasks", type=int, default=3000, help="of one run")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load(arguments.load, arguments.workers[0], arguments.tasks)
        return
    if shutil.which("valgrind") is None:
        print("valgrind is needed to count instructions")
        return
    for what in ("stream", "busy stream", "infer"):
        costs = []
        for workers in arguments.workers:
            few = arguments.tasks // 4
            counted = instructions(what, workers, arguments.tasks) - instructions(what, workers, few)
            costs.append(counted / (arguments.tasks - few))
        each = ", ".join(f"{cost:,.0f} with {workers}" for cost, workers in zip(costs, arguments.workers, strict=True))
        print(f"parent's instructions a task, {what}: {each} workers; {costs[-1] / costs[0]:.2f}  target <= 1.2", flush=True)


if __name__ == "__main__":
    main()
