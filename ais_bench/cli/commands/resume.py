"""Continue an evaluation that was interrupted."""

from __future__ import annotations

import argparse
from typing import Any

from ais_bench.cli.commands.evaluate import add_session_options, evaluate_as
from ais_bench.cli.log import CliError
from ais_bench.cli.measurements import KINDS

EXAMPLES = """\
  ais-bench resume run
  ais-bench resume run --devices 0,1,2 --failed
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the run folder and the devices."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--failed", action="store_true", help="also run failed samples again")
    add_session_options(parser)


def run(options: Any) -> int:
    """Continue the evaluation of the run folder. Raises CliError, ConfigError."""
    from ais_bench.evaluate import load

    found = load(options.run).run
    if found.get("kind") in KINDS:
        raise CliError(f"{options.run} is a run of {found['kind']}; only evaluations can be resumed")
    asked = found.get("notes", {}).get("command")
    if asked is None:
        raise CliError(f"{options.run} was made by a script; continue it there, with evaluate(resume=True)")
    return evaluate_as(asked, options, output=options.run, resume="failed" if options.failed else True)
