"""`python -m ais_bench.emulator`: pack a model, run a command on emulated NPUs, or print the library's path."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from ais_bench.emulator.binary import OPTIONAL, library_without
from ais_bench.emulator.machine import npus
from ais_bench.emulator.pack import pack
from ais_bench.errors import ConfigError
from ais_bench.options import wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (ConfigError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ais_bench.emulator", description="Emulated NPUs; see docs/emulator.md")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_pack(commands.add_parser("pack", help="pack an ONNX model as a compiled model for the emulator"))
    _add_run(commands.add_parser("run", help="run a command with emulated NPUs instead of AscendCL"))
    library = commands.add_parser("library", help="print the path of the emulator's library")
    library.add_argument(
        "--without", default="", help=f"comma-separated symbols that it must lack; possible: {', '.join(OPTIONAL)}"
    )
    library.set_defaults(run=_library)
    return parser


def _add_pack(parser: argparse.ArgumentParser) -> None:
    def option(name: str, text: str, **more: str) -> None:
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", help=text, **more)  # type: ignore[arg-type]

    parser.add_argument("model", help="the ONNX file")
    parser.add_argument("-o", "--output", required=True, help="the file to write")
    option("input-shape", "'name:1,3,224,224;name2:-1,16'; -1 varies, 1~8 varies in a range")
    option("dynamic-batch-size", "'1,2,4,8'")
    option("dynamic-image-size", "'224,224;448,448' (height,width)")
    option("dynamic-dims", "'1,16;2,32': a value for every varying dimension, in the order of --input-shape")
    option("insert-op-conf", "an AIPP configuration file")
    option("input-format", "NCHW, NHWC or ND", default="NCHW")
    option("soc-version", "the only SoC on which it loads; default: any", default="")
    option("external-weight", "1: write the weights to files in the folder 'weight' beside the output", default="0")
    parser.set_defaults(run=_pack)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--npus", type=int, default=8, help="the number of NPUs (8)")
    parser.add_argument("--exec-ms", help="milliseconds of one execution, or a distribution such as normal:5,0.5")
    parser.add_argument("--copy-gbps", help="1e9 bytes per second between host and device")
    parser.add_argument("--memory-mb", help="MiB of device memory")
    parser.add_argument("--product", help="the product, such as 310P3, 910, 910B, A3")
    parser.add_argument("--kernel", help="the release of the host's kernel, such as 5.10")
    parser.add_argument("--faults", default="", help="fault rules, such as 'aclmdlExecute:3=507011@2'")
    parser.add_argument("--record", help="a file for the recorded calls")
    parser.add_argument("--report", help="a file for violations and leaks")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    parser.set_defaults(run=_run)


def _pack(options: argparse.Namespace) -> int:
    target = pack(
        options.model,
        options.output,
        input_shape=options.input_shape,
        dynamic_batch_size=options.dynamic_batch_size,
        dynamic_image_size=options.dynamic_image_size,
        dynamic_dims=options.dynamic_dims,
        insert_op_conf=options.insert_op_conf,
        input_format=options.input_format,
        soc_version=options.soc_version,
        external_weight=_switch("external_weight", options.external_weight),
    )
    print(f"{target}: {os.path.getsize(target)} bytes, for the emulator only")
    return 0


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise wrong(name, "0 or 1", text)
    return text == "1"


def _run(options: argparse.Namespace) -> int:
    command = [word for index, word in enumerate(options.command) if word != "--" or index != 0]
    if not command:
        raise ConfigError("run needs a command: python -m ais_bench.emulator run --npus 8 -- python script.py")
    settings = {
        name: getattr(options, name)
        for name in ("exec_ms", "copy_gbps", "memory_mb", "product", "kernel", "faults", "record", "report")
    }
    with npus(options.npus, **settings):
        return subprocess.run(command, check=False).returncode


def _library(options: argparse.Namespace) -> int:
    print(library_without([name for name in options.without.split(",") if name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
