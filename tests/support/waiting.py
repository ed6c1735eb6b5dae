"""What the tests of the pool share: waiting for a condition, and scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from support import TESTS

by_policy = pytest.mark.skipif(
    "AIS_BENCH_POOL_RANDOM" in os.environ, reason="it is about what the policy decides, and decisions are drawn by lot"
)


def wait_until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """The condition's value once it is true. Fails the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what or condition}")
        time.sleep(0.005)
    return value


def environment() -> dict[str, str]:
    """For scripts: they find the tests' helpers, and ais_bench as this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}


def run_script(*arguments: str, stdin: str | None = None, seconds: float = 60, **how: Any) -> subprocess.CompletedProcess[str]:
    """A Python process with these arguments, waited for."""
    return subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, env=environment(), **how
    )


def gone(pid: int) -> bool:
    """No such process, or only its remains."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
