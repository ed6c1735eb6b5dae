"""A report as a page: one file, which needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ais_bench.evaluate.loop import json_ready
from ais_bench.evaluate.page.timeline import over_time, parts_of_wall

__all__ = ["write_page"]

BARS = 40
PARTS = ("execute", "preprocess", "postprocess", "copy_in", "copy_out", "idle")
TIMES = ("count", "mean", "min", "p50", "p90", "p95", "p99", "max")


def write_page(results: Sequence[Any], path: str) -> None:
    """Write the page of a run, or of several that are laid over each other. Raises OSError."""
    import jinja2

    texts = {name: resources.files(__package__).joinpath(name).read_text("utf-8") for name in _FILES}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(texts["page.html"])
    runs = [_run(result) for result in results]
    plots = [{"name": run["name"], **run.pop("over_time")} for run in runs]
    page = template.render(
        runs=runs,
        parts=PARTS,
        times=TIMES,
        script=_raw(texts["uPlot.iife.min.js"]),
        style=_raw(texts["uPlot.min.css"]),
        own=_raw(texts["page.js"]),
        data=_raw(_in_script(plots)),
    )
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(page)
    os.replace(temporary, path)


_FILES = ("page.html", "page.js", "uPlot.iife.min.js", "uPlot.min.css")


def _raw(text: str) -> Any:
    """Text that is a part of the page. Never what comes from a run."""
    import markupsafe

    return markupsafe.Markup(text)


def _in_script(content: Any) -> str:
    """JSON that no text in it can end early."""
    text = json.dumps(json_ready(content))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _run(result: Any) -> dict[str, Any]:
    """What the template shows of a run."""
    about, report = result.run, result.report
    wall_s = report.get("wall_s") or 0.0
    walls = parts_of_wall(result.records, wall_s)
    return {
        "name": os.path.basename(result.path or "run"),
        "about": about,
        "report": json_ready(report),
        "metrics": _flat(report.get("metrics", {})),
        "walls": {device: _shares(parts, wall_s) for device, parts in walls.items()},
        "bars": _histogram(result.records),
        "over_time": over_time(result.records),
        "failures": result.failures[:100],
    }


def _shares(parts: dict[str, float], wall_s: float) -> dict[str, Any]:
    whole = wall_s or 1.0
    return {"seconds": parts, "share": {name: 100 * parts[name] / whole for name in PARTS}, "busy": 1 - parts["idle"] / whole}


def _flat(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            found += [(f"{name}.{part}", number) for part, number in value.items() if isinstance(number, (int, float, str))]
        elif isinstance(value, (int, float, str)):
            found.append((name, value))
    return found


def _histogram(records: Any) -> list[dict[str, Any]]:
    """How often a run took how long, end to end, as bars: left edge, right edge, count, and height in percent."""
    values = sorted(r["end_to_end_ms"] for r in records if r.get("end_to_end_ms") and r.get("first", True))
    if not values:
        return []
    low, high = values[0], values[min(int(0.995 * len(values)), len(values) - 1)]  # the last bar holds what is above
    width = (high - low) / BARS or 1.0
    counts = [0] * (BARS + 1)
    for value in values:
        counts[min(int((value - low) / width), BARS)] += 1
    most = max(counts)
    return [
        {"from": low + index * width, "to": low + (index + 1) * width, "count": count, "height": 100 * count / most}
        for index, count in enumerate(counts)
    ]
