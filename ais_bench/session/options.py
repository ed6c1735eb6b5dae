"""Checking what callers pass as options, before anything is opened."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from ais_bench import _native
from ais_bench.errors import ConfigError

__all__ = [
    "absolute",
    "as_callable",
    "as_chain",
    "as_int",
    "as_model",
    "as_text",
    "check_custom_sizes",
    "check_on_error",
    "refuse_on_npu",
    "runtime_of",
    "runtime_options",
]

OnError = Literal["raise", "return"]

GRAPH_OPTIMIZATION_LEVELS = ("disable", "basic", "extended", "layout", "all")


def as_int(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return `value` as an int in [low, high]. Takes ints, numpy ints and their texts ("0"), but no bool and no float."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {reprlib.repr(value)}; it is a whole number") from None
    if not low <= number <= high:
        raise ConfigError(f"{name} is {number}; it is a whole number from {low} to {high}")
    return number


def as_text(name: str, value: Any) -> str:
    """Return `value`, which is a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {reprlib.repr(value)}; it is a text")
    return value


def as_callable(name: str, value: Any) -> Callable[[Any], Any]:
    """Return `value`, which can be called."""
    if not callable(value):
        raise ConfigError(f"{name} is {reprlib.repr(value)}; it is a function, or another object that can be called")
    return value  # type: ignore[no-any-return]


def as_chain(value: Any) -> list[int]:
    """Return an `in_out_list` as a list of ints."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"in_out_list is {reprlib.repr(value)}; it is a list with an output's index, or -1, for each input")
    return [as_int("in_out_list entry", index, -(2**31)) for index in value]


def as_model(value: Any) -> str | bytes:
    """Return a model's path as text, or its content as bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, os.PathLike)):
        path = os.fsdecode(value)
        if "\0" in path:  # the operating system would read the path only up to there
            raise ConfigError(f"model_path is {path!r}; a path holds no NUL character")
        return path
    raise ConfigError(f"model_path is a {type(value).__name__}; it is a path (str or Path), or the model's content as bytes")


def check_custom_sizes(sizes: Any, outputs: int = 0) -> list[int]:
    """Check the output sizes of a `dymshape` run: an int, a sequence of ints, or None.

    They are a hint and never limit a result. Returns them as one number of bytes for each of `outputs` outputs, 0 for none.
    """
    if sizes is None or isinstance(sizes, (int, np.integer)):
        return [_hint(sizes or 0)] * outputs
    if isinstance(sizes, (list, tuple, np.ndarray)) and all(isinstance(size, (int, np.integer)) for size in sizes):
        return [_hint(size) for size in sizes]
    raise ConfigError(
        f"custom_sizes is {reprlib.repr(sizes)}; it is a number of bytes, a list with one for each output, or None"
    )


def _hint(size: Any) -> int:
    return min(max(int(size), 0), 2**62)


def runtime_options(
    threads: Any = None, graph_optimization_level: str | None = None, provider_options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Gather a session's options as the runtime takes them: texts by name. The runtime refuses names it does not know."""
    if provider_options is not None and not isinstance(provider_options, Mapping):
        raise ConfigError(f"provider_options is {reprlib.repr(provider_options)}; it is a mapping from option names to values")
    options = {str(name): _text(value) for name, value in (provider_options or {}).items()}
    if threads is not None:
        options["threads"] = str(as_int("threads", threads, 1, 1024))
    if graph_optimization_level is not None:
        if graph_optimization_level not in GRAPH_OPTIMIZATION_LEVELS:
            names = ", ".join(GRAPH_OPTIMIZATION_LEVELS)
            raise ConfigError(f"graph_optimization_level is {graph_optimization_level!r}; it is one of: {names}")
        options["graph_optimization_level"] = graph_optimization_level
    return options


def refuse_on_npu(options: Mapping[str, str]) -> None:
    """Raise ConfigError for an option that a session on an NPU would refuse, before any worker is started."""
    for name in options:
        if name != "acl_json_path":
            raise ConfigError(f"there is no option {name!r} for models on an NPU; there is acl_json_path")


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def absolute(model: str | bytes) -> str | bytes:
    """A worker that starts later must find the same file, wherever this process has gone since."""
    return os.path.abspath(model) if isinstance(model, str) else model


def runtime_of(model: str | bytes, wanted: str | None = None) -> str:
    """The runtime that is wanted, or that a model's content asks for: "ort" or "acl". Raises ConfigError, ModelLoadError."""
    if wanted not in (None, "ort", "acl"):
        raise ConfigError(f"there is no runtime {reprlib.repr(wanted)}; there are 'ort' (ONNX Runtime) and 'acl' (AscendCL)")
    if wanted is not None:
        return wanted
    if isinstance(model, str):
        return _native.runtime_for(os.fsencode(model))  # whatever the file is called
    return _native.runtime_for_content(model)


def check_on_error(value: Any) -> OnError:
    """Return `value`, which says where errors of single items go."""
    if value not in ("raise", "return"):
        raise ConfigError(f'on_error is "raise" or "return", not {value!r}')
    return value  # type: ignore[no-any-return]
