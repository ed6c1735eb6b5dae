"""Short forms for the tests of the pool."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ais_bench.pool import DevicePool, Task
from support.handlers import order

by_policy = pytest.mark.skipif(
    "AIS_BENCH_POOL_RANDOM" in os.environ, reason="it is about what the policy decides, and decisions are drawn by lot"
)


def one(pool: DevicePool, *what: int, **how: Any) -> Any:
    """Run a task of Obedient, and return its result."""
    return pool.run(Task(order(*what), **how)).result()


def submit(pool: DevicePool, *what: int, timeout: float | None = None, **how: Any) -> Any:
    """Submit such a task."""
    return pool.submit(Task(order(*what), **how), timeout=timeout)
