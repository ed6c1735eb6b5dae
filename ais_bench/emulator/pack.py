"""Pack an ONNX model as a compiled model for the emulator, with ATC's options.

The result is a container (csrc/emulator/container.hpp), not an om. A real NPU refuses it, and the emulator refuses a real om.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ais_bench.emulator.aipp_config import AippEntry, read_aipp_config
from ais_bench.emulator.onnx_shapes import ranks, weights, with_input_shapes
from ais_bench.errors import ConfigError, file_error
from ais_bench.options import as_bool, as_choice, as_list, as_path, as_text, unknown_argument, wrong, wrong_type

MAGIC = b"AISEMUOM"
_HEADER = struct.Struct("<8sIIQQ")  # magic, version, reserved, bytes of the description, bytes of the graph

#: ONNX Runtime's names of element types to AscendCL's numbers.
_DTYPES = {
    "float": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4, "int16": 6, "uint16": 7, "uint32": 8, "int64": 9,
    "uint64": 10, "double": 11, "bool": 12, "complex64": 16, "complex128": 17, "bfloat16": 27, "int4": 29,
    "float8e5m2": 35, "float8e4m3fn": 36,
}  # fmt: skip
_FORMATS = {"NCHW": 0, "NHWC": 1, "ND": 2}

Range = tuple[int, int]  # min, max; max -1: no limit


@dataclass
class _Input:
    name: str
    dtype: int
    shape: list[int]  # a dimension that varies is -1
    ranges: list[Range] | None = None  # one for each dimension, in dynamic-shape models


@dataclass
class _Gears:
    kind: str = "none"  # "none", "batch", "hw", "dims", "shape"
    values: list[list[int]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # the inputs, in the order of --input_shape


def pack(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    input_shape: str | Mapping[str, Sequence[int | str]] | None = None,
    dynamic_batch_size: str | Sequence[int] | None = None,
    dynamic_image_size: str | Sequence[Sequence[int]] | None = None,
    dynamic_dims: str | Sequence[Sequence[int]] | None = None,
    insert_op_conf: str | os.PathLike[str] | None = None,
    input_format: str = "NCHW",
    soc_version: str = "",
    external_weight: bool = False,
    **unknown: NoReturn,
) -> Path:
    """Pack `model` (ONNX, without external data) as `output` for the emulator, and return the output's path.

    The options are those of ATC, as texts or as Python values. At most one of the three `dynamic_*` may be given. Without them,
    dimensions that vary make a dynamic-shape model.

    Args:
        model: the ONNX file.
        output: the file to write; its folder must exist.
        input_shape: "name:1,3,224,224;name2:-1,16" or `{name: shape}`; -1 varies, "1~8" varies in a range. Default: as the
        input_shape: "name:1,3,224,224;name2:-1,16" or `{name: shape}`; -1 varies, "1~8" varies in a range. Default: as the
        dynamic_batch_size: "1,2,4,8": the batches; only the first dimension of an input may vary.
        dynamic_image_size: "224,224;448,448": heights and widths of every input that varies; only these dimensions may vary.
        dynamic_dims: "1,16;2,32": in each gear a value for every varying dimension, in the order of `input_shape`.
        insert_op_conf: an AIPP configuration file.
        input_format: the format of four-dimensional inputs: "NCHW", "NHWC" or "ND".
        soc_version: the only SoC on which the result loads; "": any.
        external_weight: whether to write the weights to separate files, in the folder `weight` beside `output`.

    Raises:
        ConfigError: if options do not fit the model or each other, or the file is not an ONNX model.
        FileError: if a file cannot be read or written.
    """
    if unknown:
        raise unknown_argument(unknown, pack)
    model, target = as_path("model", model), Path(as_path("output", output))
    as_choice("input_format", input_format, tuple(_FORMATS))
    as_text("soc_version", soc_version)
    external_weight = as_bool("external_weight", external_weight)
    graph, inputs, order, declared_ranks = _with_shapes(model, _parse_shapes(input_shape))
    gears = _gears(inputs, order, input_format, dynamic_batch_size, dynamic_image_size, dynamic_dims)
    aipp = [] if insert_op_conf is None else read_aipp_config(insert_op_conf)
    _check_aipp(aipp, inputs, gears)
    description = {
        "soc": soc_version,
        "name": Path(model).stem,
        "inputs": [_describe_input(item, input_format) for item in inputs],
        "outputs": _describe_outputs(graph, inputs, gears, declared_ranks),
        "gears": {"kind": gears.kind, "values": gears.values, "order": gears.order},
        "aipp": aipp,
    }
    _write(target, graph, description, external_weight)
    return target


def _with_shapes(
    model: str, given: Mapping[str, Sequence[str]]
) -> tuple[bytes, list[_Input], list[int], Mapping[str, int | None]]:
    """Return the graph with the given shapes, its inputs, their order in `given`, and the ranks that the model declares."""
    try:
        graph = Path(model).read_bytes()
    except OSError as error:
        raise file_error(error, "read the model") from None
    inputs = _declared_inputs(graph, model)
    declared = {item.name: item.shape for item in inputs}
    declared_ranks = ranks(graph)
    for item in inputs:
        if declared_ranks[item.name] is None and item.name not in given:
            raise ConfigError(
                f"the model declares no shape of input {item.name!r}; an NPU model needs one: give it in input_shape"
            )
    order = _apply_input_shape(inputs, given)
    shapes = {item.name: item.shape for item in inputs}
    if shapes != declared:  # like ATC, convert the model with these shapes
        graph = with_input_shapes(graph, shapes)
    return graph, inputs, order, declared_ranks


def _write(target: Path, graph: bytes, description: dict[str, Any], external_weight: bool) -> None:
    try:
        if external_weight:
            graph, description["weights"] = _write_weights(graph, target.parent / "weight")
        text = json.dumps(description).encode()
        target.write_bytes(_HEADER.pack(MAGIC, 2 if external_weight else 1, 0, len(text), len(graph)) + text + graph)
    except OSError as error:
        raise file_error(error, "write the packed model") from None


def _write_weights(graph: bytes, folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Move the weights into files named after their content. Return the graph without them, and their places."""
    folder.mkdir(exist_ok=True)
    kept, pieces, end = [], [], 0
    for at, length in weights(graph):
        if length == 0:
            continue
        content = graph[at : at + length]
        name = f"weight_{hashlib.sha256(content).hexdigest()}"
        (folder / name).write_bytes(content)
        kept.append(graph[end:at])
        pieces.append({"file": name, "at": at, "bytes": length})
        end = at + length
    return b"".join([*kept, graph[end:]]), pieces


