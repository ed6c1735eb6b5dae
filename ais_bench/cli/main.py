"""What is asked for: a subcommand, or, without one, the benchmark as the original has it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ais_bench.cli.log import CliError, error
from ais_bench.cli.subcommands import SUBCOMMANDS, run_subcommand

__all__ = ["main"]

DESCRIPTION = "One model on every accelerator of a machine."
USAGE = "ais-bench --model MODEL [options]\n       ais-bench COMMAND [options]\n       ais-bench -h | --version"
EPILOG = """\
commands (ais-bench COMMAND -h says more):
{commands}

examples:
  ais-bench --model m.om --input data --output out           every file of a folder, results and times into out/
  ais-bench --model m.onnx --loop 100                        made-up data, on a CPU device
  ais-bench --model m.om --device 0,1,2,3 --input data --divide_input
                                                             a quarter of the files on each of four devices
  ais-bench --model m.om --dymShape_range "x:1~8,3,224,224"  eight shapes, one after the other

Options take a space or "=", names take "-" or "_". Switches are --x, --no-x, or --x followed by 1, 0, true, false, yes, no.
exit codes: 0 success; 1 a run failed; 2 an unknown option, or a value that is none; 130 interrupted
"""


def _version() -> str:
    from importlib.metadata import version

    return f"ais-bench {version('ais_bench')}"


class _Version(argparse.Action):
    """Print the version, which takes a moment to find."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_version())
        parser.exit()


def benchmark_parser() -> argparse.ArgumentParser:
    """The parser of the benchmark command."""
    from ais_bench.cli.options import add_benchmark_options

    parser = argparse.ArgumentParser(
        prog="ais-bench",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG.format(commands="\n".join(f"  {name:<10} {what}" for name, what in SUBCOMMANDS.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    add_benchmark_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None: this process's) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["benchmark"]:  # as in "ait benchmark"
        words = words[1:]
    debug = "--debug" in words
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    try:
        if words[:1] and words[0] in SUBCOMMANDS:
            code = run_subcommand(words[0], words[1:])
        else:
            options = benchmark_parser().parse_args(words)
            debug = options.debug
            from ais_bench.cli.benchmark import run

            code = run(options)
        sys.stdout.flush()  # so that a full disk or a closed pipe is met here
        return code
    except CliError as failed:
        error(str(failed))
        return 1
    except KeyboardInterrupt:
        error("interrupted")
        return 130
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failed:
        if debug:
            raise
        error(f"{type(failed).__name__}: {failed}")
        return 1
