"""A run as a trace that Perfetto, chrome://tracing and MindStudio Insight open: a process a device, a lane a stage."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

from ais_bench.evaluate.page.timeline import STAGES, intervals

__all__ = ["write_trace"]

LANES = ("caller", "queued", *STAGES)
MOST = 100_000  # runs; the file of more opens nowhere


def write_trace(result: Any, path: str) -> int:
    """Write the trace of a run, and return how many runs it shows: the first 100,000. Raises OSError."""
    temporary = f"{path}.tmp"
    shown = 0
    with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=4) as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        file.write(json.dumps({"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "run"}}))
        named: dict[Any, int] = {}
        origin: float | None = None
        for record in result.records:
            if record.get("started_s") is None or not record.get("first", True):
                continue
            if origin is None:
                origin = record["started_s"] - record.get("queued_ms", 0.0) / 1e3
            if shown == MOST:
                break
            shown += 1
            device = record.get("device")
            if device not in named:
                named[device] = len(named) + 1
                _write(file, _names(named[device], device))
            _write(file, _events(record, named[device], origin, shown))
        file.write("\n]}\n")
    os.replace(temporary, path)
    return shown


def _write(file: Any, events: list[dict[str, Any]]) -> None:
    for event in events:
        file.write(",\n" + json.dumps(event, separators=(",", ":")))


def _names(pid: int, device: Any) -> list[dict[str, Any]]:
    found = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": f"device {device}"}}]
    for lane, name in enumerate(LANES):
        found.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": lane, "args": {"name": name.replace("_", " ")}})
    return found


def _events(record: dict[str, Any], pid: int, origin: float, flow: int) -> list[dict[str, Any]]:
    """The stages of a run, and an arrow from the caller to its execution."""

    def us(seconds: float) -> float:
        return round((seconds - origin) * 1e6, 1)

    started, queued = record["started_s"], record.get("queued_ms", 0.0) / 1e3
    about = {"sample": record["id"], "index": record["index"], "attempts": record.get("attempts")}
    if record["error"] is not None:
        about["error"] = f"{record['error']['type']}: {record['error']['message']}"[:500]
    name = f"#{record['index']}"
    events = [{"name": name, "cat": "queued", "ph": "X", "pid": pid, "tid": 1, "ts": us(started - queued), "dur": queued * 1e6}]
    events.append({"name": name, "cat": "flow", "ph": "s", "id": flow, "pid": pid, "tid": 1, "ts": us(started - queued)})
    for stage, start, end in intervals(record):
        lane = LANES.index(stage)
        length = round((end - start) * 1e6, 1)
        events.append(
            {"name": name, "cat": stage, "ph": "X", "pid": pid, "tid": lane, "ts": us(start), "dur": length, "args": about}
        )
        if stage == "execute":
            events.append(
                {"name": name, "cat": "flow", "ph": "f", "bp": "e", "id": flow, "pid": pid, "tid": lane, "ts": us(start)}
            )
    return events
