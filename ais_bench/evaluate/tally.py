"""Counts and times of a run for each device, and their form in records."""

from __future__ import annotations

import time
from array import array
from typing import Any

from ais_bench.evaluate.statistics import distribution

__all__ = ["STAGES", "Clock", "Tally", "done_at", "stages_of"]

# In the order in which a task passes them; a session may not report all of them.
STAGES = (
    "queued_ms",
    "preprocess_ms",
    "copy_in_ms",
    "execute_ms",
    "copy_out_ms",
    "postprocess_ms",
    "end_to_end_ms",
)
_KEPT = ("execute_ms", "end_to_end_ms")


class Clock:
    """Converts the monotonic clock, which all processes share, to seconds since 1970, with one offset for each turn."""

    def __init__(self) -> None:
        looks = []
        for _ in range(5):
            before = time.monotonic_ns()
            now = time.time_ns()
            after = time.monotonic_ns()
            looks.append((after - before, now - (before + after) // 2))
        self._offset_ns = min(looks)[1]  # of the reading with the shortest interruption

    def seconds(self, monotonic_ns: int) -> float:
        """Return seconds since 1970, to the microsecond."""
        return round((monotonic_ns + self._offset_ns) / 1e9, 6)


def stages_of(item: Any, clock: Clock) -> dict[str, Any]:
    """Return a record's fields for the device and the times of a task."""
    if item is None:
        return {"device": None}
    device = item.device_id
    # On several servers a device is (node, number).
    said: dict[str, Any] = {"device": "/".join(map(str, device)) if isinstance(device, tuple) else device}
    started_ns = getattr(item, "started_ns", None)
    if started_ns:
        said["started_s"] = clock.seconds(started_ns)
        if done_ns := getattr(item, "done_ns", None):
            said["worker_ms"] = round((done_ns - started_ns) / 1e6, 4)
    for stage in STAGES:
        value = getattr(item, stage, None)
        if value is not None:
            said[stage] = round(value, 4)
    said["attempts"] = getattr(item, "attempts", 1)
    return said


def done_at(record: dict[str, Any]) -> float:
    """Return when the worker finished a record's run, in seconds since 1970; 0 if it is not known."""
    # end_to_end_ms cannot be used: it begins with the first attempt, but started_s belongs to the last one.
    return float(record.get("started_s", 0.0) + record.get("worker_ms", record.get("execute_ms", 0.0)) / 1e3)


class Tally:
    """Counts and times from records."""

    def __init__(self) -> None:
        self.samples = self.failed = self.runs = self.padded = 0
        self.by_type: dict[str, int] = {}
        self._counts: dict[Any, list[int]] = {}
        self._times: dict[Any, dict[str, array[float]]] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Count one record."""
        self.samples += 1
        device, error = record.get("device"), record.get("error")
        counts = self._counts.setdefault(device, [0, 0])
        counts[0] += 1
        if error is not None:
            counts[1] += 1
            self.failed += 1
            self.by_type[error["type"]] = self.by_type.get(error["type"], 0) + 1
        if record.get("first", True):  # one sample of a batch counts for the batch's run
            self.runs += 1
            self.padded += record.get("padded", 0)
            times = self._times.setdefault(device, {stage: array("d") for stage in _KEPT})
            for stage in _KEPT:
                if stage in record:
                    times[stage].append(record[stage])

    def to_dict(self, wall_s: float) -> dict[str, Any]:
        """Return the counts and times in the form of a report."""
        devices = {}
        for device in sorted(self._counts, key=str):
            samples, failed = self._counts[device]
            times = self._times.get(device, {})
            devices[str(device)] = {
                "samples": samples,
                "failed": failed,
                "throughput_per_s": samples / wall_s if wall_s > 0 else 0.0,
                **{stage: distribution(times.get(stage, ())) for stage in _KEPT},
            }
        joined = {stage: [value for times in self._times.values() for value in times[stage]] for stage in _KEPT}
        return {
            "samples": self.samples,
            "failed": self.failed,
            "runs": self.runs,
            "padded": self.padded,
            "wall_s": wall_s,
            "throughput_per_s": self.samples / wall_s if wall_s > 0 else 0.0,
            "failures_by_type": dict(sorted(self.by_type.items())),
            **{stage: distribution(values) for stage, values in joined.items()},
            "devices": devices,
        }
