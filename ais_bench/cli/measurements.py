"""Write the run folders of `bench` and `scaling`, and print their figures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from ais_bench.cli.log import CliError
from ais_bench.cli.show import figure, lines, print_json, table

__all__ = ["BENCH", "KINDS", "SCALING", "SCENARIO", "figures_of", "measured_run", "print_report", "rows_of", "show"]

BENCH, SCALING, SCENARIO = "bench", "scaling", "scenario"
KINDS = (BENCH, SCALING, SCENARIO)
BUSY = 0.25  # report other programs from this number of busy processors on
_SETTINGS = (
    "devices",
    "shape",
    "batch",
    "workers",
    "data",
    "mode",
    "threads",
    "seconds",
    "most_seconds",
    "runs",
    "window",
    "agree",
    "repeats",
)
_OF_SCENARIO = ("scenario", "rate", "latency_ms", "find_peak", "queries")


@contextlib.contextmanager
def measured_run(options: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the report to fill, and write it to the run folder of --output, with its page, at the end. Raises CliError."""
    report: dict[str, Any] = {}
    if options.output is None:
        yield report
        return
    from ais_bench.evaluate.folder import RUN, write_json
    from ais_bench.evaluate.plan import model_facts, versions

    path = os.path.join(options.output, RUN)
    os.makedirs(options.output, exist_ok=True)
    if os.path.exists(path):
        raise CliError(f"{options.output} holds a run already; use another folder")
    given = {name: getattr(options, name, None) for name in (*_SETTINGS, *_OF_SCENARIO)}
    settings = {name: value for name, value in given.items() if value not in (None, False)}
    run = {
        "format": 1,
        "kind": kind,
        "status": "started",
        "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "model": model_facts(options.model),
        "settings": settings,
        "versions": versions(),
        "turns": [],
    }
    write_json(path, run)
    try:
        yield report
        _write_report(options.output, run, report)
        run["status"] = "success"
    except BaseException as error:
        run["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
        run["error"] = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # the first error is the one to raise
            write_json(path, run)
        raise
    write_json(path, run)


def _write_report(folder: str, run: dict[str, Any], report: dict[str, Any]) -> None:
    from ais_bench.evaluate.folder import REPORT, write_json
    from ais_bench.evaluate.page.page import write_page
    from ais_bench.evaluate.result import load
    from ais_bench.evaluate.text import json_ready

    write_json(os.path.join(folder, REPORT), json_ready(report))
    found = load(folder)
    found.run["status"] = "success"
    write_page([found], os.path.join(folder, "report.html"))


def rows_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the measured settings with their figures."""
    rows: list[dict[str, Any]] = report.get("results") or report.get("curve") or []
    return rows


def print_report(options: Any, report: dict[str, Any]) -> None:
    """Print a measurement that has just ended: as JSON with --json, otherwise as tables."""
    if options.json:
        print_json({"model": options.model, **report})
    else:
        show(report)
        if options.output:
            print(f"run folder: {options.output}")


def show(report: dict[str, Any]) -> None:
    """Print every figure of a report."""
    if "curve" in report:
        _show_curve(report)
    elif "results" in report:
        _show_results(report["results"])
    elif "figures" in report:
        _show_scenario(report)


def _show_results(results: list[dict[str, Any]]) -> None:
    rows = []
    for one in results:
        low_high = "-" if one["ci95"] is None else f"{figure(one['ci95'][0])} to {figure(one['ci95'][1])}"
        times, execute = one["end_to_end_ms"], one["execute_ms"]
        shapes = ";".join(f"{name}:{','.join(map(str, dims))}" for name, dims in (one["shapes"] or {}).items())
        speed = (one["throughput_per_s"], low_high, one["samples_per_s"])
        stages = (execute.get("mean"), times.get("p50"), times.get("p99"), "yes" if one["stable"] else "NO")
        rows.append((shapes or "fixed", one["workers_per_device"], len(one["device_ids"]), *speed, *stages))
    heads = ("shapes", "workers", "devices", "runs/s", "95 % interval", "samples/s", "execute ms", "p50 ms", "p99 ms", "stable")
    table("speed", heads, rows)
    if len(results) == 1:
        devices = [
            (device, one["runs"], one["throughput_per_s"], one["execute_ms"].get("mean"), one["end_to_end_ms"].get("p50"))
            for device, one in results[0]["devices"].items()
        ]
        table("devices", ("device", "runs", "runs/s", "execute ms", "p50 ms"), devices)
    for name, formula in results[0]["formulas"].items():
        print(f"{name}: {formula}")
    busy = max(one["other_load"]["busy_processors"] for one in results)
    if busy > BUSY:
        print(f"other programs kept {busy:.1f} of {results[0]['other_load']['processors']:.0f} processors busy beforehand")
    if not all(one["stable"] for one in results):
        print("a row with NO did not become stable; its figures are those of the second half of the time")


def _show_curve(report: dict[str, Any]) -> None:
    rows = [(len(c["devices_used"]), c["throughput_per_s"], c["speedup"], f"{c['efficiency']:.1%}") for c in report["curve"]]
    heads = ("devices", "runs/s", "times one", "efficiency")
    table("scaling (efficiency: runs/s / (devices x runs/s of one))", heads, rows)
    for device, times in report["stragglers"].items():
        print(f"device {device} is the straggler: a run takes {times:.2f} times as long as on the median device")
    if not report["stragglers"] and len(rows) > 1:
        print(f"no straggler: no device takes more than {report['slower']} times as long as the median device")


def _show_scenario(report: dict[str, Any]) -> None:
    lines([("scenario", report["scenario"]), ("result", report["result"]), *report["conditions"].items()])
    for reason in report["reasons"]:
        print(f"  {reason}")
    lines(report["figures"].items())
    if os.path.isdir(report["folder"]):
        print(f"logs: {report['folder']}")


def figures_of(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report by name, for a comparison."""
    from ais_bench.evaluate.text import setting_of  # here, because --help does not need numpy

    found = {name: value for name, value in report.get("figures", {}).items()}
    for row in rows_of(report):
        label = setting_of(row)
        found[f"{label}: runs/s"] = row["throughput_per_s"]
        found[f"{label}: samples/s"] = row["samples_per_s"]
        for stage in ("execute_ms", "end_to_end_ms"):
            found.update(
                {f"{label}: {stage} {name}": row[stage][name] for name in ("mean", "p50", "p99") if name in row[stage]}
            )
    return found
