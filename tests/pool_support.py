"""What the tests of the pool share: a fixture that nothing may be left behind, waiting for a condition, and scripts."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

TESTS = Path(__file__).parent


def wait_until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """The condition's value once it is true. Fails the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what or condition}")
        time.sleep(0.005)
    return value


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _descriptors() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def _shared_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:")


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("ais_bench")}


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails a test after which a process, a thread, a descriptor or shared memory is left."""
    children, descriptors, mappings = _children(), _descriptors(), _shared_mappings()
    yield

    def left() -> dict[str, Any]:
        gc.collect()
        found = {
            "processes": _children() - children,
            "threads": _threads(),
            "descriptors": _descriptors() - descriptors,
            "mappings": max(0, _shared_mappings() - mappings),
        }
        return {kind: what for kind, what in found.items() if what}

    deadline = time.monotonic() + 5
    while (leftovers := left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not leftovers, leftovers


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
