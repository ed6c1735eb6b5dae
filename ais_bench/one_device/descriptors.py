"""The descriptions of a model's inputs and outputs, and the numbering of element types."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ModelMetadata", "dtype", "format", "tensor_desc"]


class _Numbered(enum.IntEnum):
    """Numbers of AscendCL that print as what they stand for: dtype.float32."""

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class dtype(_Numbered):
    """An element type. The numbers are those of AscendCL's `aclDataType`, so a member can index tables of AscendCL.

    `name` is numpy's name of the type (from bfloat16 on the name in ml_dtypes). AscendCL does not have the two "fnuz" kinds and
    the integers of 4 and 2 bits, except int4. They have numbers from 100 on.
    """

    float32 = 0
    float16 = 1
    int8 = 2
    int32 = 3
    uint8 = 4
    int16 = 6
    uint16 = 7
    uint32 = 8
    int64 = 9
    uint64 = 10
    float64 = 11
    double = 11  # an alias
    bool = 12
    complex64 = 16
    complex128 = 17
    bfloat16 = 27
    int4 = 29
    float8_e5m2 = 35
    float8_e4m3fn = 36
    float8_e8m0fnu = 37
    float4_e2m1fn = 40
    float8_e4m3fnuz = 100
    float8_e5m2fnuz = 101
    uint4 = 102
    int2 = 103
    uint2 = 104

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type. numpy uses this attribute, so `np.zeros(3, descriptor.datatype)` works."""
        import numpy as np  # here, because a worker that only moves arrays never needs it

        try:
            return np.dtype(self.name)
        except TypeError:  # a type that numpy itself does not have
            import ml_dtypes

            made: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.name))
            return made


class format(_Numbered):
    """The order of a tensor's dimensions. The numbers are those of AscendCL's `aclFormat`; ONNX models are ND."""

    undefined = -1
    NCHW = 0
    NHWC = 1
    ND = 2
    NC1HWC0 = 3
    FRACTAL_Z = 4
    HWCN = 16
    NDHWC = 27
    FRACTAL_NZ = 29
    NCDHW = 30
    NDC1HWC0 = 32
    FRACTAL_Z_3D = 33


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of a model. If the model does not have a value, a text is empty and the version is 0.

    For a compiled model on an NPU all values are empty, because AscendCL does not provide them.

    Attributes:
        producer: the program that made the model.
        version: the model's own version.
        domain: the model's name space, such as "com.example".
        graph: the name of its graph.
        description: the author's description.
        custom: further entries by name (ONNX `metadata_props`).
    """

    producer: str = ""
    version: int = 0
    domain: str = ""
    graph: str = ""
    description: str = ""
    custom: dict[str, str] = field(default_factory=dict)


def metadata_of(native: tuple[str, int, str, str, str, dict[str, str]] | None) -> ModelMetadata:
    """Return a native session's metadata. None comes from a runtime that does not provide it."""
    if native is None:
        return ModelMetadata()
    producer, version, domain, graph, description, custom = native
    said = 0 if version == 2**63 - 1 else version  # ONNX Runtime's number for none
    return ModelMetadata(producer, said, domain, graph, description, custom)


@dataclass
class tensor_desc:
    """One input or output of a model. Plain data that can be pickled and compared.

    `shape` is a list of ints, -1 for a dynamic dimension. `size` is the number of bytes of the largest shape that the model
    declares, 0 if a dimension is open. `realsize` is the number of bytes that the next run with the set shapes expects; it is
    equal to `size` until shapes are set. `dim_names` are the model's names of the dimensions, if it has any ("" for a dimension
    without a name): ["batch", "", "height"]. `optional`: whether a run may omit it.
    """

    name: str = ""
    datatype: dtype = dtype.float32
    format: int = format.undefined
    shape: list[int] = field(default_factory=list)
    size: int = 0
    realsize: int = 0
    dim_names: list[str] = field(default_factory=list)
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type for this input or output. numpy uses this attribute, so `np.zeros(shape, descriptor)` works."""
        return self.datatype.dtype

    @classmethod
    def _from_native(
        cls, native: tuple[str, int, int, list[int], int, list[str], bool], realsize: int | None = None
    ) -> tensor_desc:
        name, number, layout, shape, size, symbols, optional = native
        known_layout: Any = format(layout) if layout in format._value2member_map_ else layout
        real = size if realsize is None else realsize
        return cls(name, dtype(number), known_layout, list(shape), size, real, list(symbols), optional)
