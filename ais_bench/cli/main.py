"""The entry point: run a subcommand, or, without one, the benchmark of the original tool."""

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
commands (ais-bench COMMAND -h shows the options):
{commands}

examples:
  ais-bench --model m.om --input data --output out           every file of a folder; writes results and times to out/
  ais-bench --model m.onnx --loop 100                        generated data, on a CPU device
  ais-bench --model m.om --device 0,1,2,3 --input data --divide_input
                                                             a quarter of the files on each of four devices
  ais-bench --model m.om --dymShape_range "x:1~8,3,224,224"  eight shapes, one after the other

Write "--x 1" or "--x=1"; names may use "-" or "_". Switches are --x, --no-x, or --x followed by 1, 0, true, false, yes, no.
exit codes: 0 success; 1 a run failed; 2 an unknown option or an invalid value; 130 interrupted
"""


def _version() -> str:
    from importlib.metadata import version

    return f"ais-bench {version('ais_bench')}"


class _Version(argparse.Action):
    """Print the version. The action looks it up only if it is needed, because this takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_version())
        parser.exit()


def benchmark_parser() -> argparse.ArgumentParser:
    """Return the parser of the benchmark command."""
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
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the program was started with a closed descriptor: no output is needed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may have any bytes
    try:
        if words[:1] and words[0] in SUBCOMMANDS:
            code = run_subcommand(words[0], words[1:])
        else:
            options = benchmark_parser().parse_args(words)
            debug = options.debug
            from ais_bench.cli.benchmark import run

            code = run(options)
        sys.stdout.flush()  # raises here if the disk is full or the pipe is closed
        return code
    except CliError as failed:
        error(str(failed))
        return 1
    except KeyboardInterrupt:
        error("interrupted")
        return 130
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failed:
        if debug:
            raise
        error(f"{type(failed).__name__}: {failed}")
        return 1
