"""A Ray cluster for a file of tests, and the programs that join it."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.scripts import environment, run_python

ON_A_CLUSTER = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.xdist_group("ray"),
]
BEGIN = """
import os, sys, time
import numpy as np
from ais_bench.ray import ClusterSession
model, address, marks = sys.argv[1:4]

def said(text):
    print("said:", text, flush=True)

def feeds(n):
    return [np.full((2, 3), n, np.float32), np.zeros((2, 3), np.float32)]
"""


class Host:
    """The cluster, in a separate process."""

    def __init__(self, nodes: int, npus: int, milliseconds: float) -> None:
        command = [sys.executable, "-m", "support.ray_host", str(nodes), str(npus), str(milliseconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )
        self.address = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        assert self.process.stdin is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def run(host: Host, model: str, marks: Path, program: str) -> str:
    done = run_python("-c", BEGIN + program, model, host.address, str(marks), seconds=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return own_lines(done.stdout)


@contextlib.contextmanager
def started(host: Host, model: str, marks: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program, and kill it at the end of the block if it still runs."""
    command = [sys.executable, "-c", BEGIN + program, model, host.address, str(marks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def own_lines(text: str) -> str:
    """Return the lines that the program `said`, without Ray's notes about lost processes."""
    return "".join(line.partition(": ")[2] for line in text.splitlines(keepends=True) if line.startswith("said: "))
