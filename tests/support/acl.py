"""Model cases for the tests of the `acl` runtime on the emulator, and checks for every test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ais_bench.emulator import Emulator
from support import emulator_models

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One kind of model: its construction and packing, and feeds of valid shapes."""

    name: str
    build: Callable[[Path], Path]
    mode: str
    feeds: list[list[np.ndarray]]
    options: dict[str, Any] = field(default_factory=dict)
    predictable: bool = True  # whether outputs are known before a run
    asynchronous: bool = True  # in a pipeline: false if AscendCL must allocate in every run


def _three(a: int, b: int, c: int, d: int) -> list[np.ndarray]:
    return [floats(1, 1, 40, a), floats(1, b), floats(c, d)]


CASES = [
    Case("static", emulator_models.add, "static", [[floats(1, 4), floats(1, 4)] for _ in range(3)]),
    Case(
        "batch",
        emulator_models.matmul,
        "dymbatch",
        [[floats(n, 3)] for n in (2, 1, 4, 4, 1)],
        {"input_shape": "x:-1,3", "dynamic_batch_size": "1,2,4"},
    ),
    Case(
        "image",
        emulator_models.image,
        "dymhw",
        [[floats(1, 3, h, w)] for h, w in ((8, 6), (4, 4), (8, 6), (8, 6))],
        {"input_shape": "picture:1,3,-1,-1", "dynamic_image_size": "4,4;8,6"},
    ),
    Case(
        "image of two inputs",
        lambda folder: emulator_models.add(folder, ("n", 3, "h", "w")),
        "dymhw",
        [[floats(1, 3, h, w), floats(1, 3, h, w)] for h, w in ((8, 6), (4, 4), (8, 6))],
        {"input_shape": "a:1,3,-1,-1;b:1,3,-1,-1", "dynamic_image_size": "4,4;8,6"},
    ),
    Case(
        "dims",
        emulator_models.three,
        "dymdims",
        [_three(20, 20, 1, 1), _three(80, 60, 4, 4), _three(40, 40, 2, 2), _three(40, 40, 2, 2)],
        {
            "input_shape": "data:1,1,40,-1;label:1,-1;mask:-1,-1",
            "dynamic_dims": "20,20,1,1;40,40,2,2;80,60,4,4",
        },
    ),
    Case(
        "dims in another order",
        emulator_models.three,
        "dymdims",
        [_three(20, 30, 5, 6), _three(80, 60, 4, 7)],
        {"input_shape": "mask:-1,-1;data:1,1,40,-1;label:1,-1", "dynamic_dims": "5,6,20,30;4,7,80,60"},
    ),
    Case("shape", emulator_models.matmul, "dymshape", [[floats(n, 3)] for n in (1, 7, 3, 500, 2)], predictable=False),
    Case(
        "shape in a range",
        emulator_models.image,
        "dymshape",
        [[floats(2, 3, h, w)] for h, w in ((8, 6), (3, 5), (16, 16))],
        {"input_shape": "picture:1~4,3,1~16,1~16"},
        predictable=False,
    ),
    Case(
        "result of unknown size",
        emulator_models.nonzero,
        "static",
        [[np.array(values, np.float32)] for values in ([0, 1, 0, 2, 0, 0, 0, 3], [1] * 8, [0] * 7 + [1])],
        predictable=False,
        asynchronous=False,
    ),
    Case(
        "result of unknown rank",
        emulator_models.unknown_rank,
        "dymshape",
        [[np.array(times), floats(rows, 3)] for times, rows in ((1, 2), (2, 2), (3, 5))],
        {"input_shape": "x:-1,3"},
        predictable=False,
    ),
]
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Packed:
    """The two files of a case."""

    case: Case
    onnx: str
    om: str


def assert_clean(emulator: Emulator) -> None:
    """Check that no object is left, and no rule of a real NPU was violated."""
    left, report = emulator.living(), emulator.report()
    assert not left, f"left alive on the NPUs: {left}"
    assert not report, f"against AscendCL's rules: {report}"


def equal(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    """Check equal outputs: types, shapes, and values within the tolerance of another order of additions."""
    kinds = [[(array.dtype, array.shape) for array in side] for side in (left, right)]
    assert kinds[0] == kinds[1], f"{kinds[0]} is not {kinds[1]}"
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
