"""The checks of options and arguments, and the texts of their errors: "NAME must be ..., got ...".

Every function returns the value in the form that the rest of the code uses. If the value is invalid, it raises ConfigError
(ConfigTypeError for a value of the wrong type) before anything is opened or changed.
"""

from __future__ import annotations

import errno
import numbers
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ais_bench import _native
from ais_bench.errors import ConfigError, ConfigTypeError, FileMissing, ModelLoadError

__all__ = [
    "absolute",
    "absolute_path",
    "as_bool",
    "as_callable",
    "as_chain",
    "as_choice",
    "as_device_id",
    "as_device_ids",
    "as_fallback",
    "as_folder",
    "as_int",
    "as_iterable",
    "as_list",
    "as_mode",
    "as_model",
    "as_path",
    "as_provider",
    "as_runtime",
    "as_seconds",
    "as_share_weights",
    "as_text",
    "check_affinity",
    "check_custom_sizes",
    "check_names",
    "check_on_error",
    "check_spin",
    "host_register_option",
    "known_options",
    "refuse_on_npu",
    "runtime_of",
    "runtime_options",
    "unknown_argument",
    "wrong",
    "wrong_type",
]

OnError = Literal["raise", "return"]

MODES = ("static", "dymbatch", "dymhw", "dymdims", "dymshape")  # a mode is sent to a worker as its index in this tuple
GRAPH_OPTIMIZATION_LEVELS = ("disable", "basic", "extended", "layout", "all")
NPU_OPTIONS = ("acl_json_path", "weight_dir", "share_workspace", "host_register")
LARGEST_INT = 2**31 - 1


# ---- the wording ----


def wrong(name: str, wanted: str, given: Any, advice: str = "") -> ConfigError:
    """Return the error for a value that has the right type but is invalid."""
    return ConfigError(f"{name} must be {wanted}, got {reprlib.repr(given)}{advice}")


def wrong_type(name: str, wanted: str, given: Any, advice: str = "") -> ConfigTypeError:
    """Return the error for a value of the wrong type."""
    return ConfigTypeError(f"{name} must be {wanted}, got {reprlib.repr(given)}{advice}")


