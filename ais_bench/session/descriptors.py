"""What a model says of its inputs and outputs, and the numbering of element types."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

__all__ = ["dtype", "format", "tensor_desc"]


class dtype(enum.IntEnum):
    """An element type. The numbers are AscendCL's `aclDataType`, so a member indexes tables laid out by them.

    `name` is numpy's name of the type (ml_dtypes' from bfloat16 on). The two "fnuz" kinds and the integers of 4 and 2 bits but
    int4 are not in AscendCL and have numbers from 100 on.
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

    def __str__(self) -> str:
        return f"dtype.{self.name}"


class format(enum.IntEnum):
    """How the dimensions of a tensor are ordered. The numbers are AscendCL's `aclFormat`; ONNX models are ND."""

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

    def __str__(self) -> str:
        return f"format.{self.name}"


@dataclass
class tensor_desc:
    """One input or output of a model. Plain data: it pickles and compares.

    `shape` is a list of ints, -1 where a dimension is dynamic. `size` is the bytes of the largest shape the model declares, 0
    when open; `realsize` the bytes that the next run with the shapes set expects, equal to `size` until something is set.
    """

    name: str = ""
    datatype: dtype = dtype.float32
    format: int = format.undefined
    shape: list[int] = field(default_factory=list)
    size: int = 0
    realsize: int = 0

    @classmethod
    def _from_native(cls, native: tuple[str, int, int, list[int], int], realsize: int | None = None) -> tensor_desc:
        name, number, layout, shape, size = native
        known_layout: Any = format(layout) if layout in format._value2member_map_ else layout
        return cls(name, dtype(number), known_layout, list(shape), size, size if realsize is None else realsize)
