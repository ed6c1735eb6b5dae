"""Score a run again, without inference."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ais_bench.cli.log import CliError
from ais_bench.cli.measurements import KINDS
from ais_bench.cli.show import print_json
from ais_bench.cli.specs import load_object, metric_of

EXAMPLES = """\
  ais-bench score run
  ais-bench score run --metric top5 --metric mine.py:Recall --write
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the run folder and the metrics."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--metric", action="append", metavar="M", help="as for evaluate; default: the metrics of the run")
    parser.add_argument("--final", metavar="F", help="a function of all outputs and all targets")
    parser.add_argument("--write", action="store_true", help="put the scores into the run's report")


def run(options: Any) -> int:
    """Score the run and print the scores. Raises CliError, ConfigError."""
    from ais_bench.evaluate import load, score

    found = load(options.run)
    if found.run.get("kind") in KINDS:
        raise CliError(f"{options.run} is a run of {found.run['kind']}; only evaluations can be scored")
    metrics, final = options.metric, options.final
    if metrics is None and final is None:
        asked = found.run.get("notes", {}).get("command")
        if asked is None or not (asked["metric"] or asked["final"]):
            raise CliError("the run has no metrics; give --metric")
        metrics, final = asked["metric"], asked["final"]
        sys.path.insert(0, asked["cwd"])
    scored = score(
        found,
        [metric_of(spec) for spec in metrics or ()],
        final=None if final is None else load_object(final),
        write=options.write,
    )
    if options.json:
        print_json({"metrics": scored.metrics, "metric_errors": scored.metric_errors, "scored": scored.report["scored"]})
    else:
        print(scored)
    return 3 if scored.metric_errors else 0
