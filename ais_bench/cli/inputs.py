"""Turn `--input` into runs: assign files to each run, and check all files before the first run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ais_bench.cli.log import CliError, info, warning

__all__ = ["BadInput", "InputPlan", "NoShare", "file_lists", "made_up", "plan_of", "read_group", "share_of"]

SUFFIXES = (".npy", ".NPY", ".bin", ".BIN")
PURE = "pure_infer_data"
Run = list[list[str | None]]  # for each input its files; None: a copy of the run's first file fills the run


class InputPlan(NamedTuple):
    """The runs of a device.

    Attributes:
        runs: the files of each run, by input.
        per_run: files of one input in one run.
        samples: files of one input in all runs, without copies that fill a run.
    """

    runs: list[Run]
    per_run: int
    samples: int

    @property
    def padded(self) -> int:
        """The number of copies that fill the last run."""
        return len(self.runs) * self.per_run - self.samples


class NoShare(Exception):
    """There are fewer files than devices, so this device has none."""


class BadInput(CliError):
    """The files do not fit the model, or each other. Raised before anything runs."""


def file_lists(given: str, inputs: int) -> list[list[str]]:
    """Return the files of `--input`, a list for each input of the model. Raises BadInput."""
    paths = given.split(",")
    if os.path.isfile(paths[0]):
        others = [path for path in paths if not os.path.isfile(path)]
        if others:
            raise BadInput(f"--input begins with a file, so every path must be a file, got {others[0]!r}")
        if len(paths) % inputs or len(paths) < inputs:
            raise BadInput(f"the model has {inputs} inputs; {len(paths)} files cannot be divided equally among them")
        each = len(paths) // inputs
        return [paths[start : start + each] for start in range(0, len(paths), each)]
    if not os.path.isdir(paths[0]):
        raise BadInput(f"--input: {paths[0]!r} is neither a file nor a folder")
    if len(paths) != inputs:
        raise BadInput(f"the model has {inputs} inputs, so --input must have {inputs} folders, got {len(paths)}")
    lists = [_of_folder(path) for path in paths]
    counts = {path: len(files) for path, files in zip(paths, lists, strict=True)}
    if len(set(counts.values())) > 1:
        raise BadInput(
            f"the folders must have the same number of files, got: {', '.join(f'{p}: {n}' for p, n in counts.items())}"
        )
    return lists


def _of_folder(folder: str) -> list[str]:
    """Return the samples of a folder, in natural order of their paths."""
    if not os.path.isdir(folder):
        raise BadInput(f"--input begins with a folder, so every path must be a folder, got {folder!r}")
    names = sorted(os.listdir(folder))
    skipped = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    found = [os.path.join(folder, name) for name in names if name.endswith(SUFFIXES) and name not in skipped]
    if skipped:
        warning(f"{folder}: skipped the sub-folders {', '.join(skipped)}")
    if not found:
        raise BadInput(f"the folder {folder!r} holds no samples: no file that ends with {', '.join(SUFFIXES)}")
    return sorted(found, key=_natural)


def _natural(path: str) -> list[Any]:
    return [int(part) if part.isdigit() else part.lower() for part in re.split("([0-9]+)", path)]


def share_of(lists: list[list[str]], part: int, parts: int) -> list[list[str]]:
    """Return one of `parts` consecutive parts. The first parts have one more file if needed. Raises NoShare."""
    each, more = divmod(len(lists[0]), parts)
    low = part * each + min(part, more)
    mine = [files[low : low + each + (part < more)] for files in lists]
    if not mine[0]:
        raise NoShare(f"{len(lists[0])} files for {parts} devices")
    return mine


def plan_of(lists: list[list[str]], descs: Sequence[Any], options: Any) -> InputPlan:
    """Return the runs of these files, and print how many files a run takes. Raises BadInput for a file that does not fit."""
    by_shape = options.auto_set_dymshape_mode or options.auto_set_dymdims_mode
    per_run = 1
    if not options.pipeline:
        size = _bytes_of(lists[0][0])
        if not by_shape:
            per_run = _files_of_a_run(lists[0][0], size, descs[0])
        count = -(-len(lists[0]) // per_run)
        info(f"get filesperbatch files0 size:{size} tensor0size:{descs[0].realsize} filesperbatch:{per_run} runcount:{count}")
    runs = list(_runs(lists, per_run))
    if options.run_mode == "files" and not options.pipeline:
        _refuse_npy(lists)
    if not by_shape and not options.aipp_config:
        _check_sizes(runs, descs)
    return InputPlan(runs, per_run, len(lists[0]))


def _files_of_a_run(first: str, size: int, desc: Any) -> int:
    if size == 0 or desc.realsize == 0 or desc.realsize % size:
        raise BadInput(
            f"input {desc.name!r} takes {desc.realsize} bytes, shape {tuple(desc.shape)}; {first} has {size} bytes, "
            "and {desc.realsize} is not a multiple of that"
        )
    return int(desc.realsize // size)


def _runs(lists: list[list[str]], per_run: int) -> Iterator[Run]:
    for start in range(0, len(lists[0]), per_run):
        groups: Run = []
        for files in lists:
            group: list[str | None] = [*files[start : start + per_run]]
            groups.append(group + [None] * (per_run - len(group)))
        yield groups


def _check_sizes(runs: list[Run], descs: Sequence[Any]) -> None:
    for run in runs:
        for files, desc in zip(run, descs, strict=True):
            sizes = [_bytes_of(file or str(files[0])) for file in files]
            if sum(sizes) != desc.realsize:
                odd = next((f for f, size in zip(files, sizes, strict=True) if size * len(files) != desc.realsize), files[0])
                raise BadInput(
                    f"input {desc.name!r} takes {desc.realsize} bytes in files of {desc.realsize // len(files)}; {odd} has "
                    f"{_bytes_of(str(odd))}"
                )


def _refuse_npy(lists: list[list[str]]) -> None:
    for files in lists:
        for file in files:
            if file.endswith((".npy", ".NPY")):
                raise BadInput(f"--run_mode files sends a file's bytes unchanged, so it cannot use .npy files, got {file}")


def _bytes_of(path: str) -> int:
    """Return the number of bytes of a file; for .npy without the header. Raises BadInput."""
    try:
        if not path.endswith((".npy", ".NPY")):
            return os.path.getsize(path)
        try:
            return int(np.load(path, mmap_mode="r", allow_pickle=False).nbytes)
        except ValueError:  # an array without elements cannot be mapped
            return int(np.load(path, allow_pickle=False).nbytes)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def read_file(path: str) -> Any:
    """Return the array of an .npy file, or the bytes of any other file. Raises OSError, ValueError."""
    return np.load(path, allow_pickle=False) if path.endswith((".npy", ".NPY")) else np.fromfile(path, np.int8)


def read_group(files: Sequence[str | None]) -> Any:
    """Return the files of one input in one run, joined along axis 0. Raises CliError."""
    parts = [read_file(file or str(files[0])) for file in files]
    if len(parts) == 1:
        return parts[0]
    try:
        return np.concatenate(parts)
    except (ValueError, TypeError) as error:
        raise CliError(f"the files {[file for file in files if file]} cannot be joined to one array: {error}") from None


def made_up(desc: Any, kind: str) -> Any:
    """Return generated bytes for one input: zeros or random bytes."""
    if kind == "random":
        return np.random.default_rng().integers(0, 256, desc.realsize, np.uint8)
    return np.zeros(desc.realsize, np.uint8)
