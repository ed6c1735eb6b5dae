"""A report as plain text."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["report_text", "setting_of"]


def report_text(report: dict[str, Any]) -> str:
    """Return the lines that a person reads at the end of a run."""
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
    """Return the words for a setting that was measured: shapes, workers, devices."""
    shapes = ";".join(f"{name}:{','.join(map(str, dims))}" for name, dims in (row["shapes"] or {}).items()) or "fixed shapes"
    devices, workers = len(row["device_ids"]), row["workers_per_device"]
    return f"{shapes}, {devices} device{'s' * (devices != 1)}, {workers} worker{'s' * (workers != 1)} each"
