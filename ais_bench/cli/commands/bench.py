"""Measure the speed of a model until the figures are stable."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from ais_bench.cli.commands.evaluate import add_watching, watched
from ais_bench.cli.log import CliError
from ais_bench.cli.measurements import BENCH, SCENARIO, measured_run, print_report
from ais_bench.cli.options import at_least, ids_to, model_file, shape_list

EXAMPLES = """\
  ais-bench bench m.onnx
  ais-bench bench m.om --devices 0,1,2,3 --seconds 10 --json
  ais-bench bench m.onnx --shape x:1,3,224,224 --shape x:1,3,448,448 --workers 1,2     every combination, one table
  ais-bench bench m.om --scenario offline --seconds 60
  ais-bench bench m.om --scenario server --rate 500 --latency-ms 15 --output run
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what to vary and how long to measure."""
    parser.add_argument("model", type=model_file, help="an .om or .onnx file; its content decides which")
    parser.add_argument("--devices", "-d", type=ids_to(1023), metavar="IDS", help="comma-separated (all devices)")
    parser.add_argument(
        "--shape",
        action="append",
        type=shape_list,
        metavar="S",
        help='shapes of open inputs, "x:1,3,4;y:1"; repeat for more rows',
    )
    parser.add_argument("--batch", type=_numbers, metavar="N,N", help="batch sizes for open first dimensions, one row each")
    parser.add_argument(
        "--workers", type=_numbers, default=[1], metavar="N,N", help="processes for each device, one row each (1)"
    )
    parser.add_argument("--data", choices=("random", "zero"), default="random", help="the generated data (%(default)s)")
    parser.add_argument("--mode", default="static", help="as for infer (%(default)s)")
    add_measuring(parser)
    scenario = parser.add_argument_group("MLPerf LoadGen (pip install 'ais_bench[loadgen]')")
    scenario.add_argument(
        "--scenario", choices=("offline", "single-stream", "multi-stream", "server"), help="run this scenario instead"
    )
    scenario.add_argument(
        "--rate", type=float, metavar="QPS", help="queries per second: for server the load, for offline the expected rate"
    )
    scenario.add_argument("--latency-ms", type=float, metavar="MS", help="the bound for server's 99th percentile")
    scenario.add_argument("--find-peak", action="store_true", help="search server's highest rate within the bound")
    scenario.add_argument(
        "--queries", type=at_least(1), metavar="N", help="the minimum number; --seconds is the minimum duration"
    )


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """Add the options for how long to measure."""
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="minimum duration of each repeat (%(default)s)")
    parser.add_argument("--most-seconds", type=float, default=60.0, metavar="S", help="maximum duration (%(default)s)")
    parser.add_argument("--runs", type=at_least(1), default=50, metavar="N", help="minimum number of runs (%(default)s)")
    parser.add_argument(
        "--window", type=float, default=0.5, metavar="S", help="window; three in a row must agree (%(default)s)"
    )
    parser.add_argument("--agree", type=float, default=10.0, metavar="PERCENT", help="the tolerance for windows (%(default)s)")
    parser.add_argument(
        "--repeats", type=at_least(1), default=3, metavar="N", help="repeats, for the confidence interval (%(default)s)"
    )
    parser.add_argument("--output", "-o", metavar="DIR", help="the run folder: run.json, report.json, report.html")
    parser.add_argument("--no-progress", action="store_true", help="do not show the progress")
    add_watching(parser)


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"each number must be at least 1, got {text!r}")
    return numbers


def plan_of(options: Any) -> Any:
    """Return how long to measure. Raises ConfigError."""
    from ais_bench.evaluate.measure import Plan

    window = min(options.window, options.seconds / 3)
    return Plan(
        window, options.seconds, options.runs, max(options.most_seconds, options.seconds), options.agree / 100, options.repeats
    )


def run(options: Any) -> int:
    """Measure every combination, or run a scenario, and print the figures."""
    if options.scenario:
        return _run_scenario(options)
    with measured_run(options, BENCH) as report:
        report["results"] = list(_results(options))
    print_report(options, report)
    return 0 if all(one["stable"] for one in report["results"]) else 3


def _run_scenario(options: Any) -> int:
    """Run LoadGen. Return exit code 3 if its verdict is INVALID."""
    from ais_bench.evaluate.loadgen import run_scenario
    from ais_bench.evaluate.measure import feeds_of

    with contextlib.ExitStack() as stack:
        folder = options.output or stack.enter_context(tempfile.TemporaryDirectory(prefix="ais_bench-"))
        report = stack.enter_context(measured_run(options, SCENARIO))
        session = stack.enter_context(open_session(options, workers_per_device=options.workers[0]))
        shapes = input_shapes((options.shape or [None])[0], (options.batch or [None])[0], session.get_inputs())
        found = run_scenario(
            session,
            feeds_of(session.get_inputs(), shapes, options.data),
            options.scenario,
            os.path.join(folder, "loadgen"),
            rate=options.rate,
            latency_ms=options.latency_ms,
            seconds=options.seconds,
            queries=options.queries,
            find_peak=options.find_peak,
            mode=options.mode,
        )
        report.update(found)
    print_report(options, report)
    return 0 if report["result"] == "VALID" else 3


def _results(options: Any) -> Iterator[dict[str, Any]]:
    for workers in options.workers:
        with open_session(options, workers_per_device=workers) as session:
            inputs = session.get_inputs()
            for shapes, batch in itertools.product(options.shape or [None], options.batch or [None]):
                wanted = input_shapes(shapes, batch, inputs)
                result = measured(options, session, wanted)
                setting = {"shapes": wanted or None, "workers_per_device": workers, "device_ids": list(session.devices)}
                yield {**setting, **result}


def open_session(options: Any, **more: Any) -> Any:
    """Return a session whose workers are ready."""
    from ais_bench.session import MultiDeviceSession

    session = MultiDeviceSession(options.model, devices=more.pop("devices", options.devices), **more)
    try:
        session.start()
    except BaseException:
        session.close(force=True)
        raise
    return session


def measured(options: Any, session: Any, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Return the figures of one setting."""
    from ais_bench.evaluate.measure import feeds_of, repeat
    from ais_bench.evaluate.progress import Progress

    inputs = session.get_inputs()
    feeds = feeds_of(inputs, shapes, options.data)
    first = {feed.shape[0] if feed.ndim else 1 for feed in feeds}
    samples = first.pop() if len(first) == 1 else 1
    shown = not (options.no_progress or options.live)
    with watched(options, session), Progress(None, "bench", shown, "runs") as bar:
        base = [0, 0]

        def tick(total: int) -> None:
            if total < base[1]:  # the next repeat counts from 0
                base[0] += base[1]
            base[1] = total
            bar.count = base[0] + total

        return repeat(session, feeds, plan_of(options), samples, options.mode, tick)


def input_shapes(text: str | None, batch: int | None, inputs: list[Any]) -> dict[str, list[int]]:
    """Return the shapes of one setting, by input. Raises CliError."""
    shapes: dict[str, list[int]] = {}
    for part in (text or "").split(";"):
        if part:
            name, _, dims = part.rpartition(":")
            try:
                shapes[name or inputs[0].name] = [int(dim) for dim in dims.split(",")]
            except ValueError:
                raise CliError(f"--shape must be like x:1,3,224,224;y:1, got {text!r}") from None
    if batch is not None:
        for desc in inputs:
            shape = shapes.get(desc.name, list(desc.shape))
            if shape and desc.shape[0] >= 0 and desc.shape[0] != batch:
                raise CliError(f"--batch must be {desc.shape[0]} for input {desc.name!r}, got {batch}")
            shapes[desc.name] = [batch, *shape[1:]]
    return shapes
