"""Python objects through a lane: by value if the worker could not import them, with arrays out of band."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ais_bench.shm import OBJECT, RAISED, decode, encode
from support import TESTS
from support.shm_peer import PATIENCE_S, peer


@pytest.mark.parametrize("obj", [None, 3, "text", {"a": [1, (2,)]}, b"x" * 10_000, bytearray(b"y" * 10_000)])
def test_objects_come_back_equal(obj: object) -> None:
    assert decode(encode(obj)) == obj


def test_large_arrays_travel_out_of_band_and_own_their_memory() -> None:
    array = np.arange(10_000.0)
    buffers = encode({"large": array, "small": np.arange(3)})
    assert len(buffers) == 2
    assert np.shares_memory(buffers[1], array)
    back = decode(buffers)
    assert not np.shares_memory(back["large"], array)
    back["large"][0] = -1
    assert array[0] == 0
    np.testing.assert_array_equal(back["large"][1:], array[1:])


def test_a_worker_runs_functions_and_returns_what_they_return() -> None:
    offset = 5
    with peer("objects") as worker:
        reply = worker.call(encode((lambda array, factor: array * factor + offset, np.arange(4), 3)), kind=OBJECT)
        assert reply.kind == OBJECT
        assert decode(reply.outputs).tolist() == [5, 8, 11, 14]


def test_what_a_worker_raises_keeps_its_type() -> None:
    def divide(by: int) -> float:
        return 1 / by

    with peer("objects") as worker:
        reply = worker.call(encode((divide, 0)), kind=OBJECT)
        assert reply.kind == RAISED
        assert isinstance(decode(reply.outputs), ZeroDivisionError)


def test_arrays_and_objects_go_to_one_worker_side_by_side() -> None:
    with peer("native_and_objects") as worker:
        assert worker.call([np.arange(3)]).outputs[0].tolist() == [0, 1, 2]
        assert decode(worker.call(encode("hello"), kind=OBJECT).outputs) == ("seen", "hello")
        assert worker.call([np.arange(2)]).outputs[0].tolist() == [0, 1]


def test_classes_of_main_are_themselves_again_when_they_come_back() -> None:
    program = """
from support.shm_peer import peer
from ais_bench.shm import OBJECT, decode, encode

class Point:
    def __init__(self, x): self.x = x
    def moved(self): return Point(self.x + 1)

class Missing(Exception): pass

def fail(): raise Missing("gone")

with peer("objects") as worker:
    for _ in range(2):
        back = decode(worker.call(encode((Point.moved, Point(1))), kind=OBJECT).outputs)
        assert type(back) is Point and back.x == 2, (type(back), back)
    error = decode(worker.call(encode((fail,)), kind=OBJECT).outputs)
    assert type(error) is Missing and error.args == ("gone",), error
print("done")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=TESTS, capture_output=True, timeout=PATIENCE_S, text=True)
    assert result.stdout == "done\n", result.stderr
