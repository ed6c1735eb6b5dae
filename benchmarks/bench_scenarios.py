"""Measure difficult cases for pools: a slow device, long tasks after short ones, live sources, cancelled work. Prints ratios.

    python benchmarks/bench_scenarios.py [--rounds N] [--only WORD ...]

Each line is a ratio to the same machine without the difficulty, or to a simulated time (emulated NPUs, sleeps).
A line that misses its target ends with "missed".
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import onnx
from bench_npu import SMALL, add_one_model
from bench_pool import consume
from onnx import TensorProto, helper

from ais_bench.emulator import npus
from ais_bench.session import MultiDeviceSession

FEEDS = [np.zeros(SMALL, np.float32)]
DEVICES, ITEMS, QUICK_MS = 8, 400, 10.0
_missed: list[str] = []


def line(name: str, value: float, most: float, unit: str = "") -> None:
    """Print one line of the table. `most`: the target, which the value should not exceed."""
    missed = value > most
    if missed:
        _missed.append(name)
    print(f"{name:<76} {value:9.3f}{unit}  target <= {most:g}{unit}{'  missed' if missed else ''}", flush=True)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def sleep_ms(item: Any) -> Any:
    """Wait for the milliseconds that the item says. Used as a preprocess."""
    time.sleep(float(item) / 1e3)
    return FEEDS


def identity_model(folder: str, shape: tuple[Any, ...]) -> str:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    path = os.path.join(folder, f"identity{len(shape)}.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# ---- one slow device ----


def ways(session: MultiDeviceSession) -> dict[str, Callable[[], object]]:
    whole = np.zeros((ITEMS, *SMALL[1:]), np.float32)
    return {
        "map": lambda: consume(session.map([FEEDS] * ITEMS)),
        "map_unordered": lambda: consume(session.map_unordered([FEEDS] * ITEMS)),
        "infer_batch": lambda: session.infer_batch(whole, batch_size=1),
        "infer_pipeline": lambda: session.infer_pipeline([FEEDS] * ITEMS),
        "submit": lambda: [future.result() for future in [session.submit(FEEDS) for _ in range(ITEMS)]],
    }


def slow_device(folder: str, rounds: int) -> None:
    """Compare eight NPUs, one of them slow, with the seven fast ones alone. One task of the slow device is allowed."""
    model = add_one_model(folder, SMALL)
    for slow_ms in (100.0, 200.0, 500.0, 1000.0):
        with npus(DEVICES, exec_ms=f"{QUICK_MS};0={slow_ms}"):
            with MultiDeviceSession(model, devices=range(1, DEVICES)) as seven:
                alone = {name: statistics.median(timed(call) for _ in range(rounds)) for name, call in ways(seven).items()}
            for name in alone:
                with MultiDeviceSession(
                    model, devices=range(DEVICES)
                ) as session:  # a new session, without estimates of the devices
                    session.start()
                    times = [timed(ways(session)[name]) for _ in range(rounds)]
                worst = max((spent - slow_ms / 1e3) / alone[name] for spent in times)
                line(f"one of 8 NPUs at {slow_ms:g} ms, {name}, less one slow task, against seven", worst, 1.15)


# ---- long and quick ones ----


def long_after_quick(folder: str, rounds: int) -> None:
    model = add_one_model(folder, SMALL)
    for quick in (0, 10, 50, 1000):
        worst = 0.0
        for _ in range(rounds):
            with npus(DEVICES), MultiDeviceSession(model, devices=range(DEVICES), preprocess=sleep_ms) as session:
                session.start()
                consume(session.map([0.0] * quick))
                worst = max(worst, timed(lambda s=session: consume(s.map([300.0] * DEVICES))))  # type: ignore[misc]
        line(f"8 items of 0.3 s after {quick} quick ones, worst of {rounds}, against 0.3 s", worst / 0.3, 1.2)


def quick_after_long(folder: str, rounds: int) -> None:
    model = add_one_model(folder, SMALL)
    for gives_up in (False, True):
        worst = 0.0
        for _ in range(rounds):
            with npus(2), MultiDeviceSession(model, devices=range(2), preprocess=sleep_ms, callable_threads=1) as session:
                session.start()
                consume(session.map([0.0] * 50))
                slow = session.submit(3000.0, timeout=0.1 if gives_up else None)
                if gives_up:
                    slow.exception()
                began = time.perf_counter()
                for future in [session.submit(0.0) for _ in range(20)]:
                    future.result()
                    worst = max(worst, time.perf_counter() - began)
                slow.cancel()
                session.close(force=True)
        after = "a call of 3 s that its caller gave up" if gives_up else "a call of 3 s"
        line(f"20 quick calls on two workers behind {after}: the slowest, worst of {rounds}", worst, 0.1, " s")


def cancelled(folder: str, rounds: int) -> None:
    model = add_one_model(folder, SMALL)
    worst, ran = 0.0, 0
    for _ in range(rounds):
        with npus(2), MultiDeviceSession(model, devices=range(2), preprocess=sleep_ms, callable_threads=1) as session:
            session.start()
            futures = [session.submit(1000.0) for _ in range(8)]
            time.sleep(0.1)
            began = time.perf_counter()
            for future in futures:
                future.cancel()
            session.infer(0.0)
            worst = max(worst, time.perf_counter() - began)
            for future in futures:
                try:
                    future.result()
                except CancelledError:
                    continue
                ran += 1
    line(f"eight calls of 1 s cancelled after 0.1 s: the next answer, worst of {rounds}", worst, 1.1, " s")
    line("of these, calls that gave a result although they were cancelled", float(ran), 0.0)


# ---- live sources, large items ----


def _nothing(item: Any) -> Any:
    return item


def lateness(stream: Callable[[Iterator[Any]], Iterator[Any]], feeds: list[Any], items: int) -> float:
    """Return the median delay of the results of a source with 50 items per second, in milliseconds."""
    born: list[float] = []

    def source() -> Iterator[Any]:
        due = time.perf_counter()
        for _ in range(items):
            due += 0.02
            time.sleep(max(0.0, due - time.perf_counter()))
            born.append(time.perf_counter())
            yield feeds

    late = []
    for index, _ in enumerate(stream(source())):
        late.append(time.perf_counter() - born[index])
    return statistics.median(late[10:]) * 1e3


def paced(session: MultiDeviceSession, feeds: list[Any], items: int) -> float:
    """Return the median time of one `infer` every 20 ms, in milliseconds: the lower bound for a stream."""
    spent = []
    for _ in range(items):
        time.sleep(0.02)
        spent.append(timed(lambda: session.infer(feeds)))
    return statistics.median(spent) * 1e3


def live_source(folder: str, rounds: int) -> None:
    items = 60
    feeds = [np.zeros((1, 3, 64, 64), np.float32)]
    cpu = identity_model(folder, (1, 3, 64, 64))
    npu = add_one_model(folder, (1, 3, 64, 64))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for name, model in (("CPU devices", cpu), ("NPUs", npu)):
            with npus(2), MultiDeviceSession(model, devices=range(2)) as session:
                session.start()
                for history in (0, 3000):
                    consume(session.map([feeds] * history))
                    more = []
                    for _ in range(rounds):
                        theirs = lateness(lambda source: pool.imap(_nothing, source), feeds, items)
                        more.append(lateness(session.map, feeds, items) - theirs)
                    line(
                        f"50 items/s on {name}, after {history}: median lateness over imap's",
                        statistics.median(more),
                        3.0,
                        " ms",
                    )
                print(f"    one infer at that pace takes {paced(session, feeds, items):.3f} ms")


def large_items(folder: str) -> None:
    """Count how many 64 MiB items are drawn ahead of the yielded ones, after 3,000 tiny items."""
    model = identity_model(folder, ("n",))
    window = 512 << 20
    with MultiDeviceSession(model, devices=range(2), window=window) as session:
        consume(session.map([[np.zeros(16, np.float32)]] * 3000))
        large = [np.zeros(16 << 20, np.float32)]
        drawn = taken = most = 0

        def source() -> Iterator[Any]:
            nonlocal drawn, most
            for _ in range(40):
                drawn += 1
                most = max(most, drawn - taken)
                yield large

        for _ in session.map(source()):
            taken += 1
    line("64 MiB items after 3,000 tiny ones: read ahead, against the limit in bytes", most * (64 << 20) / window, 1.0)


def large_after_tiny(folder: str, rounds: int) -> None:
    """Run large batches after tiny ones on two CPU devices. Both devices must share them."""
    worst = 0.0
    for _ in range(rounds):
        with MultiDeviceSession(identity_model(folder, ("n",)), devices=range(2), preprocess=sleep_ms_of_one) as session:
            consume(session.map([0.0] * 1000))
            worst = max(worst, timed(lambda s=session: consume(s.map([250.0] * 4))))  # type: ignore[misc]
    line(f"4 batches of 0.25 s after 1,000 tiny ones on two devices, worst of {rounds}, against 0.5 s", worst / 0.5, 1.1)


def sleep_ms_of_one(item: Any) -> Any:
    time.sleep(float(item) / 1e3)
    return [np.zeros(1, np.float32)]


def chain_model(folder: str) -> str:
    """Return a model of eight products with a matrix of 512 by 512: its work grows with the batch."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 512)) for name in "xy")
    weights = np.random.default_rng(0).random((512, 512), np.float32) / 512
    names = ["x", *(f"h{step}" for step in range(7)), "y"]
    nodes = [helper.make_node("MatMul", [names[step], "w"], [names[step + 1]]) for step in range(8)]
    graph = helper.make_graph(nodes, "chain", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
    path = os.path.join(folder, "chain.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def large_arrays_after_tiny(folder: str, rounds: int) -> None:
    """The same with arrays: the time of a task grows with its size. The baseline is a session without tiny tasks."""
    tiny, large = [np.ones((1, 512), np.float32)], [np.ones((4096, 512), np.float32)]
    ratios = []
    for _ in range(rounds):
        spent = []
        for before in (0, 1000):
            with MultiDeviceSession(chain_model(folder), devices=range(2)) as session:
                consume(session.map([large] * 2))
                consume(session.map([tiny] * before))
                spent.append(timed(lambda s=session: consume(s.map([large] * 4))))  # type: ignore[misc]
        ratios.append(spent[1] / spent[0])
    line(f"4 large batches of arrays after 1,000 tiny ones, median of {rounds}, against none", statistics.median(ratios), 1.1)


# ---- a worker that makes no progress ----


def close_stopped(folder: str) -> None:
    model = add_one_model(folder, SMALL)
    for in_hand in (False, True):
        with npus(2):
            session = MultiDeviceSession(model, devices=range(2), preprocess=sleep_ms, close_timeout=3.0)
            session.start()
            consume(session.map([0.0] * 20))
            worker = session.report().workers[0]
            if in_hand:
                future = session.submit(20_000.0, device=worker.device)
                time.sleep(0.2)
            os.kill(worker.pid or 0, signal.SIGSTOP)
            spent = timed(session.close)
            if in_hand:
                future.exception()
        what = "with a task in hand, close_timeout=3" if in_hand else "with nothing in hand"
        line(f"close() beside a stopped worker {what}", spent, 4.0 if in_hand else 5.0, " s")


def threads_are_fair(folder: str) -> None:
    """Run infer in 16 threads. The ratio is that of the fastest to the slowest thread, so less is better."""
    model = identity_model(folder, ("n",))
    feeds = [np.zeros(16, np.float32)]
    with MultiDeviceSession(model, devices=range(2)) as session:
        session.infer(feeds)
        counts, end = [0] * 16, time.monotonic() + 4.0

        def calls(number: int) -> None:
            while time.monotonic() < end:
                session.infer(feeds)
                counts[number] += 1

        threads = [threading.Thread(target=calls, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    line("16 threads in infer: the fastest against the slowest", max(counts) / max(1, min(counts)), 2.0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of functions of this file")
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        scenarios: dict[str, Callable[[], None]] = {
            "slow_device": lambda: slow_device(folder, rounds),
            "long_after_quick": lambda: long_after_quick(folder, rounds),
            "large_after_tiny": lambda: large_after_tiny(folder, rounds),
            "large_arrays_after_tiny": lambda: large_arrays_after_tiny(folder, rounds),
            "quick_after_long": lambda: quick_after_long(folder, rounds),
            "cancelled": lambda: cancelled(folder, rounds),
            "live_source": lambda: live_source(folder, rounds),
            "large_items": lambda: large_items(folder),
            "close_stopped": lambda: close_stopped(folder),
            "threads_are_fair": lambda: threads_are_fair(folder),
        }
        for name, scenario in scenarios.items():
            if not arguments.only or name in arguments.only:
                scenario()
    print(f"{len(_missed)} missed")
    return 1 if _missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
