"""Load Python objects that the command line names as `module:name` or `file.py:name`: data sets, functions, metrics."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import re
import sys
from typing import Any

from ais_bench.cli.log import CliError

__all__ = ["Labelled", "absolute_spec", "dataset_of", "load_object", "metric_of"]


def absolute_spec(spec: str | None) -> str | None:
    """Return the specification with an absolute path, so that it does not depend on the working directory."""
    if spec is None:
        return None
    if os.path.exists(spec):
        return os.path.abspath(spec)
    place, colon, name = spec.rpartition(":")
    return f"{os.path.abspath(place)}:{name}" if colon and place.endswith(".py") else spec


def load_object(spec: str) -> Any:
    """Return the named object. The file's folder is added to sys.path, because workers import it, too. Raises CliError."""
    place, colon, name = spec.rpartition(":")
    if not colon or not name:
        raise CliError(f"a Python object must be module:name or file.py:name, got {spec!r}")
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise CliError(f"{spec!r}: the file {place} does not exist")
        folder, place = os.path.split(os.path.abspath(place[:-3]))
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(place))
    except Exception as error:
        raise CliError(f"{spec!r} cannot be loaded: {type(error).__name__}: {error}") from error


class Labelled:
    """A data set of files with labels. A sample is (content, label)."""

    def __init__(self, files: Any, labels: list[Any]) -> None:
        self._files, self._labels = files, labels
        self.paths = files.paths

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Any:
        return self._files[index], self._labels[index]


def dataset_of(spec: str, labels: str | None) -> Any:
    """Return a data set: a folder, files, or an object. A function or a class is called without arguments. Raises CliError."""
    from ais_bench.evaluate.sources import Files, source_of

    if all(os.path.exists(path) for path in spec.split(",")):
        paths = spec.split(",")
        files = source_of(paths[0] if len(paths) == 1 else paths).data
        assert isinstance(files, Files)
        return files if labels is None else Labelled(files, _labels(labels, files.paths))
    if labels is not None:
        raise CliError("--labels needs a folder or a list of files as the data set")
    if ":" not in spec:
        raise CliError(f"the data set must be an existing file or folder, module:name or file.py:name, got {spec!r}")
    found = load_object(spec)
    plain = hasattr(found, "__getitem__") or hasattr(found, "__iter__")
    return found() if inspect.isclass(found) or (callable(found) and not plain) else found


def _labels(path: str, files: list[str]) -> list[Any]:
    """Return the label of each file, from a JSON object by name or from lines "name label". Raises CliError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        given = json.loads(text) if text.lstrip().startswith("{") else dict(_pairs(text))
    except (OSError, ValueError) as error:
        raise CliError(f"--labels {path} cannot be read: {error}") from None
    names = [os.path.basename(file) for file in files]
    missing = [name for name in names if name not in given and os.path.splitext(name)[0] not in given]
    if missing:
        raise CliError(
            f"--labels {path} must label all {len(names)} files; {len(missing)} are missing, the first is {missing[0]!r}"
        )
    return [given[name] if name in given else given[os.path.splitext(name)[0]] for name in names]


def _pairs(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for line in text.splitlines():
        parts = re.split(r"[\s,]+", line.strip(), maxsplit=1)
        if line.strip() and len(parts) == 2:
            found.append((parts[0], int(parts[1]) if re.fullmatch(r"-?\d+", parts[1]) else parts[1]))
    return found


def metric_of(spec: str) -> Any:
    """Return a built-in metric by its name, or an object. A class is called without arguments. Raises CliError."""
    from ais_bench.evaluate.metrics import EditDistance, MeanError, TopK

    name = spec.lower().replace("_", "-")
    if re.fullmatch(r"top-?\d+", name):
        return TopK(int(re.sub(r"\D", "", name)))
    if found := re.fullmatch(r"mean-(absolute|relative|cosine)-error", name):
        return MeanError(found[1])
    if name == "edit-distance":
        return EditDistance()
    if ":" not in spec:
        raise CliError(
            "--metric must be topN, mean-absolute-error, mean-relative-error, mean-cosine-error, edit-distance, module:name or "
            f"file.py:name, got {spec!r}"
        )
    found_object = load_object(spec)
    return found_object() if inspect.isclass(found_object) else found_object
