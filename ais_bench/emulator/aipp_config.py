"""Read the AIPP configuration file of ATC (`--insert_op_conf`): protobuf text with one `aipp_op { ... }` for each input."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ais_bench.errors import ConfigError, file_error
from ais_bench.options import as_path, wrong

FORMATS = ("YUV420SP_U8", "XRGB8888_U8", "RGB888_U8", "YUV400_U8")

_TOKEN = re.compile(r"""\s*(?:\#[^\n]*\n?|([A-Za-z_]\w*)|(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|"([^"]*)"|([:{},;\[\]]))""")
_INTEGERS = {
    "related_input_rank": (0, 1023),
    "max_src_image_size": (1, 1 << 40),
    "src_image_size_w": (0, 4096),
    "src_image_size_h": (0, 4096),
    "load_start_pos_w": (0, 4095),
    "load_start_pos_h": (0, 4095),
    "crop_size_w": (0, 4096),
    "crop_size_h": (0, 4096),
    "left_padding_size": (0, 32),
    "right_padding_size": (0, 32),
    "top_padding_size": (0, 32),
    "bottom_padding_size": (0, 32),
    **{f"matrix_r{row}c{column}": (-32768, 32767) for row in range(3) for column in range(3)},
    **{f"{side}_bias_{channel}": (0, 255) for side in ("input", "output") for channel in range(3)},
    **{f"mean_chn_{channel}": (0, 255) for channel in range(4)},
}
_REALS = {
    **{f"min_chn_{channel}": (0.0, 255.0) for channel in range(4)},
    **{f"var_reci_chn_{channel}": (-65504.0, 65504.0) for channel in range(4)},
}
_SWITCHES = ("crop", "padding", "csc_switch", "rbuv_swap_switch", "ax_swap_switch")

AippEntry = dict[str, int | float | str]


def read_aipp_config(path: str | os.PathLike[str]) -> list[AippEntry]:
    """Return the operators of the file in the form of the container's description: `input`, `mode` and the settings.

    Raises ConfigError for a setting that is unknown, out of range or not emulated, such as resizing (`scf_switch`).
    """
    entries = []
    try:
        text = Path(as_path("insert_op_conf", path)).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise file_error(error, "read the AIPP configuration") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text: {error}") from None
    for index, settings in enumerate(_operators(text)):
        entries.append(_entry(index, settings))
    if not entries:
        raise ConfigError(f"{path} has no aipp_op")
    return entries


def _entry(index: int, settings: dict[str, str]) -> AippEntry:
    mode = settings.pop("aipp_mode", "static")
    if mode not in ("static", "dynamic"):
        raise wrong("aipp_mode", "'static' or 'dynamic'", mode)
    entry: AippEntry = {"input": _integer("related_input_rank", settings.pop("related_input_rank", str(index))), "mode": mode}
    settings.pop("input_edge_idx", None)
    for name, text in settings.items():
        if name in _SWITCHES:
            entry[name] = int(_switch(name, text))
        elif name in _INTEGERS:
            entry[name] = _integer(name, text)
        elif name in _REALS:
            entry[name] = _real(name, text)
        elif name == "input_format":
            if text not in FORMATS:
                raise ConfigError(f"input_format must be one of {', '.join(FORMATS)}, got {text}")
            entry[name] = text
        elif name in ("resize", "scf_switch") and not _switch(name, text):
            continue
        else:
            raise ConfigError(f"the AIPP setting {name} does not exist or is not emulated")
    needed = "max_src_image_size" if mode == "dynamic" else "input_format"
    if needed not in entry:
        raise ConfigError(f"{mode} AIPP needs {needed}")
    return entry


def _switch(name: str, text: str) -> bool:
    if text not in ("true", "false", "0", "1"):
        raise wrong(name, "true or false", text)
    return text in ("true", "1")


def _integer(name: str, text: str) -> int:
    low, high = _INTEGERS[name]
    return int(_number(int, name, text, low, high))


def _real(name: str, text: str) -> float:
    low, high = _REALS[name]
    return float(_number(float, name, text, low, high))


def _number(kind: type[int] | type[float], name: str, text: str, low: float, high: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = high + 1
    if not low <= value <= high:
        raise wrong(name, f"{'an integer' if kind is int else 'a number'} from {low:g} to {high:g}", text)
    return value


def _operators(text: str) -> list[dict[str, str]]:
    tokens = _tokens(text)
    operators = []
    while tokens:
        if tokens[:2] != ["aipp_op", "{"]:
            raise ConfigError(f"expected 'aipp_op {{', got {' '.join(tokens[:2])!r}")
        del tokens[:2]
        settings: dict[str, str] = {}
        while tokens and tokens[0] != "}":
            if tokens[0] in (",", ";"):
                del tokens[0]
                continue
            if len(tokens) < 3 or tokens[1] != ":":
                raise ConfigError(f"expected 'name: value', got {' '.join(tokens[:3])!r}")
            settings[tokens[0]] = tokens[2]
            del tokens[:3]
        if not tokens:
            raise ConfigError("an aipp_op has no closing '}'")
        del tokens[0]
        operators.append(settings)
    return operators


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ConfigError(f"{text[at : at + 20]!r} is not protobuf text")
        at = found.end()
        token = next((group for group in found.groups() if group is not None), None)
        if token is not None:
            tokens.append(token)
    return tokens
