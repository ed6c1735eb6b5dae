"""Compare all devices with bare processes, a hand-written pool and multiprocessing.Pool. Prints ratios.

    python benchmarks/bench_pool.py [--seconds N] [--devices N]

Compared sides take turns in short rounds, so that a change of the machine's speed affects all of them. A ratio is the median of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from bench_single import LIGHT, add_model
from handwritten import HandwrittenPool, bare_throughput

from ais_bench.session import InferSession, MultiDeviceSession

Call = Callable[[], object]
_session: Any = None


def report(name: str, value: str, ratio: float, target: str) -> None:
    print(f"{name:<58} {value:>16}  {ratio:8.2f}  target {target}", flush=True)


def ratios(ours: Call, others: dict[str, Call], rounds: int) -> tuple[float, dict[str, float]]:
    """Return the seconds of one call of ours, and for each other side how many times longer it takes. A call is a batch."""
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    for call in (ours, *others.values()):
        call()
    for turn in range(rounds):
        sides = [("ours", ours), *others.items()]
        for name, call in sides if turn % 2 == 0 else reversed(sides):
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    mine = seconds.pop("ours")
    return statistics.median(mine), {
        name: statistics.median(other / own for other, own in zip(times, mine, strict=True)) for name, times in seconds.items()
    }


def consume(results: Iterable[object]) -> None:
    for _ in results:
        continue


def _open(path: str) -> None:
    global _session
    from handwritten import open_session

    _session = open_session(path)


def _run(feeds: list[Any]) -> Any:
    return _session.run(None, dict(zip((i.name for i in _session.get_inputs()), feeds, strict=True)))


def small_tasks(folder: str, devices: int, rounds: int) -> None:
    """Measure an Add of 1x3x32x32: one in flight, and many in a stream."""
    path = add_model(folder)
    feeds = [np.random.default_rng(0).random((1, 3, 32, 32), np.float32)] * 2
    alone = InferSession(0, path, threads=1)
    handwritten = HandwrittenPool(path, devices)
    with (
        multiprocessing.get_context("fork").Pool(devices, _open, (path,)) as standard,
        MultiDeviceSession(path, devices=range(devices)) as session,
    ):
        one, batch = 300, 4000
        mine, times = ratios(
            lambda: [session.infer(feeds) for _ in range(one)],
            {
                "in process": lambda: [alone.infer(feeds) for _ in range(one)],
                "hand-written": lambda: [handwritten.apply(feeds) for _ in range(one)],
                "multiprocessing": lambda: [standard.apply(_run, (feeds,)) for _ in range(one)],
            },
            rounds,
        )
        each_us = mine / one * 1e6
        report("small infer, more than in process", f"{each_us:.1f} us", each_us * (1 - times["in process"]), "<= 8 us")
        report("small infer against the hand-written pool", f"{each_us:.1f} us", times["hand-written"], ">= 5")
        report("small infer against multiprocessing.Pool.apply", f"{each_us:.1f} us", times["multiprocessing"], ">= 15")
        mine, times = ratios(
            lambda: consume(session.map(itertools.repeat(feeds, batch))),
            {
                "hand-written": lambda: consume(handwritten.map(itertools.repeat(feeds, batch))),
                "multiprocessing": lambda: consume(standard.imap(_run, itertools.repeat(feeds, batch))),
            },
            rounds,
        )
        rate = batch / mine
        report("small tasks in a stream", f"{rate:,.0f}/s", rate, ">= 150,000")
        report("small tasks against the hand-written pool", f"{rate:,.0f}/s", times["hand-written"], ">= 1.7")
        report("small tasks against multiprocessing.Pool.imap", f"{rate:,.0f}/s", times["multiprocessing"], ">= 17")
    handwritten.close()
    alone.free_resource()


def models(devices: int, seconds: float) -> None:
    """Compare data-parallel models with bare processes that only compute."""
    for name, target in (("light_resnet50", ">= 0.99"), ("light_squeezenet", ">= 0.98")):
        path = os.path.join(LIGHT, f"{name}.onnx")
        shape = InferSession(0, path).get_inputs()[0].shape
        feeds = [np.random.default_rng(0).random(shape, np.float32)]
        shares = []
        with MultiDeviceSession(path, devices=range(devices)) as session:
            session.start()
            for _ in range(3):
                bare = bare_throughput(path, devices, seconds)
                count, began = 0, time.perf_counter()
                for _ in session.map(itertools.repeat(feeds)):
                    count += 1
                    if (spent := time.perf_counter() - began) >= seconds:
                        break
                shares.append((count / spent / bare, count / spent))
        share, rate = sorted(shares)[1]
        report(f"{name} on {devices} devices against bare processes", f"{rate:.1f}/s", share, target)


def cold_start(path: str, devices: int) -> None:
    """Compare the first result of a new process with all devices with that of one bare onnxruntime process."""
    run = "[np.zeros((1, 3, 224, 224), np.float32)]"
    ours = (
        "import numpy as np\nfrom ais_bench.session import MultiDeviceSession\n"
        f"with MultiDeviceSession({path!r}, devices={list(range(devices))}) as s:\n    s.infer({run})"
    )
    bare = (
        "import numpy as np, onnxruntime as o\n"
        f"s = o.InferenceSession({path!r}, providers=['CPUExecutionProvider'])\n"
        f"s.run(None, {{s.get_inputs()[0].name: {run}[0]}})"
    )
    # Compile the sources once, like those of installed packages; otherwise only this side would compile them in every process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    mine, times = ratios(
        lambda: subprocess.run([sys.executable, "-c", ours], check=True, env=environment),
        {"bare": lambda: subprocess.run([sys.executable, "-c", bare], check=True, env=environment)},
        11,
    )
    report("first result of a cold pool against one bare process", f"{mine:.2f} s", 1 / times["bare"], "< 1.5")


def death(folder: str, devices: int) -> None:
    """Measure the time from the death of a worker until another one has answered its task."""
    if devices < 2:
        return
    with MultiDeviceSession(add_model(folder), devices=range(devices), preprocess=_slow, restart_backoff=0) as session:
        session.start()
        spans = []
        for _ in range(10):
            while any(worker.state != "ready" for worker in session.report().workers):
                time.sleep(0.01)
            future = session.submit(0.2, device=None)
            time.sleep(0.05)  # the task is running
            busy = next(worker for worker in session.report().workers if _is_at_work(worker.pid))
            spans.append(_kill_and_wait(busy.pid, future))
        report("death of a worker to its task's answer, less the task", "", statistics.median(spans) * 1e3, "<= 10 ms")


def _slow(seconds: float) -> Any:
    time.sleep(seconds)
    return [np.zeros((1, 3, 32, 32), np.float32)] * 2


def _is_at_work(pid: int | None) -> bool:
    """Return whether a thread of the process is in the task's sleep, and not waiting for the doorbell."""
    return any("nanosleep" in path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/wchan"))


def _kill_and_wait(pid: int | None, future: Any) -> float:
    assert pid is not None
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    future.result(30)
    return time.perf_counter() - began - 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each throughput measurement")
    parser.add_argument("--devices", type=int, default=min(2, len(os.sched_getaffinity(0))))
    arguments = parser.parse_args()
    print(f"{arguments.devices} CPU devices, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        small_tasks(folder, arguments.devices, rounds=9)
        death(folder, arguments.devices)
    cold_start(os.path.join(LIGHT, "light_squeezenet.onnx"), arguments.devices)
    models(arguments.devices, arguments.seconds)


if __name__ == "__main__":
    main()
