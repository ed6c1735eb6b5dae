"""The contents of an evaluation's page besides its report, from one pass over the records."""

from __future__ import annotations

import itertools
from array import array
from typing import Any

import numpy as np

from ais_bench.evaluate.page.timeline import PARTS, Attribution, Rates, RunTime, StageTimeline, by_start
from ais_bench.evaluate.tally import done_at

__all__ = ["story_of"]

BARS = 40
DEVICES_WITH_BARS = 16
MARKS = 1000
FAILURES = 100


def story_of(result: Any) -> dict[str, Any]:
    """Return the curve over time with its marks, the parts of the wall time, the histogram of latencies, and some failures."""
    turns = result.run.get("turns", [])
    clock, rates = RunTime(turns), Rates()
    stages: dict[str, StageTimeline] = {}
    walls: dict[str, Attribution] = {}
    latencies: dict[str, array[float]] = {}
    failed_at: list[float] = []
    failures: list[dict[str, Any]] = []
    for record in by_start(result.records):
        device = str(record.get("device"))
        wall = walls.setdefault(device, Attribution())
        if record["error"] is not None and len(failures) < FAILURES:
            failures.append(record)
        if record.get("first", True):
            wall.add(stages.setdefault(device, StageTimeline()).of(record))
            if record.get("end_to_end_ms"):
                latencies.setdefault(device, array("d")).append(record["end_to_end_ms"])
        if record.get("started_s") is not None:
            at = clock.of(done_at(record))
            rates.add(at, device)
            if record["error"] is not None and len(failed_at) < MARKS:
                failed_at.append(round(at, 6))
    wall_s = result.report.get("wall_s") or 0.0
    restarts = itertools.chain.from_iterable(turn.get("restarts", ()) for turn in turns)
    marks = {"failures": failed_at, "restarts": [[round(clock.of(one["at_s"]), 3), one["device"]] for one in restarts][:MARKS]}
    return {
        "over_time": {**rates.curve(), **marks},
        "walls": {device: _shares(walls[device].parts(wall_s), wall_s) for device in sorted(walls)},
        "bars": _histograms(latencies),
        "failures": failures,
    }


def _shares(parts: dict[str, float], wall_s: float) -> dict[str, Any]:
    whole = wall_s or 1.0
    share = {name: 100 * parts[name] / whole for name in (*PARTS, "idle")}
    return {"seconds": parts, "share": share, "busy": 1 - parts["idle"] / whole}


def _histograms(latencies: dict[str, array[float]]) -> dict[str, list[dict[str, Any]]]:
    """Return histograms of the end-to-end times, of all devices and of each device, with the same edges."""
    if not latencies:
        return {}
    every = np.concatenate([np.asarray(values) for values in latencies.values()])
    low, high = float(every.min()), float(np.quantile(every, 0.995))  # the last bar has everything above
    width = (high - low) / BARS or 1.0
    groups = {"all": every}
    if 1 < len(latencies) <= DEVICES_WITH_BARS:
        groups |= {device: np.asarray(latencies[device]) for device in sorted(latencies)}
    return {name: _bars(values, low, width) for name, values in groups.items()}


def _bars(values: Any, low: float, width: float) -> list[dict[str, Any]]:
    places = np.minimum(((values - low) / width).astype(np.int64), BARS)
    counts = np.bincount(places, minlength=BARS + 1)
    most = int(counts.max())
    return [
        {"from": low + index * width, "to": low + (index + 1) * width, "count": int(count), "height": 100 * int(count) / most}
        for index, count in enumerate(counts)
    ]
