"""Compare a provider's devices with a hand-written program: for machines with GPUs, and for OpenVINO on any x86 processor.

    python benchmarks/bench_providers.py MODEL --provider cuda [--seconds 5] [--batch 8] [--workers 1 2]

For each number of workers on a device it prints the items per second of `map` on all devices, and the ratio to

  bare      onnxruntime.InferenceSession in a loop, with bound buffers (IOBinding), one process for each device
  by hand   the same processes; each gets its feeds from a multiprocessing queue, and answers through another one

The sides take turns; a ratio is that of the medians. The first lines say on what it ran.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from typing import Any

import numpy as np

from ais_bench.providers import provider_name
from ais_bench.session import MultiDeviceSession
from ais_bench.session.providers import ask_for_provider

ROUNDS = 3


def feeds_of(model: str, batch: int) -> dict[str, Any]:
    """Return random feeds by name. The first dimension, if open, is `batch`; other open dimensions are 32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    found = {}
    for value in session.get_inputs():
        shape = [dim if isinstance(dim, int) else batch if place == 0 else 32 for place, dim in enumerate(value.shape)]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        name = {"float": "float32", "double": "float64"}.get(kind, kind)
        whole = name.startswith(("int", "uint", "bool"))
        found[value.name] = (random.integers(0, 2, shape) if whole else random.standard_normal(shape)).astype(name)
    return found


def open_session(model: str, provider: str, device: int) -> Any:
    import onnxruntime

    numbered = provider not in ("OpenVINOExecutionProvider", "QNNExecutionProvider")
    options = {"device_id": str(device)} if numbered else {}
    return onnxruntime.InferenceSession(model, providers=[(provider, options), "CPUExecutionProvider"])


def bare_loop(model: str, provider: str, device: int, feeds: dict[str, Any], seconds: float, rates: Any, ready: Any) -> None:
    """Run one process of the bare side, and put its rate into `rates`."""
    session = open_session(model, provider, device)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    ready.wait()
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()
        runs += 1
    rates.put(runs / (time.perf_counter() - began))


def server(model: str, provider: str, device: int, work: Any, answers: Any) -> None:
    """Run one hand-written process: unpickle feeds, run, pickle outputs."""
    session = open_session(model, provider, device)
    answers.put("ready")
    for feeds in iter(work.get, None):
        answers.put(session.run(None, feeds))


def bare(model: str, provider: str, devices: int, feeds: dict[str, Any], seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    rates, ready = context.Queue(), context.Barrier(devices)
    processes = [
        context.Process(target=bare_loop, args=(model, provider, device, feeds, seconds, rates, ready))
        for device in range(devices)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def by_hand(model: str, provider: str, devices: int, feeds: dict[str, Any], seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    work, answers = context.Queue(4 * devices), context.Queue()
    processes = [context.Process(target=server, args=(model, provider, device, work, answers)) for device in range(devices)]
    for process in processes:
        process.start()
    for _ in processes:
        answers.get()
    for _ in range(3 * devices):
        work.put(feeds)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        answers.get()
        done += 1
        work.put(feeds)
    took = time.perf_counter() - began
    for _ in range(3 * devices):
        answers.get()
    for _ in processes:
        work.put(None)
    for process in processes:
        process.join()
    return done / took


def ours(model: str, provider: str, workers: int, feeds: dict[str, Any], seconds: float) -> float:
    with MultiDeviceSession(model, provider=provider, workers_per_device=workers) as session:
        listed = [feeds[desc.name] for desc in session.get_inputs()]
        list(session.map([listed] * 8))
        end = time.perf_counter() + seconds

        def source() -> Any:
            while time.perf_counter() < end:
                yield listed

        began = time.perf_counter()
        done = sum(1 for _ in session.map(source()))
        return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    found = ask_for_provider(options.provider)
    _, provider = provider_name(found.name)
    devices = len(found.devices)
    print(f"{provider} of ONNX Runtime {found.version}: {devices} devices; {options.model}, batches of {options.batch}")
    feeds = feeds_of(options.model, options.batch)
    for workers in options.workers:
        sides: dict[str, list[float]] = {"ours": [], "bare": [], "by hand": []}
        for _ in range(ROUNDS):
            sides["ours"].append(ours(options.model, found.name, workers, feeds, options.seconds))
            # Several workers on one device stand against as many bare processes on it.
            processes = devices * workers if devices == 1 else devices
            sides["bare"].append(bare(options.model, provider, processes, feeds, options.seconds))
            sides["by hand"].append(by_hand(options.model, provider, processes, feeds, options.seconds))
        rates = {side: statistics.median(found_rates) for side, found_rates in sides.items()}
        print(
            f"  {workers} workers a device: {rates['ours']:.1f} runs/s, {rates['ours'] / rates['bare']:.2f} of bare loops, "
            f"{rates['ours'] / rates['by hand']:.2f} of processes by hand",
            flush=True,
        )


if __name__ == "__main__":
    main()
