"""Go on with a run that was cut off."""

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
    """Add the folder, and where it runs."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--failed", action="store_true", help="run samples again that failed, too")
    add_session_options(parser)


def run(options: Any) -> int:
    """Evaluate what the run folder says, from where it was cut off."""
    from ais_bench.evaluate import load

    found = load(options.run).run
    if found.get("kind") in KINDS:
        raise CliError(f"{options.run} is a run of {found['kind']}; only evaluations are resumed")
    asked = found.get("notes", {}).get("command")
    if asked is None:
        raise CliError(f"{options.run} was not made by this command, so only its own script can go on with it: resume=True")
    return evaluate_as(asked, options, output=options.run, resume="failed" if options.failed else True)
