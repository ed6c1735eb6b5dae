"""A report as plain text, and values ready for JSON. The command line's help imports this file, so it imports nothing."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_ready", "report_text", "setting_of"]


def report_text(report: dict[str, Any]) -> str:
    """Return the text that is shown at the end of a run."""
    lines = [f"status      {report.get('status')}"]
    lines.append(f"samples     {report['samples']}, {report.get('scored', 0)} scored, {report['failed']} failed")
    if "wall_s" in report:
        lines.append(f"wall time   {report['wall_s']:.3f} s, {report['throughput_per_s']:.2f} samples/s")
    for device, figures in report.get("devices", {}).items():
        time_ms = figures["execute_ms"]
        mean = f", execute {time_ms['mean']:.3f} ms" if time_ms.get("count") else ""
        lines.append(f"device {device:<4} {figures['samples']} samples, {figures['failed']} failed{mean}")
    for kind, number in report.get("failures_by_type", {}).items():
        lines.append(f"failed      {number} x {kind}")
    for name, value in report.get("metrics", {}).items():
        lines.append(f"{name:<11} {value if isinstance(value, (int, float, str)) else json.dumps(value, default=str)}")
    for name, error in report.get("metric_errors", {}).items():
        lines.append(f"{name:<11} no score: {error}")
    return "\n".join(lines)


def setting_of(row: dict[str, Any]) -> str:
    """Return the text for a measured setting: shapes, workers, devices."""
    shapes = ";".join(f"{name}:{','.join(map(str, dims))}" for name, dims in (row["shapes"] or {}).items()) or "fixed shapes"
    devices, workers = len(row["device_ids"]), row["workers_per_device"]
    return f"{shapes}, {devices} device{'s' * (devices != 1)}, {workers} worker{'s' * (workers != 1)} each"


def json_ready(value: Any) -> Any:
    """Return the value in a form for JSON: NaN as null, arrays as lists of numbers, other objects by repr."""
    if isinstance(value, dict):
        return {str(key): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(entry) for entry in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):
        return json_ready(value.tolist())
    return repr(value)
