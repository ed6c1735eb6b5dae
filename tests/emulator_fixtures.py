"""Fixtures for the emulator's tests: a machine each, and nothing left in it at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from emulator_abi import Acl

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
    """A machine before aclInit, of default settings."""
    for variable in _VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    return _awake(Acl())


@pytest.fixture
def make_acl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Acl]]:
    """Makes a machine of given settings, with aclInit called."""
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
    """A machine of default settings with device 0 set. Violations fail the test, unless it clears the report."""
    machine = make_acl()
    machine.ok("aclrtSetDevice", 0)
    yield machine
    violations = [line for line in machine.emulator.report() if line.startswith("violation")]
    assert violations == []


def _awake(acl: Acl) -> Acl:
    """The environment is read at the first call."""
    acl.aclrtGetSocName()
    return acl
