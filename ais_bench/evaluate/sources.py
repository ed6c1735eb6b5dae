"""Data sets by protocol: objects that are read by index, iterables, and files.

No library of data sets is imported. An object with `__len__` and `__getitem__` is read by index, in the worker. Any other
object with `__iter__` is iterated in the calling process, and its samples are sent to the workers.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ais_bench.errors import ConfigError, FeedError
from ais_bench.tuning import TRAVELS_AS_ONE

__all__ = ["Files", "MappedArray", "SampleSource", "natural_order", "source_of"]

SUFFIXES = (".npy", ".bin")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def natural_order(name: str) -> list[Any]:
    """Return the key that sorts img2 before img10. Texts and numbers alternate in it, so any two keys can be compared."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]


class Files:
    """Files as a data set: `.npy` as its array, an image as uint8 (height, width, channels), anything else as its bytes."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.paths[index]
        suffix = os.path.splitext(path)[1].lower()
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if suffix not in IMAGES:
            return np.fromfile(path, np.uint8)
        try:
            from PIL import Image
        except ImportError:
            raise FeedError(f"{path} is an image, and reading it takes Pillow: pip install pillow") from None
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))


class MappedArray:
    """An array in a file (`np.memmap`). Workers get the file's name."""

    def __init__(self, array: Any) -> None:
        self._where = (os.path.abspath(array.filename), array.dtype, array.offset, array.shape)
        self._array = array

    def __len__(self) -> int:
        return int(self._where[3][0])

    def __getitem__(self, index: int) -> Any:
        return np.asarray(self._array[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_mapped, self._where


def _open_mapped(path: str, kind: Any, offset: int, shape: tuple[int, ...]) -> MappedArray:
    return MappedArray(np.memmap(path, kind, "r", offset, shape))


class SampleSource:
    """The samples of one evaluation, in order.

    Attributes:
        data: the object that the worker reads by index; None if samples are sent.
        count: the number of samples; None if it is not known before the end.
        kind: the description in the run folder.
    """

    def __init__(self, data: Any, count: int | None, kind: str, walk: Iterable[Any] | None = None) -> None:
        self.data, self.count, self.kind = data, count, kind
        self._walk = walk
        self._chosen: list[int] | None = None

    def choose(self, limit: int | None, seed: int | None) -> None:
        """Keep `limit` samples: the first ones, or with a seed random ones, in their own order. Raises ConfigError."""
        if limit is None:
            return
        if seed is None:
            self.count = limit if self.count is None else min(limit, self.count)
            if self.data is None and self._walk is not None:
                self._walk = itertools.islice(self._walk, limit)
            return
        if self.count is None or self.data is None:
            raise ConfigError("limit with a seed needs a data set with __len__ and __getitem__; this one can only be iterated")
        if limit < self.count:
            self._chosen = sorted(random.Random(seed).sample(range(self.count), limit))
            self.count = limit

    def name(self, index: int) -> str:
        """Return the id of a sample: its file's name, or its index."""
        return os.path.basename(self.data.paths[index]) if isinstance(self.data, Files) else str(index)

    def items(self) -> Iterator[tuple[int, Any]]:
        """Yield (index, sample) in order. The sample is None if the worker reads it."""
        if self._walk is not None:
            yield from enumerate(self._walk)
        else:
            yield from ((index, None) for index in (range(self.count or 0) if self._chosen is None else self._chosen))


def source_of(dataset: Any) -> SampleSource:
    """Return the samples of a data set. Raises ConfigError if the object is not a data set."""
    if isinstance(dataset, (str, os.PathLike)):
        return _files(_of_folder(os.fspath(dataset)), f"files of {os.path.abspath(os.fspath(dataset))}")
    if isinstance(dataset, Mapping):
        raise ConfigError(
            f"the data set must be a sequence, got a {type(dataset).__name__} with the keys {list(dataset)[:5]}; pass one of "
            "its parts"
        )
    if isinstance(dataset, (list, tuple)) and dataset and all(_is_path(entry) for entry in dataset):
        return _files([os.path.abspath(os.fspath(entry)) for entry in dataset], "files")
    if isinstance(dataset, np.memmap) and dataset.ndim and dataset.filename is not None:
        if dataset.flags["C_CONTIGUOUS"] and dataset.base is not None and not isinstance(dataset.base, np.ndarray):
            return SampleSource(MappedArray(dataset), len(dataset), "array in a file")
        return SampleSource(None, len(dataset), "array", dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return _indexed(dataset)
    if isinstance(dataset, Iterable):
        return SampleSource(None, _length(dataset), type(dataset).__qualname__, dataset)
    raise ConfigError(
        "the data set must have __len__ and __getitem__, or __iter__, or be a folder or a list of files, "
        f"got a {type(dataset).__name__}"
    )


def _indexed(dataset: Any) -> SampleSource:
    plain = type(dataset) in (list, tuple) or isinstance(dataset, np.ndarray)
    size = dataset.nbytes if isinstance(dataset, np.ndarray) else 0
    if plain and not size:
        size = sum(getattr(part, "nbytes", 0) for entry in dataset for part in (entry if type(entry) is tuple else (entry,)))
    if size > TRAVELS_AS_ONE:
        return SampleSource(None, len(dataset), type(dataset).__qualname__, dataset)
    return SampleSource(dataset, len(dataset), type(dataset).__qualname__)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _is_path(entry: Any) -> bool:
    if not isinstance(entry, (str, os.PathLike)):
        return False
    return os.path.splitext(os.fspath(entry))[1].lower() in (*SUFFIXES, *IMAGES)


def _files(paths: list[str], kind: str) -> SampleSource:
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise ConfigError(f"{len(missing)} of {len(paths)} files do not exist; the first is {missing[0]!r}")
    return SampleSource(Files(paths), len(paths), kind)


def _of_folder(path: str) -> list[str]:
    """Return the files of a folder in natural order. Sub-folders are skipped with a warning."""
    if os.path.isfile(path):
        return [os.path.abspath(path)]
    if not os.path.isdir(path):
        raise ConfigError(f"the data set must be a file or a folder, got {path!r}")
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries)
    folders = [name for name, is_folder in found if is_folder]
    names = [name for name, is_folder in found if not is_folder and _is_path(name)]
    if folders:
        warnings.warn(f"{path}: skipped the sub-folders {', '.join(map(repr, folders))}", stacklevel=4)
    if not names:
        raise ConfigError(
            f"the folder {path!r} has no samples; their names must end in one of {', '.join((*SUFFIXES, *IMAGES))}"
        )
    return [os.path.join(os.path.abspath(path), name) for name in sorted(names, key=natural_order)]