def nearest(name: Any, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'?" if one of the known names is close to `name`, otherwise ""."""
    import difflib  # here, because only mistakes need it

    close = difflib.get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(names: Iterable[str]) -> str:
    """Return "'a', 'b' or 'c'"."""
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last


def check_names(given: Iterable[str], known: Iterable[str], what: str = "option") -> None:
    """Raise ConfigTypeError for an unknown name, with the nearest known name."""
    known = list(known)
    for name in given:
        if name not in known:
            advice = nearest(name, known) or f"; use {one_of(known)}"
            raise ConfigTypeError(f"unknown {what} {reprlib.repr(name)}{advice}")


def known_options(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments of a function, a method or a class, without `self` and those behind `**`."""
    function = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    code = getattr(function, "__wrapped__", function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name != "self"]


def unknown_argument(unknown: Iterable[str], function: Callable[..., Any]) -> ConfigTypeError:
    """Return the error for unknown keyword arguments of a function. It names the first one and the nearest valid name."""
    name, known = next(iter(unknown)), known_options(function)
    advice = nearest(name, known) or f"; it takes {one_of(known)}"
    return ConfigTypeError(f"{function.__qualname__} takes no argument {name!r}{advice}")


# ---- numbers ----


def as_int(name: str, value: Any, low: int, high: int = LARGEST_INT, *, optional: bool = False) -> Any:
    """Return `value` as an int in [low, high], or None if it is None and `optional`. Raises ConfigError.

    Accepts ints, numpy ints and texts of decimal digits ("0"), but no bool and no float.
    """
    or_none = " or None" * optional
    if optional and value is None:
        return None
    try:
        if isinstance(value, bool) or type(value).__name__ == "bool_":
            raise TypeError
        number = _digits(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise wrong_type(name, f"an integer{or_none}", value) from None
    if number < low:
        raise wrong(name, f"at least {low}{or_none}", number)
    if number > high:
        raise wrong(name, f"at most {high}{or_none}", number)
    return number


def _digits(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):  # int() also takes " 0", "+0" and "1_0"
        raise ValueError
    return int(text)


def as_device_id(value: Any) -> int:
    """Return a device id as an int of at least 0. Accepts ints, numpy ints and texts of digits. Raises
    ConfigError."""
    number: int = as_int("device_id", value, 0)
    return number


def as_device_ids(devices: Any) -> tuple[int, ...]:
    """Return device ids in the given order. `devices` is one id or an iterable of ids. Raises ConfigError, also for an empty
    iterable and for a repeated id."""
    if isinstance(devices, str) or not _iterates(devices):
        devices = [devices]
    ids = tuple(as_device_id(device) for device in devices)
    if not ids:
        raise wrong("devices", "at least one device id", list(ids))
    repeated = sorted({device for device in ids if ids.count(device) > 1})
    if repeated:
        raise ConfigError(
            f"devices must name each device once, got {repeated} twice; workers_per_device=2 runs two workers on one device"
        )
    return ids


def as_seconds(name: str, value: Any, *, optional: bool = False, zero: bool = False) -> Any:
    """Return `value`, a time in seconds: above 0, or also 0 with `zero`, or None with `optional`. Raises
    ConfigError."""
    if optional and value is None:
        return None
    wanted = f"a {'non-negative' if zero else 'positive'} number of seconds{' or None' * optional}"
    if not _is_number(value):
        raise wrong_type(name, wanted, value)
    if not (0 < value < 1e9 or (zero and value == 0)):
        raise wrong(name, wanted, value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_spin(value: Any) -> None:
    """Raise ConfigError unless `value`, the time for which a waiting process spins, is "auto" or 0 to 10000 microseconds."""
    if (isinstance(value, str) and value == "auto") or (_is_number(value) and 0 <= value <= 10_000):
        return
    raise (wrong if _is_number(value) else wrong_type)("spin", '"auto" or 0 to 10000 microseconds', value)


def check_affinity(affinity: Any) -> None:
    """Raise ConfigError unless the processors of workers are "auto", "split", "none" or {device id: [processors]}."""
    if isinstance(affinity, str) and affinity in ("auto", "split", "none"):
        return
    if isinstance(affinity, Mapping) and all(
        not isinstance(device, str)
        and isinstance(cpus, Sequence)
        and not isinstance(cpus, str)
        and len(cpus) > 0
        and all(isinstance(cpu, numbers.Integral) and 0 <= int(cpu) < LARGEST_INT for cpu in cpus)
        for device, cpus in affinity.items()
    ):
        return
    kind = wrong if isinstance(affinity, (str, Mapping)) else wrong_type
    raise kind("affinity", '"auto", "split", "none" or {device id: [processors]}', affinity)


# ---- words ----


def as_text(name: str, value: Any) -> str:
    """Return `value`, a str. Raises ConfigTypeError."""
    if not isinstance(value, str):
        raise wrong_type(name, "a str", value)
    return value


def as_bool(name: str, value: Any) -> bool:
    """Return `value` as a bool. Accepts bools, numpy bools, the ints 0 and 1, and None for False. Raises
    ConfigTypeError."""
    if (
        value is None
        or isinstance(value, bool)
        or type(value).__name__ == "bool_"
        or (isinstance(value, numbers.Integral) and value in (0, 1))
    ):
        return bool(value)
    raise wrong_type(name, "True or False", value)


def as_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value`, one of the texts in `choices`. Raises ConfigError."""
    if isinstance(value, str) and value in choices:
        return value
    kind = wrong if isinstance(value, str) else wrong_type
    raise kind(name, f"one of {', '.join(map(repr, choices))}", value, nearest(value, choices))


def as_mode(mode: Any) -> int:
    """Return the number that stands for an infer mode in a task. Raises ConfigError."""
    return MODES.index(as_choice("mode", mode, MODES))


def check_on_error(value: Any) -> OnError:
    """Return `value`, which says what happens to errors of single items: "raise" or "return". Raises ConfigError."""
    return as_choice("on_error", value, ("raise", "return"))  # type: ignore[return-value]


# ---- objects ----


def as_callable(name: str, value: Any) -> Callable[[Any], Any]:
    """Return `value`, a callable. Raises ConfigTypeError."""
    if not callable(value):
        raise wrong_type(name, "callable", value)
    return value  # type: ignore[no-any-return]


def as_iterable(name: str, value: Any, of: str) -> Iterable[Any]:
    """Return `value`, an iterable that is neither a text nor a mapping. Raises ConfigTypeError."""
    if isinstance(value, (str, bytes, Mapping)) or not _iterates(value):
        raise wrong_type(name, f"an iterable of {of}", value)
    return value  # type: ignore[no-any-return]


def as_list(name: str, value: Any, of: str) -> list[Any]:
    """Return the entries of an iterable that is neither a text nor a mapping. Raises ConfigTypeError."""
    if isinstance(value, (str, bytes, Mapping)) or not _iterates(value):
        raise wrong_type(name, f"a list of {of}", value)
    return list(value)


def _iterates(value: Any) -> bool:
    """Return whether `iter` accepts the value. An array without dimensions is an Iterable by its class, but cannot iterate."""
    return isinstance(value, Iterable) and getattr(value, "shape", None) != ()


def as_chain(value: Any) -> list[int]:
    """Return an `in_out_list` as a list of ints. Raises ConfigError."""
    if isinstance(value, (str, bytes, Mapping)) or not _iterates(value):
        raise wrong_type("in_out_list", "a list with the index of an output, or -1, for each input", value)
    chain = []
    for place, index in enumerate(value):
        try:
            chain.append(as_int(f"in_out_list[{place}]", index, -1))
        except ConfigTypeError:
            raise wrong_type(
                f"in_out_list[{place}]", "an integer, the index of an output or -1 to keep the input", index
            ) from None
        except ConfigError:
            raise wrong(f"in_out_list[{place}]", "the index of an output, or -1 to keep the input", index) from None
    return chain


def as_path(name: str, value: Any) -> str:
    """Return a path as text. Accepts str, bytes and Path. Raises ConfigError."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise wrong_type(name, "a path (str or Path)", value)
    path = os.fsdecode(value)
    if "\0" in path:  # the operating system would read the path only up to there
        raise wrong(name, "a path without NUL characters", path)
    return path


def as_folder(name: str, value: Any) -> str:
    """Return the absolute path of an existing folder, as text. Raises ConfigError, FileMissing."""
    path = _from_root(as_path(name, value))
    if not os.path.isdir(path):
        raise wrong(name, "the path of a folder", os.fsdecode(value))
    return path


def absolute_path(name: str, value: Any) -> str | None:
    """Return a path that stays valid in another process and after a change of the folder; None for None and "".
    Raises ConfigError, FileMissing."""
    text = "" if value is None else as_path(name, value)
    return _from_root(text) if text else None


def _from_root(path: str) -> str:
    """Return os.path.abspath of a path. Raises FileMissing for a relative path if the working directory was deleted."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError as error:
        gone = "the working directory does not exist any more, so a relative path leads nowhere; pass an absolute one"
        raise FileMissing(errno.ENOENT, gone, path) from error


def as_model(value: Any) -> str | bytes:
    """Return a model's path as text, or its content as bytes. Raises ConfigError."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, os.PathLike)):
        return as_path("model_path", value)
    raise wrong_type("model_path", "a path (str or Path) or the model's content as bytes", value)


def absolute(model: str | bytes) -> str | bytes:
    """Return a model with an absolute path, so that a worker that starts later finds the same file. Raises
    ModelLoadError."""
    if not isinstance(model, str):
        return model
    try:
        return _from_root(model)
    except FileMissing as error:
        raise ModelLoadError(f"cannot load the model {model!r}: {error.strerror}") from error


def check_custom_sizes(sizes: Any, outputs: int = 0) -> list[int]:
    """Check the output sizes of a `dymshape` run: an int, a sequence of ints, or None. Raises ConfigTypeError.

    They are a hint and never limit a result. Returns one number of bytes for each of `outputs` outputs, 0 without a hint.
    """
    if sizes is None or _is_size(sizes):
        return [_hint(sizes or 0)] * outputs
    if not isinstance(sizes, (str, bytes, Mapping)) and _iterates(sizes):
        sizes = list(sizes)
        if all(map(_is_size, sizes)):
            return [_hint(size) for size in sizes]
    raise wrong_type("custom_sizes", "a number of bytes, a list with one number for each output, or None", sizes)


def _is_size(value: Any) -> bool:
    return isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())  # programs write 1e9


def _hint(size: Any) -> int:
    return min(max(int(size), 0), 2**62)


# ---- the runtime and its options ----


def runtime_options(
    threads: Any = None,
    graph_optimization_level: str | None = None,
    provider_options: Mapping[str, Any] | None = None,
    weight_dir: Any = None,
    profile: Any = None,
    custom_ops: Any = None,
) -> dict[str, str]:
    """Return a session's options in the runtime's form: texts by name. The runtime refuses names that it does not know.
    Raises ConfigError."""
    if provider_options is not None and not isinstance(provider_options, Mapping):
        raise wrong_type("provider_options", "a mapping from option names to values, or None", provider_options)
    options = {str(name): _option_text(value) for name, value in (provider_options or {}).items()}
    if threads is not None:
        options["threads"] = str(as_int("threads", threads, 1, 1024))
    if graph_optimization_level is not None:
        level = as_choice("graph_optimization_level", graph_optimization_level, GRAPH_OPTIMIZATION_LEVELS)
        options["graph_optimization_level"] = level
    if weight_dir is not None:
        options["weight_dir"] = as_folder("weight_dir", weight_dir)
    if (prefix := absolute_path("profile", profile)) is not None:
        options["profile"] = prefix
    if custom_ops is not None:
        given = [custom_ops] if isinstance(custom_ops, (str, os.PathLike)) else as_list("custom_ops", custom_ops, "libraries")
        options["custom_ops"] = "\n".join(_from_root(as_path("an entry of custom_ops", path)) for path in given)
    return options


def _option_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def as_provider(value: Any) -> str | None:
    """Return `provider`, the name of an execution provider; None for None and for "cpu". Raises ConfigTypeError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type("provider", "the name of an execution provider, 'auto' or None", value)
    return None if value.lower() == "cpu" else value


def as_fallback(value: Any) -> str:
    """Return `fallback`: what happens to nodes that a provider does not support, "cpu" or "error". Raises
    ConfigError."""
    return as_choice("fallback", value, ("cpu", "error"))


def as_share_weights(value: Any) -> bool | None:
    """Return `share_weights`: True, False, or None for "auto". Raises ConfigError."""
    if isinstance(value, str):
        as_choice("share_weights", value, ("auto",))
        return None
    if not isinstance(value, bool):
        raise wrong_type("share_weights", "'auto', True or False", value)
    return value


def host_register_option(value: Any, runtime: str) -> dict[str, str]:
    """Return `host_register` in the runtime's form: empty for "auto", and for a CPU device, which copies nothing.
    Raises ConfigError."""
    choice = as_choice("host_register", value, ("auto", "off", "on"))
    return {} if choice == "auto" or runtime == "ort" else {"host_register": choice}


def refuse_on_npu(options: Iterable[str]) -> None:
    """Raise ConfigError for an option that a session on an NPU would refuse, before any worker is started."""
    for name in options:
        if name not in NPU_OPTIONS:
            raise ConfigError(f"unknown option {name!r} for a model on an NPU; use {' or '.join(map(repr, NPU_OPTIONS))}")


def as_runtime(value: Any) -> str | None:
    """Return "ort", "acl" or None. Raises ConfigError."""
    if value is None or (isinstance(value, str) and value in ("ort", "acl")):
        return value
    if not isinstance(value, str):
        raise wrong_type("runtime", "'ort' (ONNX Runtime), 'acl' (AscendCL) or None", value)
    raise ConfigError(f"unknown runtime {reprlib.repr(value)}; use 'ort' (ONNX Runtime) or 'acl' (AscendCL)")


def runtime_of(model: str | bytes, wanted: Any = None) -> str:
    """Return the wanted runtime, or the one that the model's content needs: "ort" or "acl". Also raises ModelLoadError."""
    if as_runtime(wanted) is not None:
        return str(wanted)
    if isinstance(model, str):
        return _native.runtime_for(os.fsencode(model))  # the file's name does not matter
    return _native.runtime_for_content(model)
