"""Checking what callers pass as options, before anything is opened."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ais_bench.errors import ConfigError

__all__ = ["as_int", "as_model", "check_custom_sizes", "runtime_options"]

GRAPH_OPTIMIZATION_LEVELS = ("disable", "basic", "extended", "layout", "all")


def as_int(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return `value` as an int in [low, high]. Takes ints, numpy ints and their texts ("0"), but no bool and no float."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; it is a whole number") from None
    if not low <= number <= high:
        raise ConfigError(f"{name} is {number}; it is a whole number from {low} to {high}")
    return number


def as_model(value: Any) -> str | bytes:
    """Return a model's path as text, or its content as bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        return os.fsdecode(path)
    raise ConfigError(f"model_path is a {type(value).__name__}; it is a path (str or Path), or the model's content as bytes")


def check_custom_sizes(sizes: Any) -> None:
    """Check the output sizes of a `dymshape` run: an int, a sequence of ints, or None.

    They are a hint and never limit a result.
    """
    if sizes is None or isinstance(sizes, (int, np.integer)):
        return
    if isinstance(sizes, (list, tuple, np.ndarray)) and all(isinstance(size, (int, np.integer)) for size in sizes):
        return
    raise ConfigError(f"custom_sizes is {sizes!r}; it is a number of bytes, a list with one for each output, or None")


def runtime_options(
    threads: Any = None, graph_optimization_level: str | None = None, provider_options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Gather a session's options as the runtime takes them: texts by name. The runtime refuses names it does not know."""
    options = {str(name): _text(value) for name, value in (provider_options or {}).items()}
    if threads is not None:
        options["threads"] = str(as_int("threads", threads, 1, 1024))
    if graph_optimization_level is not None:
        if graph_optimization_level not in GRAPH_OPTIMIZATION_LEVELS:
            names = ", ".join(GRAPH_OPTIMIZATION_LEVELS)
            raise ConfigError(f"graph_optimization_level is {graph_optimization_level!r}; it is one of: {names}")
        options["graph_optimization_level"] = graph_optimization_level
    return options


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
