"""Measure the speed of a session: windows of time until they agree, repeats, and the load of other programs."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ais_bench.errors import ConfigError
from ais_bench.evaluate.statistics import distribution
from ais_bench.tuning import WINDOWS_THAT_AGREE

__all__ = ["Plan", "feeds_of", "measure", "other_load", "repeat"]

# The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; beyond, the normal one is within 2 %.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110)
FORMULAS = {
    "throughput_per_s": "runs that ended in the windows counted / seconds of these windows",
    "samples_per_s": "throughput_per_s x batch size",
    "execute_ms": "of each run, on the device",
    "end_to_end_ms": "of each run, from copying the feeds until the outputs are there; it holds waiting for busy devices",
    "ci95": "Student's t, of the repeats' means",
    "p..": "upper bounds with 99 % confidence, quoted only where the number of runs supports them",
}


@dataclass(frozen=True)
class Plan:
    """How long to measure, in seconds and in counts of runs. `agree` is the share by which windows may differ."""

    window_s: float = 0.5
    least_s: float = 2.0
    least_runs: int = 50
    most_s: float = 60.0
    agree: float = 0.10
    repeats: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.window_s <= self.least_s <= self.most_s:
            raise ConfigError(
                "the times of a measurement must be 0 < window_s <= least_s <= most_s, got "
                f"{self.window_s}, {self.least_s} and {self.most_s} s"
            )


@dataclass
class _Window:
    """The runs that ended within one window of time."""

    runs: int = 0
    seconds: float = 0.0
    latency_ms: float = 0.0
    execute: array[float] = field(default_factory=lambda: array("d"))
    latency: array[float] = field(default_factory=lambda: array("d"))
    devices: array[int] = field(default_factory=lambda: array("q"))

    @property
    def rate(self) -> float:
        """Runs per second."""
        return self.runs / self.seconds if self.seconds else 0.0


def feeds_of(inputs: Sequence[Any], shapes: Mapping[str, Sequence[int]] | None = None, kind: str = "random") -> list[Any]:
    """Return generated feeds for a model. Raises ConfigError for open dimensions without a shape."""
    feeds, rng = [], np.random.default_rng(0)
    unknown = sorted(set(shapes or ()) - {desc.name for desc in inputs})
    if unknown:
        raise ConfigError(f"shapes are given for {unknown}; the model's inputs are {[desc.name for desc in inputs]}")
    for desc in inputs:
        shape = list((shapes or {}).get(desc.name, desc.shape))
        if any(dim < 0 for dim in shape):
            raise ConfigError(
                f"input {desc.name!r} has the open shape {list(desc.shape)}; give one, such as {desc.name}:1,3,224,224"
            )
        wanted = _numpy_kind(desc.datatype.name)
        if kind == "random" and wanted.kind == "f":
            feeds.append(rng.random(shape).astype(wanted))
        else:
            feeds.append(np.zeros(shape, wanted))  # integers may be indexes, and only 0 is always a valid index
    return feeds


def _numpy_kind(name: str) -> Any:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def measure(session: Any, feeds: list[Any], plan: Plan, mode: str = "static", tick: Callable[[int], None] | None = None) -> Any:
    """Keep a session busy until the last windows agree in rate and latency. Return these windows, and whether they agree.

    The windows before them are the warm-up. `tick` is called after each window with the number of runs so far.
    """
    ended = False

    def source() -> Iterator[list[Any]]:
        for _ in itertools.count():
            if ended:
                return
            yield feeds

    windows: list[_Window] = []
    current, total = _Window(), 0
    began = opened = time.monotonic()
    for _, item in session.map_unordered(source(), mode=mode, details=True):
        if ended:
            continue  # runs in progress at the end belong to no window
        now = time.monotonic()
        current.runs += 1
        total += 1
        current.execute.append(item.execute_ms)
        current.latency.append(item.end_to_end_ms)
        current.devices.append(item.device_id)
        if now - opened >= plan.window_s:
            current.seconds = now - opened
            current.latency_ms = statistics.fmean(current.latency)
            windows.append(current)
            if tick is not None:
                tick(total)
            current, opened = _Window(), now
            good = _agreeing(windows, plan.agree)
            enough = sum(one.seconds for one in good) >= plan.least_s and sum(one.runs for one in good) >= plan.least_runs
            ended = (len(good) >= WINDOWS_THAT_AGREE and enough) or now - began >= plan.most_s
    good = _agreeing(windows, plan.agree)
    stable = len(good) >= WINDOWS_THAT_AGREE and sum(one.runs for one in good) >= plan.least_runs
    return (good if stable else windows[len(windows) // 2 :] or [current]), stable, windows


def _agreeing(windows: list[_Window], share: float) -> list[_Window]:
    """Return the newest windows that differ by at most this share, in rate and in latency."""
    for first in range(max(0, len(windows) - 1000), len(windows)):
        some = windows[first:]
        rates, latencies = [one.rate for one in some], [one.latency_ms for one in some]
        if all(max(values) - min(values) <= share * min(values) for values in (rates, latencies)):
            return some
    return []


def repeat(session: Any, feeds: list[Any], plan: Plan, samples: int, mode: str = "static", tick: Any = None) -> dict[str, Any]:
    """Measure several times. Return the figures of all measurements with a confidence interval, ready for JSON."""
    load = other_load()
    rates, every, stable, repeats = [], [], True, []
    for _ in range(plan.repeats):
        good, agreed, windows = measure(session, feeds, plan, mode, tick)
        seconds = sum(one.seconds for one in good)
        rates.append(sum(one.runs for one in good) / seconds if seconds else 0.0)
        repeats.append(
            {
                "throughput_per_s": rates[-1],
                "stable": agreed,
                "warm_up_windows": len(windows) - len(good),
                "windows": [{"seconds": one.seconds, "runs": one.runs, "latency_ms": one.latency_ms} for one in windows],
            }
        )
        every += good
        stable = stable and agreed
    mean = statistics.fmean(rates)
    seconds = sum(one.seconds for one in every)
    return {
        "stable": stable,
        "throughput_per_s": mean,
        "ci95": _interval(rates),
        "samples_per_s": mean * samples,
        "samples_a_run": samples,
        "runs": sum(one.runs for one in every),
        "seconds": seconds,
        "execute_ms": distribution(_joined(every, "execute")),
        "end_to_end_ms": distribution(_joined(every, "latency")),
        "devices": _by_device(every, seconds),
        "repeats": repeats,
        "other_load": load,
        "formulas": FORMULAS,
    }


def _joined(windows: list[_Window], name: str) -> Any:
    return np.concatenate([np.asarray(getattr(one, name)) for one in windows]) if windows else ()


def _by_device(windows: list[_Window], seconds: float) -> dict[str, Any]:
    ids, execute, latency = (_joined(windows, name) for name in ("devices", "execute", "latency"))
    found = {}
    for device in sorted(set(map(int, ids))):
        mine = ids == device
        found[str(device)] = {
            "runs": int(mine.sum()),
            "throughput_per_s": float(mine.sum()) / seconds if seconds else 0.0,
            "execute_ms": distribution(execute[mine]),
            "end_to_end_ms": distribution(latency[mine]),
        }
    return found


def _interval(values: Sequence[float]) -> list[float] | None:
    """Return the 95 % confidence interval of the mean; None for one value."""
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom
    mean, half = statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values))
    return [mean - half, mean + half]


def other_load(seconds: float = 0.3) -> dict[str, float]:
    """Return how many processors other programs keep busy, and how many there are. This process must be idle."""
    import psutil  # here, because only measurements need it

    busy = psutil.cpu_percent(seconds) / 100  # the mean of all processors
    processors = float(psutil.cpu_count() or 1)
    return {"busy_processors": busy * processors, "processors": processors}
