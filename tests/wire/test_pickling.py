"""Callables and exceptions as bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from ais_bench.errors import AisBenchError, ConfigError, WorkerDied
from ais_bench.wire.pickling import RemoteTraceback, dumps_by_value, dumps_error, loads, loads_error
from support.handlers import Obedient
from support.scripts import environment


def test_an_importable_callable_goes_by_name() -> None:
    assert b"cloudpickle" not in dumps_by_value(Obedient)
    assert loads(dumps_by_value(Obedient)) is Obedient


def test_what_main_defines_travels_by_value() -> None:
    script = """
import sys
import numpy as np
FACTOR = 3
class Base:
    def value(self): return 1
class Derived(Base):
    def value(self): return super().value() + FACTOR
def helper(x): return np.sum(x) * Derived().value()
def countdown(n): return n if n == 0 else countdown(n - 1)
def outer(k): return lambda x: helper(x) + k + countdown(3)
from ais_bench.wire.pickling import dumps_by_value
sys.stdout.buffer.write(dumps_by_value(outer(5)))
"""
    sent = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment()).stdout
    assert loads(sent)([1, 2]) == 3 * 4 + 5


def test_what_cannot_be_pickled_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="cannot be sent to a worker"):
        dumps_by_value(number for number in [1])


def test_an_error_keeps_its_type_and_brings_its_traceback() -> None:
    def fail() -> None:
        raise KeyError("k")

    try:
        fail()
    except KeyError as error:
        there = loads_error(dumps_error(error))
    assert type(there) is KeyError
    assert there.args == ("k",)
    assert isinstance(there.__cause__, RemoteTraceback)
    assert "in fail" in str(there.__cause__)


class _Stubborn(Exception):
    def __reduce__(self) -> str:
        raise TypeError("not this one")


def test_an_error_that_does_not_pickle_has_a_stand_in_that_names_it() -> None:
    there = loads_error(dumps_error(_Stubborn("awkward")))
    assert type(there) is AisBenchError
    assert "_Stubborn: awkward" in str(there)


class _Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


def test_an_error_whose_str_raises_is_still_of_its_type() -> None:
    there = loads_error(dumps_error(_Speechless()))
    assert type(there) is _Speechless
    assert "_Speechless: its str() raised" in str(there.__cause__)


def test_the_errors_of_the_pool_pickle_with_what_they_carry() -> None:
    error = WorkerDied("gone")
    error.device_id, error.signal = 3, 9
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.device_id, copy.signal, str(copy)) == (3, 9, "gone")
