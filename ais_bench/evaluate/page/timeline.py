"""The time of each device by stage, from the records, in one pass and in bounded memory."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ais_bench.tuning import REORDER, REORDER_RUNS

__all__ = ["PARTS", "STAGES", "Attribution", "Rates", "RunTime", "StageTimeline", "by_start"]

# In the order in which a task passes them once a worker has it.
STAGES = ("copy_in", "preprocess", "execute", "postprocess", "copy_out")
# If stages overlap, the time counts for the first of these.
PARTS = ("execute", "preprocess", "postprocess", "copy_in", "copy_out")
POINTS = 240  # the least number of points of a curve; it has at most twice as many

Stage = tuple[str, float, float]


def by_start(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield records in the order in which workers took their runs. Those that no worker took come first.

    Records come in the order of the data set. A device takes runs in another order if one was taken back from another device,
    or failed there first.
    """
    kept: list[tuple[float, int, dict[str, Any]]] = []
    for number, record in enumerate(records):
        heapq.heappush(kept, (record.get("started_s") or 0.0, number, record))
        if len(kept) > REORDER_RUNS:
            yield heapq.heappop(kept)[2]
    while kept:
        yield heapq.heappop(kept)[2]


class StageTimeline:
    """Computes the times of the stages, for the records of one device in the order of their start.

    A record has the time at which its worker took it, the length of each stage, and the time at which the worker finished. A
    worker takes the next task while it executes one, so an execution begins when the previous one has ended.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    def of(self, record: dict[str, Any]) -> list[Stage]:
        """Return (stage, start, end) of the stages that took time, in seconds since 1970."""
        at = record.get("started_s")
        if at is None:
            return []
        took = {stage: record.get(f"{stage}_ms", 0.0) / 1e3 for stage in STAGES}
        done = float("inf")
        if "worker_ms" in record:
            done = at + record["worker_ms"] / 1e3
            # The length includes the caller's copy into shared memory, which was before the worker took the task.
            others = sum(took.values()) - took["copy_in"]
            took["copy_in"] = min(took["copy_in"], max(0.0, done - at - others))
        found: list[Stage] = []
        for stage in STAGES:
            if took[stage] <= 0:
                continue
            if stage == "execute":
                latest = done - took["postprocess"] - took["execute"]
                at = max(at, min(self._free_at, latest))
                self._free_at = max(self._free_at, at + took["execute"])
            found.append((stage, at, at + took[stage]))
            at += took[stage]
        return found


class Attribution:
    """The seconds of a device; each second counts for one stage or as idle."""

    def __init__(self) -> None:
        self._seconds, self._active = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)
        self._events: list[tuple[float, int, str]] = []
        self._before = 0.0

    def add(self, stages: Iterable[Stage]) -> None:
        """Count the stages of one record."""
        for stage, start, end in stages:
            heapq.heappush(self._events, (start, 1, stage))
            heapq.heappush(self._events, (end, -1, stage))
        while len(self._events) > REORDER:
            self._take()

    def _take(self) -> None:
        at, change, stage = heapq.heappop(self._events)
        at = max(at, self._before)
        owner = next((name for name in PARTS if self._active[name] > 0), None)
        if owner is not None:
            self._seconds[owner] += at - self._before
        self._active[stage] += change
        self._before = at

    def parts(self, wall_s: float) -> dict[str, float]:
        """Return the seconds of each stage and the idle seconds. Call it after the last record. The sum is the wall time."""
        while self._events:
            self._take()
        seconds, busy = dict(self._seconds), sum(self._seconds.values())
        if busy > wall_s > 0:  # clocks of turns differ slightly
            seconds = {name: value * wall_s / busy for name, value in seconds.items()}
            busy = wall_s
        return {**seconds, "idle": max(0.0, wall_s - busy)}


class RunTime:
    """Converts seconds since 1970 to seconds of the run. The time between two turns does not count."""

    def __init__(self, turns: Sequence[dict[str, Any]]) -> None:
        self._starts, self._offsets = array("d"), array("d")
        offset = 0.0
        for turn in turns:
            self._starts.append(datetime.fromisoformat(turn["started"]).timestamp())
            self._offsets.append(offset)
            offset += turn.get("wall_s", 0.0)
        self._turn = 0

    def of(self, at: float) -> float:
        """Return the seconds of the run, from 0."""
        if not self._starts:
            return at
        starts, turn = self._starts, self._turn
        while turn + 1 < len(starts) and starts[turn + 1] <= at:
            turn += 1
        while turn > 0 and starts[turn] > at:
            turn -= 1
        self._turn = turn
        return max(0.0, self._offsets[turn] + at - starts[turn])


class Rates:
    """Samples per second over time, of each device and of all devices."""

    def __init__(self) -> None:
        self._step = 1e-3
        self._counts: dict[str, dict[int, int]] = {}
        self._first = self._last = 0
        self._any = False

    def add(self, at: float, device: str) -> None:
        """Count a sample that was finished at this second of the run."""
        place = int(at / self._step)
        self._first = place if not self._any else min(self._first, place)
        self._last = place if not self._any else max(self._last, place)
        self._any = True
        counts = self._counts.setdefault(device, {})
        counts[place] = counts.get(place, 0) + 1
        while self._last - self._first >= 2 * POINTS:
            self._coarser()

    def _coarser(self) -> None:
        self._step *= 2
        self._first, self._last = self._first // 2, self._last // 2
        for device, counts in self._counts.items():
            halved: dict[int, int] = {}
            for place, count in counts.items():
                halved[place // 2] = halved.get(place // 2, 0) + count
            self._counts[device] = halved

    def curve(self) -> dict[str, Any]:
        """Return {"x": seconds, "series": {device or "all": samples per second}}."""
        if not self._any:
            return {"x": [], "series": {}}
        places = range(self._first, self._last + 1)
        series = {
            device: [counts.get(place, 0) / self._step for place in places] for device, counts in sorted(self._counts.items())
        }
        every = [sum(values) for values in zip(*series.values(), strict=True)]
        x = [round(self._step * (place + 0.5), 6) for place in places]
        return {"x": x, "series": {"all": every, **series} if len(series) > 1 else {"all": every}}
