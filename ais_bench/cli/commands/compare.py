"""Compare several runs side by side."""

from __future__ import annotations

import argparse
from typing import Any

from ais_bench.cli.measurements import figures_of
from ais_bench.cli.show import figure, print_json, table

EXAMPLES = """\
  ais-bench compare runs/before runs/after
  ais-bench compare runs/before runs/after --html page.html
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the run folders."""
    parser.add_argument("--html", metavar="FILE", help="also draw the runs in one picture on a page")
    parser.add_argument("runs", nargs="+", metavar="run", help="run folders; the others are compared with the first")


def run(options: Any) -> int:
    """Print every figure of each run, and its difference from the first run."""
    from ais_bench.evaluate import load

    runs = {path: load(path) for path in options.runs}
    figures = {path: _figures(found.report) for path, found in runs.items()}
    names = list(dict.fromkeys(name for one in figures.values() for name in one))
    first = figures[options.runs[0]]
    rows: list[dict[str, Any]] = []
    for name in names:
        values = [figures[path].get(name) for path in runs]
        base = first.get(name)
        changes = [None if base in (None, 0) or value is None else value / base - 1 for value in values]
        rows.append({"figure": name, "values": values, "change": changes})
    if options.html:
        from ais_bench.evaluate.page.page import write_page

        write_page(list(runs.values()), options.html)
    differ = _differences([found.run for found in runs.values()])
    if options.json:
        print_json({"runs": list(runs), "figures": rows, "differences": differ})
        return 0
    shown = [(row["figure"], *_cells(row)) for row in rows]
    table("figures (change from the first run)", ("figure", *runs), shown)
    if differ:
        table("settings that differ", ("setting", *runs), [(name, *values) for name, values in differ.items()])
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    cells = []
    for place, (value, change) in enumerate(zip(row["values"], row["change"], strict=True)):
        cells.append(figure(value) + (f" ({change:+.1%})" if place and change is not None else ""))
    return cells


def _figures(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report that can be compared, by name."""
    found: dict[str, float] = {}
    for name, value in report.get("metrics", {}).items():
        parts = value.items() if isinstance(value, dict) else ((None, value),)
        for part, number in parts:
            if isinstance(number, (int, float)):
                found[name if part is None else f"{name}.{part}"] = number
    found.update(figures_of(report))
    for name in ("samples", "failed", "wall_s", "throughput_per_s"):
        if name in report:
            found[name] = report[name]
    for stage in ("execute_ms", "end_to_end_ms"):
        for name, number in report.get(stage, {}).items():
            if name != "count":
                found[f"{stage} {name}"] = number
    return found


def _differences(runs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings, model, devices and versions that differ between the runs."""
    flat = [
        {
            "model sha256": (run["model"].get("sha256") or "")[:12],
            "devices": str(run["turns"][-1]["devices"] if run["turns"] else None),
            **{name: str(value) for name, value in run["settings"].items()},
            **{f"version of {name}": value for name, value in run["versions"].items()},
        }
        for run in runs
    ]
    names = list(dict.fromkeys(name for one in flat for name in one))
    return {name: [one.get(name) for one in flat] for name in names if len({one.get(name) for one in flat}) > 1}
