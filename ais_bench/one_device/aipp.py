"""Dynamic AIPP: settings for pictures that an NPU preprocesses (crop, colours, normalisation, padding).

Every setting is checked here before the device gets it, and errors contain the allowed range.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ais_bench import _native
from ais_bench.errors import ConfigError, UnsupportedError, file_error
from ais_bench.options import as_choice, as_list, as_path, nearest, wrong, wrong_type

__all__ = ["AippMethods", "AippSettings", "read_aipp_config"]

FORMATS = {"YUV420SP_U8": 1, "XRGB8888_U8": 2, "RGB888_U8": 3, "YUV400_U8": 4}  # aclAippInputFormat
_SECTION = "aipp_op"
Number = int | float


@dataclass(frozen=True)
class _Key:
    """One key of the file: its list, its place in the list, its range, and its default value."""

    list: str
    index: int
    low: float
    high: float
    default: float = 0
    real: bool = False


def _keys() -> dict[str, _Key]:
    keys = {"csc_switch": _Key("csc", 0, 0, 1), "crop": _Key("crop", 0, 0, 1), "padding": _Key("padding", 0, 0, 1)}
    for place in range(9):
        keys[f"matrix_r{place // 3}c{place % 3}"] = _Key("csc", 1 + place, -32768, 32767)
    for channel in range(3):
        keys[f"output_bias_{channel}"] = _Key("csc", 10 + channel, 0, 255)
        keys[f"input_bias_{channel}"] = _Key("csc", 13 + channel, 0, 255)
    for place, name in enumerate(("load_start_pos_w", "load_start_pos_h")):
        keys[name] = _Key("crop", 1 + place, 0, 4095)
    for place, name in enumerate(("crop_size_w", "crop_size_h")):
        keys[name] = _Key("crop", 3 + place, 0, 4096)
    keys["resize"] = _Key("resize", 0, 0, 1)
    for place, name in enumerate(("resize_input_w", "resize_input_h", "resize_output_w", "resize_output_h")):
        keys[name] = _Key("resize", 1 + place, 16, 1920 if name == "resize_output_w" else 4096)
    for place, side in enumerate(("top", "bottom", "left", "right")):
        keys[f"{side}_padding_size"] = _Key("padding", 1 + place, 0, 32)
    for channel in range(4):
        keys[f"mean_chn_{channel}"] = _Key("mean", channel, 0, 255)
        keys[f"min_chn_{channel}"] = _Key("min", channel, 0, 255, real=True)
        # The default is 1, because a 0 would turn the channel black.
        keys[f"var_reci_chn_{channel}"] = _Key("reciprocal", channel, -65504, 65504, 1, real=True)
    return keys


_KEYS = _keys()
_SIZES = {"csc": 16, "crop": 5, "resize": 5, "padding": 5, "mean": 4, "min": 4, "reciprocal": 4}
_OTHER_KEYS = (
    "related_input_rank",
    "input_format",
    "src_image_size_w",
    "src_image_size_h",
    "rbuv_swap_switch",
    "ax_swap_switch",
)
_IGNORED_KEYS = ("aipp_mode", "max_src_image_size")  # only for the compiler's file, which has the same form


@dataclass
class AippSettings:
    """Settings of one picture input, the same for every picture of a batch. Lists are in AscendCL's order of arguments."""

    batch: int = 1
    format: int = 0
    size: tuple[int, int] = (0, 0)  # width, height of the source
    swap_rb_uv: bool = False
    swap_alpha: bool = False
    lists: dict[str, list[Number]] = field(default_factory=dict)
    related_input: int | None = None  # the picture's index among the model's inputs, if the file has it

    def set_format(self, name: str) -> None:
        """Set the pictures' format by its AIPP name. Raises ConfigError."""
        self.format = FORMATS[as_choice("AIPP: input_format", name, tuple(FORMATS))]

    def set_size(self, size: Sequence[int]) -> None:
        """Set the width and height of the source pictures. Raises ConfigError."""
        width, height = _listed("src_image_size", size, 2)
        _check("src_image_size_w", width, 2, 4096)
        _check("src_image_size_h", height, 1, 4096)
        self.size = (int(width), int(height))

    def set_list(self, name: str, values: Sequence[Number]) -> None:
        """Set one of the lists of numbers. Raises ConfigError for a wrong number of values or one out of range."""
        given = _listed(name, values, _SIZES[name])
        if name == "resize" and given[0] == 0:
            given = [0] * len(given)  # switched off: the sizes are ignored
        for key, entry in _KEYS.items():
            if entry.list == name and (name != "resize" or given[0]):
                _check(key, given[entry.index], entry.low, entry.high, entry.real)
        self.lists[name] = list(given)

    def check(self) -> None:
        """Check the settings together. Raises ConfigError."""
        if self.format == 0 or self.size == (0, 0):
            raise ConfigError("AIPP: input_format and src_image_size (w and h) must be set")
        width, height = self.size
        if self.format == FORMATS["YUV420SP_U8"] and (width % 2 or height % 2):
            raise ConfigError(f"AIPP: src_image_size of a YUV420SP_U8 picture must be even, got {width} x {height}")
        crop = self.lists.get("crop")
        if crop and crop[0] and not (0 < crop[3] <= width - crop[1] and 0 < crop[4] <= height - crop[2]):
            raise ConfigError(
                f"AIPP: the crop must be within {width} x {height}, got {crop[3]} x {crop[4]} at {crop[1]}, {crop[2]}"
            )
        resize = self.lists.get("resize")
        if resize and resize[0]:
            self._check_resize(resize, *self._before_resize())

    def _before_resize(self) -> tuple[Number, Number]:
        """Return width and height before the resize: those of the crop, or of the whole picture."""
        crop = self.lists.get("crop")
        return (crop[3], crop[4]) if crop and crop[0] else self.size

    @staticmethod
    def _check_resize(resize: list[Number], width: Number, height: Number) -> None:
        if (resize[1], resize[2]) != (width, height):
            raise ConfigError(
                f"AIPP: the resize must begin with the size after the crop, {width} x {height}, got {resize[1]} x {resize[2]}"
            )
        for before, after in ((resize[1], resize[3]), (resize[2], resize[4])):
            if not before / 16 <= after <= before * 16:
                raise ConfigError(f"AIPP: the factor of a resize must be from 1/16 to 16, got {before} to {after}")

    def apply(self, native: _native.Session, index: int) -> None:
        """Check the settings and pass them to the model's input `index`. Raises ConfigError, SessionClosed."""
        self.check()
        native.set_aipp(index, self.batch, self.format, self.size, (self.swap_rb_uv, self.swap_alpha), self.lists)


