"""The settings of a pool, and the shares of processors that its workers get. No worker is started."""

from __future__ import annotations

import ast
import dataclasses
import re
import threading

import pytest

from ais_bench.errors import ConfigError
from ais_bench.options import as_device_ids
from ais_bench.pool import DevicePool, PoolSettings
from ais_bench.pool.cores import split_cores
from support.handlers import Obedient


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers_per_device", 0),
        ("workers_per_device", True),
        ("tasks_in_flight", 0),
        ("tasks_in_flight", 257),
        ("task_timeout", 0),
        ("task_timeout", "5"),
        ("start_timeout", -1),
        ("close_timeout", float("nan")),
        ("max_restarts", -1),
        ("max_attempts", 0),
        ("min_devices", 0),
        ("threads", 1.5),
        ("affinity", "both"),
        ("affinity", {0: []}),
        ("spin", -1),
        ("spin", "never"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        PoolSettings(**{name: value})
    assert repr(value) in str(caught.value)


def test_the_table_has_every_setting_with_its_default() -> None:
    assert PoolSettings.__doc__ is not None
    rows = re.findall(r'^    (\w+) +(None|[\d.]+|"\w+") ', PoolSettings.__doc__, re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in rows} == {
        field.name: field.default for field in dataclasses.fields(PoolSettings)
    }


def test_settings_are_frozen_and_equal() -> None:
    assert PoolSettings(spin=3) == PoolSettings(spin=3)
    with pytest.raises(AttributeError):
        PoolSettings().spin = 1  # type: ignore[misc]


def test_device_ids_are_checked() -> None:
    import numpy as np

    assert as_device_ids([np.int64(2), "0"]) == (2, 0)
    assert as_device_ids(3) == (3,)
    for wrong in ([], [1, 1], [-1], ["x"], [True], [1.0]):
        with pytest.raises(ConfigError):
            as_device_ids(wrong)


def test_a_wrong_setting_starts_nothing() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="min_devices must be at most 2, the number of devices, got 3"):
        DevicePool(Obedient, [0, 1], PoolSettings(min_devices=3))
    assert not set(threading.enumerate()) - before


def test_processors_are_split_evenly_and_without_overlap() -> None:
    shares = split_cores([0, 1, 2, 3, 4, 5, 6], usable=7, workers=3)
    assert sorted(cpu for share in shares for cpu in share.cpus) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(len(share.cpus) for share in shares) == [2, 2, 3]
    assert [share.threads for share in shares] == [len(share.cpus) for share in shares] or sum(s.threads for s in shares) <= 7


def test_a_quota_bounds_the_threads_but_not_the_processors() -> None:
    shares = split_cores(list(range(8)), usable=3, workers=2)
    assert [len(share.cpus) for share in shares] == [4, 4]
    assert [share.threads for share in shares] == [2, 1]


def test_more_workers_than_processors_share_them_in_turn() -> None:
    assert [share.cpus for share in split_cores([4, 6], usable=2, workers=5)] == [(4,), (6,), (4,), (6,), (4,)]
