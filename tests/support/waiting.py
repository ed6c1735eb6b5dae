"""Waits with a condition and a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest


def wait_until(condition: Callable[[], Any], seconds: float = 40.0, what: str = "") -> Any:
    """Wait until the condition is true and return its value. Fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what or condition}")
        time.sleep(0.005)
    return value


def gone(pid: int) -> bool:
    """Return whether the process does not exist, or is a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
