"""A report as an HTML page: one file that needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ais_bench.evaluate.page.story import story_of
from ais_bench.evaluate.page.timeline import PARTS
from ais_bench.evaluate.text import json_ready

__all__ = ["write_page"]

TIMES = ("count", "mean", "min", "p50", "p90", "p95", "p99", "max")
SCRIPTS = ("page.js", "uPlot.iife.min.js", "uPlot.min.css")
TEMPLATES = ("page.html", "page.css", "evaluation.html", "measurement.html")


def write_page(results: Sequence[Any], path: str) -> None:
    """Write the page of one run, or of several runs in the same pictures. Raises OSError."""
    import jinja2

    texts = {name: resources.files(__package__).joinpath(name).read_text("utf-8") for name in (*SCRIPTS, *TEMPLATES)}
    loader = jinja2.DictLoader(texts)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader).get_template("page.html")
    runs = [_evaluation(one) if one.run.get("kind", "evaluate") == "evaluate" else _measurement(one) for one in results]
    plots = {
        "over_time": [{"name": run["name"], **run.pop("over_time")} for run in runs if "over_time" in run],
        "curves": [{"name": run["name"], **run["curve"]} for run in runs if run.get("curve")],
    }
    page = template.render(
        runs=runs,
        parts=(*PARTS, "idle"),
        times=TIMES,
        curves=plots["over_time"],
        scaling=plots["curves"],
        script=_raw(texts["uPlot.iife.min.js"]),
        style=_raw(texts["uPlot.min.css"]),
        own=_raw(texts["page.js"]),
        data=_raw(_in_script(plots)),
    )
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(page)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _raw(text: str) -> Any:
    """Return text that is inserted into the page unescaped. Never use it for text that comes from a run."""
    import markupsafe

    return markupsafe.Markup(text)


def _in_script(content: Any) -> str:
    """Return JSON for a script element. No text in it can end the element early."""
    text = json.dumps(json_ready(content))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _about(result: Any) -> dict[str, Any]:
    name = os.path.basename(result.path or "run")
    return {"name": name, "about": result.run, "report": json_ready(result.report)}


def _evaluation(result: Any) -> dict[str, Any]:
    """Return the template's values for an evaluation."""
    return {**_about(result), "kind": "evaluation", "metrics": _flat(result.report.get("metrics", {})), **story_of(result)}


def _measurement(result: Any) -> dict[str, Any]:
    """Return the template's values for `bench` and `scaling`: a row and a bar for each setting, and the curve."""
    from ais_bench.evaluate.text import setting_of

    rows = result.report.get("results") or result.report.get("curve") or []
    most = max((row["samples_per_s"] for row in rows), default=0.0) or 1.0
    shown = [
        {
            "label": setting_of(row),
            "share": 100 * row["samples_per_s"] / most,
            "low": None if row["ci95"] is None else 100 * max(0.0, row["ci95"][0]) * row["samples_a_run"] / most,
            "high": None if row["ci95"] is None else min(100.0, 100 * row["ci95"][1] * row["samples_a_run"] / most),
            **row,
        }
        for row in rows
    ]
    curve = None
    if result.report.get("curve"):
        counts = [len(row["device_ids"]) for row in rows]
        alone = rows[0]["throughput_per_s"] / counts[0]
        curve = {
            "x": counts,
            "series": {"measured": [r["throughput_per_s"] for r in rows], "ideal": [n * alone for n in counts]},
        }
    return {**_about(result), "kind": "measurement", "rows": shown, "curve": curve}


def _flat(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            found += [(f"{name}.{part}", number) for part, number in value.items() if isinstance(number, (int, float, str))]
        elif isinstance(value, (int, float, str)):
            found.append((name, value))
    return found