def read_aipp_config(path: str | os.PathLike[str], batch: int) -> AippSettings:
    """Read an INI file with one section [aipp_op]. Raises ConfigError, which names the file and the key."""
    import configparser  # here, because few programs have such a file

    path = as_path("config_file", path)
    parser = configparser.ConfigParser(inline_comment_prefixes=("#", ";"))
    try:
        with open(path, encoding="utf-8-sig") as file:  # editors on Windows begin files with a byte order mark
            parser.read_file(file)
    except OSError as error:
        raise file_error(error, "read the AIPP settings") from None
    except (UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"cannot read the AIPP settings {os.fspath(path)!r}: {error}") from error
    if parser.sections().count(_SECTION) != 1:
        raise ConfigError(f"{os.fspath(path)!r} must have one section [{_SECTION}], got {parser.sections()}")
    try:
        return _settings(dict(parser[_SECTION]), batch)
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)!r}: {error}") from None


def _settings(given: dict[str, str], batch: int) -> AippSettings:
    unknown = [key for key in given if key not in _KEYS and key not in _OTHER_KEYS and key not in _IGNORED_KEYS]
    if unknown:
        raise ConfigError(f"AIPP: unknown setting {unknown[0]!r}{nearest(unknown[0], [*_KEYS, *_OTHER_KEYS])}")
    settings = AippSettings(batch=batch)
    settings.set_format(given.get("input_format", ""))
    sides = ("src_image_size_w", "src_image_size_h")
    settings.set_size([int(_number(key, given.get(key, "0"), 0, 4096)) for key in sides])
    settings.swap_rb_uv = bool(_number("rbuv_swap_switch", given.get("rbuv_swap_switch", "0"), 0, 1))
    settings.swap_alpha = bool(_number("ax_swap_switch", given.get("ax_swap_switch", "0"), 0, 1))
    if "related_input_rank" in given:
        settings.related_input = int(_number("related_input_rank", given["related_input_rank"], 0, 1023))
    for name, count in _SIZES.items():
        keys = {key: entry for key, entry in _KEYS.items() if entry.list == name}
        if not any(key in given for key in keys):
            continue
        values: list[Number] = [0] * count
        for key, entry in keys.items():
            text = given.get(key)
            values[entry.index] = entry.default if text is None else _number(key, text, entry.low, entry.high, entry.real)
        if name == "resize":  # the size before the resize follows from the other keys
            values[1:3] = [value or side for value, side in zip(values[1:3], settings._before_resize(), strict=True)]
        settings.set_list(name, values)
    return settings


