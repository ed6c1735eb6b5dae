"""A run as a trace for Perfetto, chrome://tracing and MindStudio Insight: a process for each device, a track for each stage.

Waiting tasks overlap, so the queue is shown as asynchronous events. An arrow leads from the caller, at the moment at which it
handed a run over, to the run's execution.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
from typing import Any

from ais_bench.evaluate.page.timeline import STAGES, StageTimeline, by_start
from ais_bench.tuning import MOST_TRACED, REORDER_RUNS

__all__ = ["write_trace"]

CALLER = 0  # the process of the caller
LANES = ("queued", *STAGES)
MARK_US = 1.0  # the caller's end of an arrow: a mark, because its length is not measured


def write_trace(result: Any, path: str) -> int:
    """Write the trace of a run, and return the number of runs in it: at most the first 100,000. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    shown = 0
    with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=4) as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        file.write(json.dumps({"name": "process_name", "ph": "M", "pid": CALLER, "args": {"name": "caller"}}))
        devices: dict[Any, _Device] = {}
        runs = (
            record for record in by_start(result.records) if record.get("started_s") is not None and record.get("first", True)
        )
        # The run that was handed over first is not always the one that was started first.
        first = list(itertools.islice(runs, REORDER_RUNS))
        origin = min((_given(record) for record in first), default=0.0)
        for record in itertools.islice(itertools.chain(first, runs), MOST_TRACED):
            shown += 1
            device = record.get("device")
            if device not in devices:
                devices[device] = _Device(len(devices) + 1, device)
            _write(file, _events(record, devices[device], origin, shown))
        file.write("\n]}\n")
    os.replace(temporary, path)
    return shown


def _given(record: dict[str, Any]) -> float:
    """Return when the caller handed the run over, in seconds since 1970."""
    given: float = record["started_s"] - record.get("queued_ms", 0.0) / 1e3
    return given


def _write(file: Any, events: list[dict[str, Any]]) -> None:
    for event in events:
        file.write(",\n" + json.dumps(event, separators=(",", ":")))


class _Device:
    """A process of the trace: one track for each stage, and more tracks if a stage overlaps with itself."""

    def __init__(self, pid: int, device: Any) -> None:
        self.pid = pid
        self.stages = StageTimeline()
        self.names = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": f"device {device}"}}]  # to be written
        self._ends: dict[str, list[float]] = {}
        for lane in range(len(LANES)):
            self._name(lane, LANES[lane])

    def _name(self, tid: int, name: str) -> None:
        self.names.append(
            {"name": "thread_name", "ph": "M", "pid": self.pid, "tid": tid, "args": {"name": name.replace("_", " ")}}
        )

    def lane(self, stage: str, start: float, end: float) -> int:
        """Return the number of a track of this stage that is free at this time."""
        ends = self._ends.setdefault(stage, [])
        place = next((place for place, taken in enumerate(ends) if taken <= start + 1e-7), len(ends))
        if place == len(ends):
            ends.append(0.0)
            if place:
                self._name(LANES.index(stage) + place * len(LANES), f"{stage} {place + 1}")
        ends[place] = max(ends[place], end)
        return LANES.index(stage) + place * len(LANES)


def _events(record: dict[str, Any], device: _Device, origin: float, flow: int) -> list[dict[str, Any]]:
    """Return the events of a run: its stages, and an arrow from the caller to its execution."""

    def us(seconds: float) -> float:
        return round((seconds - origin) * 1e6, 1)

    about = {"sample": record["id"], "index": record["index"], "attempts": record.get("attempts")}
    if record["error"] is not None:
        about["error"] = f"{record['error']['type']}: {record['error']['message']}"[:500]
    name, given = f"#{record['index']}", us(_given(record))
    waits = {"name": name, "cat": "queued", "id": flow, "pid": device.pid, "tid": 0}
    events = [
        {"name": name, "cat": "caller", "ph": "X", "pid": CALLER, "tid": 0, "ts": given, "dur": MARK_US},
        {"name": name, "cat": "flow", "ph": "s", "id": flow, "pid": CALLER, "tid": 0, "ts": given},
        {**waits, "ph": "b", "ts": given},
        {**waits, "ph": "e", "ts": us(record["started_s"])},
    ]
    for stage, start, end in device.stages.of(record):
        where = {"name": name, "pid": device.pid, "tid": device.lane(stage, start, end), "ts": us(start)}
        events.append({**where, "cat": stage, "ph": "X", "dur": round((end - start) * 1e6, 1), "args": about})
        if stage == "execute":
            events.append({**where, "cat": "flow", "ph": "f", "bp": "e", "id": flow})
    named, device.names = device.names, []
    return named + events
