"""Fixtures for the tests of MultiDeviceSession."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ais_bench.session import MultiDeviceSession
from support.session import DEVICES


@pytest.fixture
def session(models: dict[str, str]) -> Iterator[MultiDeviceSession]:
    """Two CPU devices, or one if there is no second, and a model that adds rows of three."""
    with MultiDeviceSession(models["open"], devices=DEVICES) as made:
        yield made
