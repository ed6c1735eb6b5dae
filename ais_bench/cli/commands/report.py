"""Print the results of a run."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ais_bench.cli.measurements import KINDS, show
from ais_bench.cli.show import lines, print_json, table

EXAMPLES = """\
  ais-bench report run
  ais-bench report run --json
  ais-bench report run --html page.html --parquet records.parquet
"""
TIMES = ("count", "mean", "p50", "p90", "p99", "max")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the run folder and the files to write."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--html", metavar="FILE", help="the file of the page (report.html in the run folder)")
    parser.add_argument(
        "--parquet", metavar="FILE", help="also write the records as Parquet (pip install 'ais_bench[parquet]')"
    )
    parser.add_argument("--trace", metavar="FILE", help="the file of the trace (trace.json.gz in the run folder)")


def run(options: Any) -> int:
    """Print the report of a run folder, and write its page and its trace."""
    from ais_bench.evaluate import load
    from ais_bench.evaluate.page.page import write_page
    from ais_bench.evaluate.page.trace import write_trace

    found = load(options.run)
    if found.run.get("kind") in KINDS:
        return _measurement(options, found)
    page = options.html or os.path.join(options.run, "report.html")
    trace = options.trace or os.path.join(options.run, "trace.json.gz")
    write_page([found], page)
    write_trace(found, trace)
    if options.parquet:
        found.records.to_parquet(options.parquet)
    if options.json:
        print_json({**found.to_dict(), "failures": [_failure(record) for record in found.failures]})
        return 0
    about, report = found.run, found.report
    lines(
        [
            ("run", found.path),
            ("status", about["status"]),
            ("error", about.get("error")),
            ("model", about["model"].get("path")),
            ("samples", f"{report['samples']} of {about['samples']}, {report['failed']} failed"),
            ("wall time s", report.get("wall_s")),
            ("samples/s", report.get("throughput_per_s")),
            *report.get("metrics", {}).items(),
            *((name, f"no score: {error}") for name, error in report.get("metric_errors", {}).items()),
        ]
    )
    print()
    devices = report.get("devices", {})
    rows = [(device, one["samples"], one["failed"], one["throughput_per_s"]) for device, one in devices.items()]
    if rows:
        table("devices", ("device", "samples", "failed", "samples/s"), rows)
    for stage in ("execute_ms", "end_to_end_ms"):
        every = [("all", report.get(stage, {})), *((device, one[stage]) for device, one in devices.items())]
        if report.get(stage, {}).get("count"):
            table(
                f"{stage} (percentiles are upper bounds, with 99 % confidence)",
                ("device", *TIMES),
                [(d, *map(t.get, TIMES)) for d, t in every],
            )
    if options.parquet:
        print(f"parquet {options.parquet}")
    print(f"page   {page}\ntrace  {trace} (opens in ui.perfetto.dev and chrome://tracing)\n")
    failures = [_failure(record) for record in found.failures[:20]]
    if failures:
        table("failures", ("sample", "device", "error"), [(one["id"], one["device"], one["error"]) for one in failures])
    return 0


def _measurement(options: Any, found: Any) -> int:
    """Print the report of a run folder of `bench` or `scaling`."""
    from ais_bench.evaluate.page.page import write_page

    page = options.html or os.path.join(options.run, "report.html")
    write_page([found], page)
    if options.json:
        print_json(found.to_dict())
        return 0
    about = found.run
    model = about["model"].get("path")
    lines([("run", found.path), ("status", about["status"]), ("error", about.get("error")), ("model", model)])
    print()
    show(found.report)
    print(f"page   {page}")
    return 0


def _failure(record: dict[str, Any]) -> dict[str, Any]:
    error = record["error"]
    return {
        "index": record["index"],
        "id": record["id"],
        "device": record["device"],
        "error": f"{error['type']}: {error['message']}",
    }
