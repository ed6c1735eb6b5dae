"""What the tests of pools share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ais_bench.pool import DevicePool
from support.handlers import Obedient


@pytest.fixture
def pool() -> Iterator[DevicePool]:
    with DevicePool(Obedient, [0, 1]) as made:
        yield made
