"""Fixtures and model cases for the tests of the `acl` runtime on the emulator."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import emulator_models
import numpy as np
import pytest

from ais_bench.emulator import Emulator, library_path, pack
from ais_bench.emulator.machine import LIBRARY_VARIABLE, find_onnxruntime
from ais_bench.session import InferSession

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One kind of model: how it is made and packed, and feeds of the shapes that it takes."""

    name: str
    build: Callable[[Path], Path]
    mode: str
    feeds: list[list[np.ndarray]]
    options: dict[str, Any] = field(default_factory=dict)
    asynchronous: bool = True  # in a pipeline: all but what AscendCL must allocate in every run


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
    Case("shape", emulator_models.matmul, "dymshape", [[floats(n, 3)] for n in (1, 7, 3, 500, 2)]),
    Case(
        "shape in a range",
        emulator_models.image,
        "dymshape",
        [[floats(2, 3, h, w)] for h, w in ((8, 6), (3, 5), (16, 16))],
        {"input_shape": "picture:1~4,3,1~16,1~16"},
    ),
    Case(
        "result of unknown size",
        emulator_models.nonzero,
        "static",
        [[np.array(values, np.float32)] for values in ([0, 1, 0, 2, 0, 0, 0, 3], [1] * 8, [0] * 7 + [1])],
        asynchronous=False,
    ),
]
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Packed:
    """A case's two files."""

    case: Case
    onnx: str
    om: str


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packed]:
    """`packed("batch")`: the model as ONNX and as the emulator's compiled model, made at the first use."""
    folder = tmp_path_factory.mktemp("acl")
    made: dict[str, Packed] = {}

    def get(name: str) -> Packed:
        if name not in made:
            case = BY_NAME[name]
            place = folder / name.replace(" ", "_")
            place.mkdir()
            onnx = case.build(place)
            made[name] = Packed(case, str(onnx), str(pack(onnx, place / "model.om", **case.options)))
        return made[name]

    return get


@pytest.fixture(scope="session")
def emulator_in_process() -> Iterator[Emulator]:
    """The emulator as this process's AscendCL. It cannot be changed once it is loaded, so neither can its settings."""
    settings = {LIBRARY_VARIABLE: str(library_path()), "AIS_BENCH_ORT_LIBRARY": find_onnxruntime()}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if value is not None})
    yield Emulator()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def npu(emulator_in_process: Emulator) -> Iterator[Emulator]:
    """The emulator, quiet before the test, and with nothing in it and no rule broken after it."""
    emulator = emulator_in_process
    InferSession.finalize()
    emulator.set_faults()
    emulator.clear_report()
    yield emulator
    emulator.set_faults()
    gc.collect()
    InferSession.finalize()
    assert_clean(emulator)


def assert_clean(emulator: Emulator) -> None:
    """Nothing was left alive, and nothing was done that a real NPU may punish."""
    assert emulator.living() == []
    assert emulator.report() == []


def equal(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    """The same outputs: types, shapes, and values as far as two ways of adding the same numbers agree."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
