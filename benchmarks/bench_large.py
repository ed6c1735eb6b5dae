"""Measure 19 MiB in and out through the pool, and small tasks, against other libraries for processes, and against threads.

    python benchmarks/bench_large.py [--rounds N]

Prints ratios. Every side returns its input; ours and the threads run an ONNX Identity. The last answers are kept, like a caller
would do. Threads in one process copy nothing; a second row of them copies each array once, as a pool must.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import faster_fifo
import loky
import numpy as np
import onnx
from handwritten import HandwrittenPool, open_session
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ais_bench.session import MultiDeviceSession

LARGE = (1, 3, 1280, 1280)  # 19.7 MB of float32
SMALL = (1, 3, 32, 32)
STREAM = 20_000
ITEMS = 100


def identity_model(folder: str, shape: tuple[int, ...]) -> str:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    path = os.path.join(folder, f"identity{shape[-1]}.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def echo(value: Any) -> Any:
    return value


def fifo_worker(tasks: Any, results: Any) -> None:
    while True:
        for item in tasks.get_many(timeout=60):
            if item is None:
                return
            results.put(item)


def compare(title: str, sides: dict[str, Callable[[], object]], rounds: int) -> None:
    """Call the sides in turn; the first is ours. A ratio above 1 says how many times longer the other side takes."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    ours, *others = seconds
    print(f"{title}: {statistics.median(seconds[ours]) * 1e3:.2f} ms")
    for name in others:
        ratio = statistics.median(other / mine for other, mine in zip(seconds[name], seconds[ours], strict=True))
        print(f"    {name:<46} {ratio:8.2f} times as long", flush=True)


def through_threads(path: str, items: list[NDArray[np.float32]], copies: bool) -> Callable[[], None]:
    """Return a call that runs the items in two threads with a session each, and keeps the last answers."""
    sessions = [open_session(path) for _ in range(2)]
    buffers = [np.empty(LARGE, np.float32) for _ in range(8)]

    def run() -> None:
        kept: deque[object] = deque(maxlen=8)
        running: deque[concurrent.futures.Future[object]] = deque()
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            for number, item in enumerate(items):
                if copies:
                    np.copyto(buffers[number % 8], item)
                feed = {"x": buffers[number % 8] if copies else item}
                running.append(executor.submit(sessions[number % 2].run, None, feed))
                if len(running) > 4:
                    kept.append(running.popleft().result())
            kept.extend(one.result() for one in running)

    return run


def streams(path: str, rounds: int) -> None:
    """Compare a stream of two workers with two threads in one process."""
    arrays = [np.random.default_rng(seed).random(LARGE, np.float32) for seed in range(4)]
    items = [arrays[number % 4] for number in range(ITEMS)]
    with MultiDeviceSession(path, devices=range(2)) as session:
        sets = [session.new_feeds() for _ in arrays]
        for made, array in zip(sets, arrays, strict=True):
            np.copyto(made[0], array)

        def ours(source: list[Any]) -> None:
            kept: deque[object] = deque(maxlen=8)
            kept.extend(session.map(source))

        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: ours([[item] for item in items]),
            "ours, with feeds in new_feeds()": lambda: ours([sets[number % 4] for number in range(ITEMS)]),
            "two threads in one process": through_threads(path, items, copies=False),
            "two threads that copy each array once": through_threads(path, items, copies=True),
        }
        compare(f"a stream of {ITEMS} items of 19 MiB in and out", sides, max(2, rounds // 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    large, small = np.random.default_rng(0).random(LARGE, np.float32), np.random.default_rng(0).random(SMALL, np.float32)
    context = multiprocessing.get_context("spawn")
    kept: deque[object] = deque(maxlen=8)  # more would only measure the memory of the machine
    tasks, results = faster_fifo.Queue(1 << 26), faster_fifo.Queue(1 << 26)
    fifo = context.Process(target=fifo_worker, args=(tasks, results))
    fifo.start()

    def through_fifo() -> None:
        sent = received = 0
        while received < STREAM:
            while sent < STREAM and sent - received < 256:
                tasks.put(small)
                sent += 1
            received += len(results.get_many())

    with tempfile.TemporaryDirectory() as folder:
        path = identity_model(folder, LARGE)
        hand = HandwrittenPool(path, 1, window=2)
        standard = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
        other = loky.get_reusable_executor(max_workers=2)
        with MultiDeviceSession(path) as session, context.Pool(1) as pool:
            sides: dict[str, Callable[[], object]] = {
                "ours": lambda: kept.append(session.infer([large])),
                "the hand-written pool": lambda: kept.append(hand.apply([large])),
                "loky": lambda: kept.append(other.submit(echo, large).result()),
                "concurrent.futures.ProcessPoolExecutor": lambda: kept.append(standard.submit(echo, large).result()),
                "multiprocessing.Pool.apply": lambda: kept.append(pool.apply(echo, (large,))),
            }
            compare("19 MiB in and 19 MiB out, kept", sides, rounds)
        hand.close()
        streams(path, rounds)
        with MultiDeviceSession(identity_model(folder, SMALL)) as session:
            # Different arrays, because pickle would send a repeated array only once for each chunk.
            distinct = [small.copy() for _ in range(STREAM)]

            def ours() -> None:
                for _ in session.map([small] for _ in range(STREAM)):
                    continue

            sides = {
                "ours": ours,
                "faster-fifo, one worker, unordered": through_fifo,
                "loky, in chunks of 64": lambda: list(other.map(echo, distinct, chunksize=64)),
            }
            compare(f"{STREAM:,} small tasks", sides, max(2, rounds // 5))
        standard.shutdown()
        other.shutdown()
    tasks.put(None)
    fifo.join()


if __name__ == "__main__":
    main()