def _session(graph: bytes, what: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # Constant folding determines shapes that the model computes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise ConfigError(f"{what}: {error}") from error


def _dtype(kind: str, name: str) -> int:
    found = _DTYPES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if found is None:
        raise ConfigError(f"tensor {name!r} is of type {kind}, which an NPU model cannot have")
    return found


def _declared_inputs(graph: bytes, model: str | os.PathLike[str]) -> list[_Input]:
    session = _session(graph, f"{os.fspath(model)} cannot be loaded")
    return [_Input(item.name, _dtype(item.type, item.name), _numbers(item.shape)) for item in session.get_inputs()]


def _numbers(shape: Sequence[int | str | None]) -> list[int]:
    """Return a shape of ONNX Runtime with -1 for dimensions that are a name or unknown."""
    return [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in shape]


def _parse_shapes(given: str | Mapping[str, Sequence[int | str]] | None) -> dict[str, list[str]]:
    if given is None:
        return {}
    if not isinstance(given, (str, Mapping)):
        raise wrong_type("input_shape", '"name:1,3,224,224;name2:-1,16" or {name: shape}', given)
    if isinstance(given, Mapping):
        return {
            name: [str(dim) for dim in as_list(f"the shape of {name!r}", shape, "dimensions")] for name, shape in given.items()
        }
    shapes = {}
    for part in filter(None, given.split(";")):
        name, colon, dims = part.rpartition(":")  # a name may contain colons
        if not colon:
            raise ConfigError(f"each input in input_shape must be name:dim,dim,..., got {part!r}")
        shapes[name.strip()] = [dim.strip() for dim in dims.split(",")] if dims.strip() else []
    return shapes


def _apply_input_shape(inputs: list[_Input], shapes: Mapping[str, Sequence[str]]) -> list[int]:
    """Set the shapes of the inputs, and return the inputs' indexes in the order of the option."""
    names = [item.name for item in inputs]
    for name, dims in shapes.items():
        if name not in names:
            raise ConfigError(f"input_shape names {name!r}; the model's inputs are {', '.join(names)}")
        item = inputs[names.index(name)]
        if item.shape and len(item.shape) != len(dims):
            raise ConfigError(f"input_shape gives {name} {len(dims)} dimensions; the model has {len(item.shape)}")
        item.ranges = [_parse_range(name, dim) for dim in dims]
        item.shape = [low if low == high else -1 for low, high in item.ranges]
    for item in inputs:
        if item.ranges is None:
            item.ranges = [(dim, dim) if dim >= 0 else (1, -1) for dim in item.shape]
    given = [names.index(name) for name in shapes]
    return given + [index for index in range(len(inputs)) if index not in given]


def _parse_range(name: str, dim: str) -> Range:
    low, tilde, high = dim.partition("~")
    try:
        bounds = (int(low), int(high if tilde else low))
    except ValueError:
        raise ConfigError(f"input_shape gives {name} a dimension {dim!r}; it must be a number, -1 or low~high") from None
    if bounds == (-1, -1):
        return 1, -1
    if bounds[0] < 0 or (bounds[1] != -1 and bounds[1] < bounds[0]):
        raise ConfigError(f"input_shape gives {name} a dimension {dim!r}, which is empty")
    return bounds


def _lists(given: str | Sequence[Any], name: str) -> list[list[int]]:
    """Return a gear option as numbers; a plain "1,2,4" is one list."""
    try:
        if isinstance(given, str):
            lists = [[int(value) for value in part.split(",")] for part in given.split(";") if part]
        else:
            lists = [[int(value) for value in part] for part in given]
    except (OverflowError, TypeError, ValueError):
        lists = []
    if not lists:
        raise wrong(name, "numbers", given)
    return lists


def _gears(
    inputs: list[_Input],
    order: list[int],
    input_format: str,
    batch: str | Sequence[int] | None,
    image: str | Sequence[Sequence[int]] | None,
    dims: str | Sequence[Sequence[int]] | None,
) -> _Gears:
    chosen = [name for name, value in (("batch", batch), ("hw", image), ("dims", dims)) if value is not None]
    if len(chosen) > 1:
        raise ConfigError("dynamic_batch_size, dynamic_image_size and dynamic_dims exclude each other")
    varying = [(index, axis) for index in order for axis, dim in enumerate(inputs[index].shape) if dim < 0]
    if not chosen:
        return _Gears("shape" if varying else "none", [], order)
    if not varying:
        raise ConfigError("no dimension of the inputs varies (-1), so there is nothing to choose gears for")
    if batch is not None:
        values = _lists(batch, "dynamic_batch_size") if isinstance(batch, str) else _lists([batch], "dynamic_batch_size")
        values = [[value] for value in values[0]]
        if any(axis != 0 for _, axis in varying):
            raise ConfigError("dynamic_batch_size: only the first dimension of an input may vary")
    elif image is not None:
        values = _lists(image, "dynamic_image_size")
        axes = (1, 2) if input_format == "NHWC" else (2, 3)
        if any([axis for index, axis in varying if index == one] != list(axes) for one, _ in varying):
            raise ConfigError(
                f"dynamic_image_size: exactly the dimensions {axes[0]} and {axes[1]} of a {input_format} input may vary"
            )
    else:
        assert dims is not None
        values = _lists(dims, "dynamic_dims")
    wanted = 1 if batch is not None else 2 if image is not None else len(varying)
    for gear in values:
        if len(gear) != wanted or min(gear) < 1:
            raise ConfigError(f"the gear {gear} does not have {wanted} positive values, one for each dimension that varies")
    if not 0 < len(values) <= 128 or len({tuple(gear) for gear in values}) != len(values):
        raise ConfigError("there must be 1 to 128 different gears")
    return _Gears(chosen[0], values, order)


def _gear_shapes(inputs: list[_Input], gears: _Gears, gear: Sequence[int]) -> dict[str, list[int]]:
    """Return the shape of every input in one gear."""
    shapes = {}
    left = list(gear)
    for index in gears.order:
        item = inputs[index]
        if gears.kind != "dims":  # the batch or the image size of every input that varies
            left = list(gear)
        shapes[item.name] = [dim if dim >= 0 else left.pop(0) for dim in item.shape]
    return shapes


def _output_shapes(
    graph: bytes, shapes: Mapping[str, Sequence[int]], declared: Mapping[str, int | None]
) -> list[tuple[str, int, list[int]]]:
    """Return (name, element type, shape) of each output. If no shape is inferred, the declared rank is used; -2: no rank."""
    session = _session(with_input_shapes(graph, shapes), f"the model does not take the shapes {dict(shapes)}")
    outputs = []
    for item in session.get_outputs():
        rank = declared[item.name]
        shape = _numbers(item.shape) or (
            [-2] if rank is None else [-1] * rank
        )  # ONNX Runtime has [] for a scalar and for an unknown shape
        outputs.append((item.name, _dtype(item.type, item.name), shape))
    return outputs


def _describe_outputs(
    graph: bytes, inputs: list[_Input], gears: _Gears, declared: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    if gears.values:
        variants = [_gear_shapes(inputs, gears, gear) for gear in gears.values]
    else:
        variants = [{item.name: item.shape for item in inputs}]
    results = [_output_shapes(graph, shapes, declared) for shapes in variants]
    described: list[dict[str, Any]] = [
        {"name": name, "dtype": dtype, "format": _FORMATS["ND"], "shapes": [result[index][2] for result in results]}
        for index, (name, dtype, _) in enumerate(results[0])
    ]
    bounds = {item.name: [high for _, high in item.ranges or []] for item in inputs}
    if gears.kind == "shape" and all(high >= 0 for highs in bounds.values() for high in highs):
        for entry, (_, _, shape) in zip(described, _output_shapes(graph, bounds, declared), strict=True):
            entry["largest"] = shape
    return described


def _describe_input(item: _Input, input_format: str) -> dict[str, Any]:
    return {
        "name": item.name,
        "dtype": item.dtype,
        "graph_dtype": item.dtype,
        "format": _FORMATS[input_format] if len(item.shape) == 4 else _FORMATS["ND"],
        "shape": item.shape,
        "range": item.ranges,
    }


def _check_aipp(entries: list[AippEntry], inputs: list[_Input], gears: _Gears) -> None:
    if entries and gears.kind == "shape":
        raise ConfigError("AIPP needs static shapes or gears; give input_shape numbers, or a dynamic_* option")
    for entry in entries:
        index = int(entry["input"])
        if index >= len(inputs):
            raise ConfigError(f"AIPP is for input {index}; the model has {len(inputs)}")
        item = inputs[index]
        if len(item.shape) != 4 or item.shape[1] not in (1, 3, 4) or item.dtype not in (0, 1, 4):
            raise ConfigError(f"AIPP needs an NCHW picture of float32, float16 or uint8; input {item.name} is not one")
    if len({entry["input"] for entry in entries}) != len(entries):
        raise ConfigError("each input must have at most one aipp_op")
