"""Write results to files, with the names, bytes and modes of the original tool."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ais_bench.cli.inputs import PURE, BadInput, InputPlan, Run
from ais_bench.cli.log import CliError

__all__ = ["Saver", "check_names", "make_folder"]

FOLDER_MODE, FILE_MODE = 0o750, 0o640


def make_folder(path: str, output: str | None = None) -> None:
    """Make a folder for results. Other users have no access to it and to `--output`. Raises OSError."""
    if not os.path.exists(path):
        os.makedirs(path, FOLDER_MODE)
    if output is not None:
        os.chmod(output, FOLDER_MODE)


class Saver:
    """Writes the results of runs into a folder.

    Args:
        folder: the folder to write to.
        options: the options of the command line.
        note_in, note_out: called with a sample's number and its input files, or an output file.
    """

    def __init__(
        self, folder: str, options: Any, note_in: Callable[[int, Any], None], note_out: Callable[[int, str], None]
    ) -> None:
        self._folder, self._format, self._axis = folder, options.outfmt, options.output_batchsize_axis
        self._write = _WRITERS[options.outfmt]
        self._pipeline, self._whole_names = options.pipeline, options.keep_suffix
        self._note_in, self._note_out = note_in, note_out

    def save(self, number: int, run: Run, outputs: list[Any]) -> None:
        """Write the outputs of run `number`: one file for each output and each file of the first input. Raises CliError."""
        per_run = len(run[0])
        for index, output in enumerate(outputs):
            array = np.asarray(output)
            if self._axis >= array.ndim:
                raise CliError(f"output {index} has shape {array.shape}; --output_batchsize_axis {self._axis} is out of range")
            if per_run > 1 and array.shape[self._axis] % per_run:
                raise CliError(
                    f"output {index} has shape {array.shape}; its axis {self._axis} cannot be split into {per_run} parts, "
                    "one for each file of a run; choose another --output_batchsize_axis"
                )
            for place, part in enumerate(np.array_split(array, per_run, self._axis)):
                if run[0][place] is not None:
                    self._one(number * per_run + place, [str(files[place]) for files in run], index, part)

    def _one(self, sample: int, infiles: list[str], index: int, part: Any) -> None:
        path = os.path.join(self._folder, f"{stem_of(infiles[0], self._pipeline, self._whole_names)}_{index}")
        path = f"{path}.{self._format.lower()}"
        temporary = f"{path}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        with open(fd, "wb") as file:
            self._write(file, part)
        os.replace(temporary, path)
        if not self._pipeline:
            self._note_in(sample, infiles)
            self._note_out(sample, path)


def stem_of(path: str, pipeline: bool, whole: bool) -> str:
    """Return the stem of a result's name: the file's name up to its first dot; in a pipeline, up to its suffix."""
    name = os.path.basename(path)
    if whole:
        return name
    return os.path.splitext(name)[0] if pipeline else name.split(".")[0]


def check_names(plan: InputPlan, options: Any) -> None:
    """Raise BadInput if the results of two files would have the same name."""
    seen: dict[str, str] = {}
    for run in plan.runs:
        for file in run[0]:
            if file is None or file == PURE:
                continue
            other = seen.setdefault(stem_of(file, options.pipeline, options.keep_suffix), file)
            if os.path.abspath(other) != os.path.abspath(file):
                raise BadInput(
                    f"the results of {other} and {file} would have the same names; --keep_suffix makes them different"
                )


def _bin(file: BinaryIO, part: Any) -> None:
    file.write(np.ascontiguousarray(part).data)


def _npy(file: BinaryIO, part: Any) -> None:
    np.save(file, part)


def _txt(file: BinaryIO, part: Any) -> None:
    form = "%f " if part.dtype in (np.float16, np.float32, np.float64) else "%d "
    for row in part.reshape(-1, part.shape[-1]):
        file.write("".join([form % value for value in row.tolist()]).encode() + b"\n")


_WRITERS: dict[str, Callable[[BinaryIO, Any], None]] = {"BIN": _bin, "NPY": _npy, "TXT": _txt}
