"""The AIPP configuration file of ATC (`--insert_op_conf`): protobuf text with one `aipp_op { ... }` an input."""

from __future__ import annotations

import os
import re
from pathlib import Path

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
    """The operators of the file, in the form of the container's description: `input`, `mode` and the settings.

    ValueError names what is unknown, out of range or not emulated (resizing, `scf_switch`, is not).
    """
    entries = []
    for index, settings in enumerate(_operators(Path(path).read_text(encoding="utf-8-sig"))):
        entries.append(_entry(index, settings))
    if not entries:
        raise ValueError(f"{path} has no aipp_op")
    return entries


def _entry(index: int, settings: dict[str, str]) -> AippEntry:
    mode = settings.pop("aipp_mode", "static")
    if mode not in ("static", "dynamic"):
        raise ValueError(f"aipp_mode is {mode!r}; it is static or dynamic")
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
                raise ValueError(f"input_format {text} is not emulated; there are {', '.join(FORMATS)}")
            entry[name] = text
        elif name in ("resize", "scf_switch") and not _switch(name, text):
            continue
        else:
            raise ValueError(f"the AIPP setting {name} does not exist or is not emulated")
    needed = "max_src_image_size" if mode == "dynamic" else "input_format"
    if needed not in entry:
        raise ValueError(f"{mode} AIPP needs {needed}")
    return entry


def _switch(name: str, text: str) -> bool:
    if text not in ("true", "false", "0", "1"):
        raise ValueError(f"{name} is {text}; it is true or false")
    return text in ("true", "1")


def _integer(name: str, text: str) -> int:
    low, high = _INTEGERS[name]
    value = int(text)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it is {low} to {high}")
    return value


def _real(name: str, text: str) -> float:
    low, high = _REALS[name]
    value = float(text)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it is {low} to {high}")
    return value


def _operators(text: str) -> list[dict[str, str]]:
    tokens = _tokens(text)
    operators = []
    while tokens:
        if tokens[:2] != ["aipp_op", "{"]:
            raise ValueError(f"'aipp_op {{' is expected, and {' '.join(tokens[:2])!r} found")
        del tokens[:2]
        settings: dict[str, str] = {}
        while tokens and tokens[0] != "}":
            if tokens[0] in (",", ";"):
                del tokens[0]
                continue
            if len(tokens) < 3 or tokens[1] != ":":
                raise ValueError(f"'name: value' is expected, and {' '.join(tokens[:3])!r} found")
            settings[tokens[0]] = tokens[2]
            del tokens[:3]
        if not tokens:
            raise ValueError("an aipp_op does not end")
        del tokens[0]
        operators.append(settings)
    return operators


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at : at + 20]!r} is not protobuf text")
        at = found.end()
        token = next((group for group in found.groups() if group is not None), None)
        if token is not None:
            tokens.append(token)
    return tokens
