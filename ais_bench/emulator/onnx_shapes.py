"""Set the input shapes of an ONNX model in its protobuf bytes.

ATC compiles a model for given shapes. ONNX Runtime infers the outputs' shapes if these shapes are written into the model. This
module rewrites only the few necessary messages, so packing does not need the `onnx` package. Field numbers are those of
onnx.proto3: ModelProto 7 graph; GraphProto 11 input, 12 output, 13 value_info;
ValueInfoProto 1 name, 2 type; TypeProto 1 tensor_type; TypeProto.Tensor 1 elem_type, 2 shape; TensorShapeProto 1 dim;
Dimension 1 dim_value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ais_bench.errors import ConfigError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, bytes]  # number, wire type, content (without a length prefix)


class NotOnnx(ConfigError):
    """The bytes are not the protobuf of an ONNX model."""


def with_input_shapes(model: bytes, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Return `model` with the shape of each input in `shapes` replaced (-1: unknown), and with open shapes of all outputs.

    Declared shapes of outputs are removed, because they may belong to other shapes of inputs; the element types stay.
    Raises NotOnnx if the bytes are not a model.
    """

    def rewrite_input(value: bytes) -> bytes:
        name = next((content.decode() for number, _, content in _fields(value) if number == 1), "")
        return _with_shape(value, shapes[name]) if name in shapes else value

    def rewrite_graph(graph: bytes) -> bytes:
        return _rewrite(graph, {11: rewrite_input, 12: lambda value: _with_shape(value, None), 13: lambda _: None})

    return _rewrite(model, {7: rewrite_graph})


def ranks(model: bytes) -> dict[str, int | None]:
    """Return the number of dimensions of each input and output of the graph; None if it declares no shape."""
    found: dict[str, int | None] = {}
    for graph in _contents(model, 7):
        for value in (*_contents(graph, 11), *_contents(graph, 12)):
            name = next((content.decode() for content in _contents(value, 1)), "")
            shapes = [shape for kind in _contents(value, 2) for tensor in _contents(kind, 1) for shape in _contents(tensor, 2)]
            found[name] = len(_contents(shapes[-1], 1)) if shapes else None
    return found


def weights(model: bytes) -> list[tuple[int, int]]:
    """Return offsets and lengths of the raw bytes of the graph's initializers in `model`, ascending.

    GraphProto 5 initializer; TensorProto 9 raw_data.
    """
    found = []
    for at, length in _places(model, 0, len(model), 7):
        for inner, inner_length in _places(model, at, at + length, 5):
            found += _places(model, inner, inner + inner_length, 9)
    return sorted(found)


def _places(model: bytes, begin: int, end: int, number: int) -> list[tuple[int, int]]:
    """Return offset and length of the content of each field `number` of the message at [begin, end)."""
    found = []
    at = begin
    while at < end:
        key, at = _read_varint(model, at)
        if key & 7 == _BYTES:
            length, at = _read_varint(model, at)
            if key >> 3 == number:
                found.append((at, length))
        elif key & 7 == _VARINT:
            _, after = _read_varint(model, at)
            length = after - at
        else:
            length = 8 if key & 7 == _FIXED64 else 4
        at += length
    return found


def _contents(message: bytes, number: int) -> list[bytes]:
    return [content for found, wire, content in _fields(message) if found == number and wire == _BYTES]


def _with_shape(value_info: bytes, shape: Sequence[int] | None) -> bytes:
    def rewrite_tensor(tensor: bytes) -> bytes:
        kept = b"".join(_encode(field) for field in _fields(tensor) if field[0] != 2)
        if shape is None:
            return kept
        dims = b"".join(_message(1, b"" if dim < 0 else _varint(1 << 3 | _VARINT) + _varint(dim)) for dim in shape)
        return kept + _message(2, dims)

    def rewrite_type(kind: bytes) -> bytes:
        return _rewrite(kind, {1: rewrite_tensor})

    return _rewrite(value_info, {2: rewrite_type})


def _rewrite(message: bytes, changes: Mapping[int, Callable[[bytes], bytes | None]]) -> bytes:
    """Return the message with the content of some fields changed by a function; None removes the field."""
    parts = []
    for number, wire, content in _fields(message):
        changed = changes[number](content) if number in changes and wire == _BYTES else content
        if changed is not None:
            parts.append(_encode((number, wire, changed)))
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[Field]:
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            length, at = _read_varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        elif wire == _VARINT:
            _, end = _read_varint(message, at)
            length = end - at
        else:
            raise NotOnnx(f"wire type {wire} at offset {at}")
        if number == 0 or at + length > len(message):
            raise NotOnnx(f"a field at offset {at} goes beyond the end")
        yield number, wire, message[at : at + length]
        at += length


def _encode(field: Field) -> bytes:
    number, wire, content = field
    if wire == _BYTES:
        return _message(number, content)
    return _varint(number << 3 | wire) + content


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise NotOnnx(f"a number at offset {at} does not end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
