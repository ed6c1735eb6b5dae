"""Fixtures for the emulator's tests: each test has a machine, in which nothing may be left at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import Acl

_VARIABLES = {
    "devices": "AIS_EMULATOR_DEVICES",
    "visible": "ASCEND_RT_VISIBLE_DEVICES",
    "exec_ms": "AIS_EMULATOR_EXEC_MS",
    "copy_gbps": "AIS_EMULATOR_COPY_GBPS",
    "memory_mb": "AIS_EMULATOR_MEMORY_MB",
    "faults": "AIS_EMULATOR_FAULTS",
    "fault_state": "AIS_EMULATOR_FAULT_STATE",
    "soc": "AIS_EMULATOR_SOC",
    "run_mode": "AIS_EMULATOR_RUN_MODE",
    "record": "AIS_EMULATOR_RECORD",
}


@pytest.fixture
def bare_acl(monkeypatch: pytest.MonkeyPatch) -> Acl:
    """Make a machine with default settings, before aclInit."""
    for variable in _VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    return _awake(Acl())


@pytest.fixture
def make_acl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Acl]]:
    """Return a function that makes a machine with the given settings, and calls aclInit."""
    made = []

    def make(**settings: str) -> Acl:
        for name, variable in _VARIABLES.items():
            if name in settings:
                monkeypatch.setenv(variable, settings[name])
            else:
                monkeypatch.delenv(variable, raising=False)
        acl = _awake(Acl())
        acl.ok("aclInit", None)
        made.append(acl)
        return acl

    yield make
    for acl in made:
        acl.emulator.set_faults()
        acl.aclFinalize()


@pytest.fixture
def acl(make_acl: Callable[..., Acl]) -> Iterator[Acl]:
    """Make a machine with default settings and set device 0. Violations fail the test, unless it clears the report."""
    machine = make_acl()
    machine.ok("aclrtSetDevice", 0)
    yield machine
    violations = [line for line in machine.emulator.report() if line.startswith("violation")]
    assert violations == []


@pytest.fixture
def static_om(tmp_path: Path) -> Path:
    """A static model: sum = a + b of (1, 4)."""
    return pack(models.add(tmp_path), tmp_path / "add.om")


@pytest.fixture
def batch_om(tmp_path: Path) -> Path:
    """Batch gears 1, 2, 8 of x @ w."""
    return pack(models.matmul(tmp_path), tmp_path / "matmul.om", dynamic_batch_size=[1, 2, 8])


@pytest.fixture
def hw_om(tmp_path: Path) -> Path:
    """Image size gears (4, 6) and (8, 2)."""
    return pack(models.image(tmp_path), tmp_path / "image.om", input_shape="picture:1,3,-1,-1", dynamic_image_size="4,6;8,2")


@pytest.fixture
def dims_om(tmp_path: Path) -> Path:
    """Three dims gears over three inputs."""
    shapes = "data:1,1,40,-1;label:1,-1;mask:-1,-1"
    return pack(models.three(tmp_path), tmp_path / "three.om", input_shape=shapes, dynamic_dims="20,20,1,1;40,40,2,2;80,60,4,4")


@pytest.fixture
def shape_om(tmp_path: Path) -> Path:
    """x @ w of any batch."""
    return pack(models.matmul(tmp_path), tmp_path / "shape.om")


@pytest.fixture
def range_om(tmp_path: Path) -> Path:
    """x @ w of a batch from 2 to 8."""
    return pack(models.matmul(tmp_path), tmp_path / "range.om", input_shape="x:2~8,3")


def _awake(acl: Acl) -> Acl:
    """Make the first call, because it reads the environment."""
    acl.aclrtGetSocName()
    return acl
