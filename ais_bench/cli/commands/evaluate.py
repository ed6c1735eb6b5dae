"""Run a data set through a model, score it, and write a run folder."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

from ais_bench.cli.options import at_least, ids_to, model_file
from ais_bench.cli.show import print_json
from ais_bench.cli.specs import absolute_spec, dataset_of, load_object, metric_of

EXAMPLES = """\
  ais-bench evaluate m.onnx images/ --labels labels.txt --preprocess mine.py:to_array --metric top1 --metric top5 --output run
  ais-bench evaluate m.om mine.py:dataset --metric mine.py:Accuracy --devices 0,1,2,3 --output run
  ais-bench resume run --devices 0,1
"""
CHOICES = ("batch_size", "limit", "seed", "on_error", "mode", "keep_outputs")
SPECS = ("dataset", "labels", "target", "preprocess", "postprocess", "final")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ais_bench.evaluate.evaluate`. Functions are given as module:name or file.py:name."""
    parser.add_argument("model", type=model_file, help="an .om or .onnx file; its content decides which")
    parser.add_argument("dataset", help="a folder or files of .npy, .bin or images; or file.py:name of a data set")
    parser.add_argument("--labels", metavar="FILE", help='the true answers of files: lines "name label", or a JSON object')
    parser.add_argument("--target", metavar="F", help="a function of a sample that returns its true answer")
    parser.add_argument("--preprocess", metavar="F", help="a function of a sample that returns its feeds")
    parser.add_argument("--postprocess", metavar="F", help="a function of a sample's outputs; its result goes to the metrics")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="M",
        help="topN, mean-absolute-error, mean-relative-error, mean-cosine-error, edit-distance, or file.py:name; repeatable",
    )
    parser.add_argument("--final", metavar="F", help="a function of all outputs and all targets")
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="samples in each run (the model's batch, or 1)")
    parser.add_argument(
        "--limit", type=at_least(0), metavar="N", help="the number of samples: the first N, or random ones with --seed"
    )
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="for --limit, and for random numbers in preprocess")
    parser.add_argument("--on-error", choices=("record", "raise"), default="record", help="what to do with a failed sample")
    parser.add_argument("--mode", default="static", help="as for infer (%(default)s)")
    parser.add_argument("--keep-outputs", action=argparse.BooleanOptionalAction, help="keep results in the run folder")
    parser.add_argument("--output", "-o", metavar="DIR", help="the run folder")
    add_session_options(parser)


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for devices and workers."""
    parser.add_argument("--devices", "-d", type=ids_to(1023), metavar="IDS", help="comma-separated (all devices)")
    parser.add_argument("--workers-per-device", type=at_least(1), metavar="N", help="processes for each device (1)")
    parser.add_argument("--task-timeout", type=float, metavar="S", help="seconds after which a run is tried on another device")
    parser.add_argument("--no-progress", action="store_true", help="do not show the progress")
    add_watching(parser)


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add the options that show a run while it lasts."""
    parser.add_argument("--live", action="store_true", help="show a table of the devices instead of a progress bar")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve counters for Prometheus, to this machine only")
    parser.add_argument(
        "--metrics-address", default="127.0.0.1", metavar="ADDRESS", help="the address of that port (%(default)s)"
    )


@contextlib.contextmanager
def watched(options: Any, session: Any) -> Iterator[None]:
    """Show the live table and serve the counters, as the options say, while the block runs."""
    from ais_bench.evaluate.watch import live, metrics_port

    with contextlib.ExitStack() as stack:
        if options.metrics_port is not None:
            port = stack.enter_context(metrics_port(session, options.metrics_port, options.metrics_address))
            print(f"metrics: http://{options.metrics_address}:{port}/metrics", file=sys.stderr, flush=True)
        if options.live:
            stack.enter_context(live(session))
        yield


def run(options: Any) -> int:
    """Evaluate, and print the result."""
    asked: dict[str, Any] = {name: absolute_spec(getattr(options, name)) for name in SPECS}
    for name in CHOICES:
        asked[name] = getattr(options, name)
    asked["metric"] = [absolute_spec(spec) for spec in options.metric]
    asked["model"], asked["cwd"] = os.path.abspath(options.model), os.getcwd()
    return evaluate_as(asked, options, output=options.output, resume=False)


def evaluate_as(asked: dict[str, Any], options: Any, *, output: str | None, resume: Any) -> int:
    """Evaluate with the arguments of this command line, or with those stored in the run folder."""
    from ais_bench.evaluate import evaluate

    if asked["cwd"] not in sys.path:
        sys.path.insert(0, asked["cwd"])
    functions: dict[str, Any] = {
        name: None if asked[name] is None else load_object(asked[name])
        for name in ("target", "preprocess", "postprocess", "final")
    }
    session = {name: value for name in ("workers_per_device", "task_timeout") if (value := getattr(options, name)) is not None}
    result = evaluate(
        asked["model"],
        dataset_of(asked["dataset"], asked["labels"]),
        metrics=[metric_of(spec) for spec in asked["metric"]],
        devices=options.devices,
        output=output,
        resume=resume,
        progress=not (options.no_progress or options.live),
        watch=functools.partial(watched, options),
        notes={"command": asked},
        **{**functions, **{name: asked[name] for name in CHOICES}, **session},
    )
    if options.json:
        print_json(result.to_dict())
    else:
        print(result)
    return 3 if result.report["failed"] or result.metric_errors else 0
