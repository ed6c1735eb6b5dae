"""A type checker sees the public names: it catches misspelt options and knows what the calls return."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ais_bench.pool import settings
from support import ROOT

PROGRAM = """
from typing import Any
import numpy as np
from ais_bench import InferSession, MemorySummary, MultiDeviceSession, __version__
from ais_bench.pool import Answer, DevicePool
from ais_bench.shm import Task

MultiDeviceSession("model.onnx", task_timeout=3)
MultiDeviceSession("model.onnx", task_timout=3)  # wrong
MultiDeviceSession("model.onnx", task_timeout="3")  # wrong
InferSession(0, "model.onnx", threads=2)
InferSession(0, "model.onnx", thread=2)  # wrong
session = InferSession(0, "model.onnx")
arrays: list[np.ndarray[Any, Any]] = session.infer([])
reveal_type(session.infer([], out_array=False))  # Tensor
reveal_type(MultiDeviceSession("model.onnx").infer({0: [[]]}))  # dict[
reveal_type(__version__)  # str

class Handler:
    native = None
    def describe(self) -> None: ...
    def run(self, given: Task) -> Answer:
        return Answer(given.feeds)
    def close(self) -> None: ...

DevicePool(lambda _: Handler(), [0])
DevicePool(lambda: Handler(), [0])  # wrong
"""


def test_the_options_of_the_type_checker_are_those_of_the_pool() -> None:
    fields = {field.name for field in dataclasses.fields(settings.PoolSettings)}
    assert set(settings.PoolOptions.__annotations__) == fields - {"affinity"}


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_catches_what_is_misspelt(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    said: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith(str(tmp_path)):
            number = int(line.split(":")[1])
            said[number] = said.get(number, "") + line
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        if line.endswith("# wrong"):
            assert "error" in said[number], done.stdout
        elif "reveal_type" in line:
            assert line.split("# ")[1] in said[number].split("Revealed type is")[1], done.stdout
        else:
            assert number not in said, done.stdout
