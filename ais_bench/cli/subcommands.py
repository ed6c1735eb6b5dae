"""The subcommands by name, and what is the same for all of them. Importing this imports none of them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

__all__ = ["SUBCOMMANDS", "run_subcommand"]

# name -> what it does, in one line
SUBCOMMANDS = {
    "devices": "which devices there are, why not others, and versions",
    "inspect": "what a model looks like: inputs, outputs, gears, digest",
    "bench": "how fast a model is: until the figures are stable",
    "scaling": "how the speed grows with the number of devices",
    "evaluate": "a data set through a model, scored, into a run folder",
    "resume": "go on with a run that was cut off",
    "score": "score a run again, without inference",
    "report": "what came of a run",
    "compare": "runs side by side",
}
EXIT_CODES = """\
exit codes: 0 success; 1 it failed; 2 an unknown option, or a value that is none; 3 it finished, but samples failed, a metric
raised, or the figures did not become stable; 130 interrupted
"""


def run_subcommand(name: str, words: Sequence[str]) -> int:
    """Run a subcommand and return its exit code. Raises what it raises."""
    module = importlib.import_module(f"ais_bench.cli.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"ais-bench {name}",
        description=f"{SUBCOMMANDS[name][0].upper()}{SUBCOMMANDS[name][1:]}.",
        epilog=f"examples:\n{module.EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure instead of text")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    options = parser.parse_args(list(words))
    code: int = module.run(options)
    return code