def _number(key: str, text: str, low: float, high: float, real: bool = False) -> Number:
    switches = {"true": 1, "false": 0}
    try:
        value: Number = float(text) if real else int(switches.get(text.strip().lower(), text))
    except ValueError:
        wanted = f"{'a number' if real else 'an integer'} from {low:g} to {high:g}"
        raise wrong(f"AIPP: {key}", wanted, text) from None
    _check(key, value, low, high, real)
    return value


def _check(key: str, value: Number, low: float, high: float, real: bool = False) -> None:
    wanted = f"{'a number' if real else 'an integer'} from {low:g} to {high:g}"
    if not isinstance(value, numbers.Real):
        raise wrong_type(f"AIPP: {key}", wanted, value)
    if not low <= value <= high or (not real and value != int(value)):
        raise wrong(f"AIPP: {key}", wanted, value)


def _listed(name: str, values: Sequence[Number], count: int) -> list[Number]:
    given = as_list(f"AIPP: {name}", values, f"{count} numbers")
    if len(given) != count or not all(isinstance(value, numbers.Real) for value in given):
        raise wrong(f"AIPP: {name}", f"a list of {count} numbers", given)
    return given


class AippMethods:
    """The AIPP methods of a low-level session. Settings are collected, and take effect with `set_dym_aipp_info_set`. All
    methods that set something raise ConfigError for a wrong value."""

    _native: _native.Session
    _aipp: AippSettings | None = None

    @property
    def _gathered(self) -> AippSettings:
        if self._aipp is None:
            self._aipp = AippSettings()
        return self._aipp

    def get_dym_aipp_input_exist(self) -> int:
        """Return how many inputs have dynamic AIPP."""
        return len(self._native.aipp_inputs())

    def check_dym_aipp_input_exist(self) -> int:
        """Return 0 if exactly one input has dynamic AIPP. Raises UnsupportedError otherwise."""
        count = self.get_dym_aipp_input_exist()
        if count != 1:
            raise UnsupportedError(
                f"{count} inputs of the model have dynamic AIPP; these settings are for exactly one, unless `input` names it"
            )
        return 0

    def _picture(self, wanted: int | str | None) -> int:
        """Return the index of the picture input for settings, by name or number; None: the only one."""
        if wanted is None:
            self.check_dym_aipp_input_exist()
            return self._native.aipp_inputs()[0]
        names = [str(name) for name, *_ in self._native.inputs()]
        pictures = {names[index]: index for index in self._native.aipp_inputs()}
        if isinstance(wanted, numbers.Integral) and int(wanted) in pictures.values():
            return int(wanted)
        if isinstance(wanted, str) and wanted in pictures:
            return pictures[wanted]
        raise ConfigError(f"input {wanted!r} has no dynamic AIPP; the inputs that have it are {pictures} (name: number)")

    def aipp_set_max_batch_size(self, batch: int) -> int:
        """Set the batch size; for a model with batch gears, the largest one. Raises ConfigError."""
        _check("batch size", batch, 1, 65536)
        self._gathered.batch = int(batch)
        return 0

    def aipp_set_input_format(self, name: str) -> int:
        """Set the format: YUV420SP_U8, XRGB8888_U8, RGB888_U8 or YUV400_U8."""
        self._gathered.set_format(name)
        return 0

    def aipp_set_src_image_size(self, size: Sequence[int]) -> int:
        """Set [width, height] of the source pictures."""
        self._gathered.set_size(size)
        return 0

    def aipp_set_rbuv_swap_switch(self, on: int) -> int:
        """Swap R and B, or U and V (0 or 1). Raises ConfigError."""
        _check("rbuv_swap_switch", on, 0, 1)
        self._gathered.swap_rb_uv = bool(on)
        return 0

    def aipp_set_ax_swap_switch(self, on: int) -> int:
        """Move the first of four channels to the end (0 or 1). Raises ConfigError."""
        _check("ax_swap_switch", on, 0, 1)
        self._gathered.swap_alpha = bool(on)
        return 0

    def aipp_set_csc_params(self, values: Sequence[int]) -> int:
        """Set the colour conversion: switch, 9 of the matrix by rows, 3 output biases, 3 input biases."""
        self._gathered.set_list("csc", values)
        return 0

    def aipp_set_crop_params(self, values: Sequence[int]) -> int:
        """Set the crop: switch, x, y, width, height."""
        self._gathered.set_list("crop", values)
        return 0

    def aipp_set_scf_params(self, values: Sequence[int]) -> int:
        """Set the resize, if the SoC has it: switch, width and height before it (after the crop), width and height after it."""
        self._gathered.set_list("resize", values)
        return 0

    def aipp_set_padding_params(self, values: Sequence[int]) -> int:
        """Set the padding: switch, top, bottom, left, right."""
        self._gathered.set_list("padding", values)
        return 0

    def aipp_set_dtc_pixel_mean(self, values: Sequence[int]) -> int:
        """Set the mean of 4 channels."""
        self._gathered.set_list("mean", values)
        return 0

    def aipp_set_dtc_pixel_min(self, values: Sequence[float]) -> int:
        """Set the minimum of 4 channels."""
        self._gathered.set_list("min", values)
        return 0

    def aipp_set_pixel_var_reci(self, values: Sequence[float]) -> int:
        """Set the reciprocal of the variance of 4 channels."""
        self._gathered.set_list("reciprocal", values)
        return 0

    def set_dym_aipp_info_set(self, input: int | str | None = None) -> int:
        """Pass the collected settings to the model; runs that start later use them.

        `input`: name or number of the picture, if the model has several. Raises ConfigError, UnsupportedError.
        """
        self._gathered.apply(self._native, self._picture(input))
        return 0

    def load_aipp_config_file(
        self, config_file: str | os.PathLike[str], batchsize: int, input: int | str | None = None
    ) -> None:
        """Read settings from an INI file with one section [aipp_op], and pass them to the model.

        `batchsize`: the model's batch; with batch gears, the largest. `input`: name or number of the picture, if the model has
        several; None: the file's related_input_rank. Raises ConfigError, UnsupportedError.
        """
        if input is None and self.get_dym_aipp_input_exist() == 0:
            self.check_dym_aipp_input_exist()
        _check("batchsize", batchsize, 1, 65536)
        self._aipp = read_aipp_config(config_file, int(batchsize))
        if input is None and self.get_dym_aipp_input_exist() > 1:
            input = self._aipp.related_input
        self.set_dym_aipp_info_set(input)
