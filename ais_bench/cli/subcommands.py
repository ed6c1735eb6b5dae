"""The names of the subcommands, and their common options. Importing this module imports no subcommand."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

__all__ = ["SUBCOMMANDS", "run_subcommand"]

# name -> one line of help
SUBCOMMANDS = {
    "devices": "list the devices, why others are missing, and versions",
    "inspect": "describe a model: inputs, outputs, gears, digest",
    "bench": "measure a model's speed until the figures are stable",
    "scaling": "measure how the speed grows with the number of devices",
    "evaluate": "run a data set through a model, score it, write a run folder",
    "resume": "continue an evaluation that was interrupted",
    "score": "score a run again, without inference",
    "report": "print the results of a run",
    "compare": "compare several runs side by side",
}
EXIT_CODES = """\
exit codes: 0 success; 1 failure; 2 an unknown option or an invalid value; 3 finished, but samples failed, a metric
raised, or the figures did not become stable; 130 interrupted
"""


def run_subcommand(name: str, words: Sequence[str]) -> int:
    """Run a subcommand and return its exit code. Raises the errors of the subcommand."""
    module = importlib.import_module(f"ais_bench.cli.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"ais-bench {name}",
        description=f"{SUBCOMMANDS[name][0].upper()}{SUBCOMMANDS[name][1:]}.",
        epilog=f"examples:\n{module.EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure, no text")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    options = parser.parse_args(list(words))
    code: int = module.run(options)
    return code
