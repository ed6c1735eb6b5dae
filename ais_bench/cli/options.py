"""The options of the benchmark command, with every name that the original tool and its successors use."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["add_benchmark_options"]

_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"must be one of {', '.join((*_TRUE, *_FALSE))}, in upper or lower case, got {text!r}")


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser of integers of at least `least`. It raises ArgumentTypeError."""

    def integer(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    integer.__name__ = "integer"
    return integer


def ids_to(highest: int) -> Callable[[str], int | list[int]]:
    """Return a parser of one id, or of several ids separated by commas, from 0 to `highest`. It raises
    ArgumentTypeError."""

    def ids(text: str) -> int | list[int]:
        numbers = [int(part) for part in text.split(",")]
        for number in numbers:
            if not 0 <= number <= highest:
                raise argparse.ArgumentTypeError(f"must be from 0 to {highest}, got {number}")
        return numbers if "," in text else numbers[0]

    ids.__name__ = "id, or list of ids,"
    return ids


def _of_characters(allowed: str, what: str) -> Callable[[str], str]:
    pattern = re.compile(f"[{allowed}]*")

    def text_of(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"must be a {what}, got {text!r}")
        return text

    return text_of


shape_list = _of_characters(r"_A-Za-z0-9,;:/.\-", "list of shapes, such as data:1,600;info:1,600")
_ranges = _of_characters(r"_A-Za-z0-9,;:/.\-~", "list of ranges, such as data:1,600~700;info:1,600-700, or an .info file")
_numbers = _of_characters(r"0-9,;", "list of numbers")


def _file(text: str) -> str:
    if text and not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"the file {text!r} does not exist")
    if text and not os.access(text, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read")
    return text


def model_file(text: str) -> str:
    """Return the path of a model file. Raises ArgumentTypeError."""
    if not text:
        raise argparse.ArgumentTypeError("the model's path is empty")
    return _file(text)


def _inputs(text: str) -> str:
    for path in text.split(",") if text else ():
        if not os.path.exists(path):
            raise argparse.ArgumentTypeError(f"{path!r} is neither a file nor a folder")
        if not os.access(path, os.R_OK):
            raise argparse.ArgumentTypeError(f"{path!r} cannot be read")
    return text


def _output(text: str) -> str:
    if os.path.exists(text) and not os.access(text, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written to")
    return text


def _range_or_file(text: str) -> str:
    return text if os.path.isfile(text) else _ranges(text)


class _Adder:
    """Adds options to a parser, each long name with underscores and with hyphens."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def group(self, title: str) -> _Adder:
        """Return an adder for a group of options with a heading."""
        other = _Adder(self._parser)
        other._target = self._parser.add_argument_group(title)
        return other

    _target: Any

    def value(self, names: str, help_text: str, **how: Any) -> None:
        """Add an option with a value."""
        self._target.add_argument(*_spellings(names), help=help_text, **how)

    def switch(self, names: str, help_text: str, default: bool = False) -> None:
        """Add a switch: --x, --no-x, --x=1, --x false."""
        spellings = _spellings(names)
        dest = spellings[0].lstrip("-").replace("-", "_")
        self._target.add_argument(
            *spellings, dest=dest, nargs="?", const=True, default=default, type=_boolean, metavar="BOOL", help=help_text
        )
        off = [f"--no{mark}{name[2:]}" for name in spellings if name.startswith("--") for mark in "-_"]
        self._target.add_argument(*off, dest=dest, action="store_false", help=argparse.SUPPRESS)


def _spellings(names: str) -> list[str]:
    """Return the names of an option: the given ones, and the other spelling of each long one."""
    found: dict[str, None] = {}
    for name in names.split():
        found[name] = None
        if name.startswith("--"):
            found["--" + name[2:].replace("_", "-")] = None
            found["--" + name[2:].replace("-", "_")] = None
    return list(found)


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of the benchmark command. The values have the names of the original's options."""
    adder = _Adder(parser)
    _add_files(adder.group("model, input, output"))
    _add_runs(adder.group("execution"))
    _add_shapes(adder.group("models with dynamic shapes"))
    _add_measuring(adder.group("additional measurements"))


def _add_files(group: _Adder) -> None:
    group.value(
        "--model -m --om_model -om",
        "the model: an .om file for an NPU, an .onnx file for the CPU",
        dest="model",
        type=model_file,
        required=True,
    )
    group.value(
        "--input -i",
        "files or folders of .npy and .bin, comma-separated: all files of the first input, then all of the second; or one "
        "folder for each input. Default: generated data",
        type=_inputs,
    )
    group.value("--output -o", "the folder for results; a subfolder named by the time is made in it", type=_output)
    group.value("--output_dirname -od", "the name of that subfolder", type=_output)
    group.value("--outfmt", "the format of results (%(default)s)", choices=("NPY", "BIN", "TXT"), default="BIN")
    group.value(
        "--output_batchsize_axis -oba",
        "the axis along which the result of a batch is split into one file for each input file (%(default)s)",
        type=at_least(0),
        default=0,
        metavar="AXIS",
    )
    group.switch("--keep_suffix", "name results by the whole name of the input file instead of its part before the first dot")
    group.value("--pure_data_type -pdt", "generated data (%(default)s)", choices=("zero", "random"), default="zero")


def _add_runs(group: _Adder) -> None:
    group.value(
        "--device -d",
        "the device, or a comma-separated list, 0 to 255 (%(default)s)",
        type=ids_to(255),
        default=0,
        metavar="ID",
    )
    group.switch("--divide_input", "with several devices: divide the input among them; otherwise each device gets all of it")
    group.value("--loop -l", "executions for each set of inputs (%(default)s)", type=at_least(1), default=1, metavar="N")
    group.value(
        "--warmup_count -wcount",
        "executions before the measurement (%(default)s)",
        type=at_least(0),
        default=1,
        metavar="N",
    )
    group.value(
        "--run_mode -rm",
        "array: feeds in host memory; files: .bin files; tensor: feeds copied to the device first; full: all copied first "
        "(%(default)s)",
        choices=("array", "files", "tensor", "full"),
        default="array",
    )
    group.switch("--pipeline", "read, run and write at the same time, with one file for each input in a run")
    group.value(
        "--threads", "with --pipeline: threads that run the model (%(default)s)", type=at_least(1), default=1, metavar="N"
    )
    group.value(
        "--batchsize --batch_size",
        "samples in each run, for the throughput; default: the model's first dimension",
        dest="batchsize",
        type=at_least(1),
        metavar="N",
    )
    group.switch("--debug", "print more lines")


def _add_shapes(group: _Adder) -> None:
    group.value(
        "--dymBatch --dym_batch -db",
        "the batch gear, such as 2",
        dest="dym_batch",
        type=at_least(1),
        default=0,
        metavar="N",
    )
    group.value("--dymHW --dym_hw -dhw", 'the image size gear, "300,500"', dest="dym_hw", type=shape_list, metavar="H,W")
    group.value("--dymDims --dym_dims -dd", 'the dims gear, such as "data:1,600;info:1,600"', dest="dym_dims", type=shape_list)
    group.value("--dymShape --dym_shape -ds", 'the shapes, such as "data:1,600;info:1,600"', dest="dym_shape", type=shape_list)
    group.value(
        "--dymShape_range --dymShape-range --dym_shape_range -dr",
        'many shapes one after the other, such as "data:1,600~700;info:1,600-700" (~ a range, ~ again its step, - a choice), '
        "or an .info file with one such text in each line",
        dest="dym_shape_range",
        type=_range_or_file,
    )
    group.value(
        "--outputSize --output_size -outsize", "bytes of each output, comma-separated", dest="output_size", type=_numbers
    )
    group.switch("--auto_set_dymshape_mode -asdsm", "take the shapes from each .npy file")
    group.switch("--auto_set_dymdims_mode -asddm", "take the gear from each .npy file")
    group.value("--aipp_config -aipp", "the settings of dynamic AIPP: an INI file with a section [aipp_op]", type=_file)


def _add_measuring(group: _Adder) -> None:
    group.switch("--display_all_summary -das", "also print the times of copies to and from the device")
    group.switch("--profiler -pf", "profile, with msprof if it is installed (AIT_NO_MSPROF_MODE=1: without msprof)")
    group.switch("--profiler_rename", "add the model's name to the names of the profile's files", default=True)
    group.switch("--dump", "dump the operators' data with AscendCL")
    group.switch("--dump_npy", "convert the dump to .npy")
    group.value("--acl_json_path -acl", "AscendCL's settings for profiling and dump", type=_file)
    group.switch("--energy_consumption -ec", "measure energy with npu-smi")
    group.value(
        "--npu_id",
        "the NPU's number in npu-smi, or a list with one for each device (%(default)s)",
        type=ids_to(2048),
        default=0,
        metavar="ID",
    )
    group.value("--backend", "the other engine for --perf", choices=("trtexec",))
    group.switch("--perf", "measure the engine of --backend")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the values. Exit with code 2 for an unknown option or an invalid value."""
    return parser.parse_args(list(arguments))
