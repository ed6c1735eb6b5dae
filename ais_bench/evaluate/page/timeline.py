"""Where the time of each device went, from the records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["STAGES", "intervals", "over_time", "parts_of_wall"]

# In the order in which a task meets them once a worker has it.
STAGES = ("copy_in", "preprocess", "execute", "postprocess", "copy_out")
# Of stages that overlap, the time belongs to the first of these.
_FIRST = ("execute", "preprocess", "postprocess", "copy_in", "copy_out")


def intervals(record: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """The stages of a record that took time: (stage, start, end), in seconds since 1970."""
    at = record.get("started_s")
    if at is None:
        return
    for stage in STAGES:
        took = record.get(f"{stage}_ms", 0.0) / 1e3
        if took > 0:
            yield stage, at, at + took
            at += took


def parts_of_wall(records: Iterable[dict[str, Any]], wall_s: float) -> dict[str, dict[str, float]]:
    """For each device the seconds of each stage, and idle ones; they sum up to the wall time."""
    events: dict[str, list[tuple[float, int, str]]] = {}
    for record in records:
        mine = events.setdefault(str(record.get("device")), [])
        if record.get("first", True):
            for stage, start, end in intervals(record):
                mine += ((start, 1, stage), (end, -1, stage))
    return {device: _attributed(sorted(mine), wall_s) for device, mine in sorted(events.items())}


def _attributed(events: list[tuple[float, int, str]], wall_s: float) -> dict[str, float]:
    seconds, active = dict.fromkeys(_FIRST, 0.0), dict.fromkeys(_FIRST, 0)
    before = 0.0
    for at, change, stage in events:
        owner = next((name for name in _FIRST if active[name]), None)
        if owner is not None:
            seconds[owner] += at - before
        active[stage] += change
        before = at
    busy = sum(seconds.values())
    if busy > wall_s > 0:  # clocks of turns differ by a little
        seconds = {name: value * wall_s / busy for name, value in seconds.items()}
        busy = wall_s
    return {**seconds, "idle": max(0.0, wall_s - busy)}


def over_time(records: Iterable[dict[str, Any]], points: int = 240) -> dict[str, Any]:
    """Samples a second over time, of each device and of all, and when samples failed."""
    ends: list[tuple[float, str, bool]] = []
    for record in records:
        if record.get("started_s") is not None:
            end = record["started_s"] + record.get("end_to_end_ms", 0.0) / 1e3
            ends.append((end, str(record.get("device")), record["error"] is not None))
    if not ends:
        return {"x": [], "series": {}, "failures": []}
    first, last = min(ends)[0], max(ends)[0]
    step = max((last - first) / points, 1e-3)
    count = int((last - first) / step) + 1
    series = {device: [0.0] * count for device in sorted({device for _, device, _ in ends})}
    for end, device, _ in ends:
        series[device][min(int((end - first) / step), count - 1)] += 1 / step
    every = [sum(values) for values in zip(*series.values(), strict=True)]
    return {
        "x": [round(step * (index + 0.5), 6) for index in range(count)],
        "series": {"all": every, **series} if len(series) > 1 else {"all": every},
        "failures": [round(end - first, 6) for end, _, failed in ends if failed][:1000],
    }
