"""The Python calls, and the moves between files, of a small task. After copying, they cost most."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

from ais_bench.session import MultiDeviceSession
from support.session import pair

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Walk:
    """Counts the Python calls of ais_bench in a call, and the moves between its files, both ways; the extension is one file."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.calls = self.moves = 0
        self._files = ["caller"]
        sys.setprofile(self._note)
        try:
            call()
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "return"):
            file = frame.f_code.co_filename
            if "ais_bench" not in file or "tests" in file:
                return
            self.calls += event == "call"
        elif str(getattr(argument, "__module__", "")).startswith("ais_bench._native"):
            file = "the extension"
        else:
            return
        if event in ("call", "c_call"):
            self.moves += file != self._files[-1]
            self._files.append(file)
        elif file == self._files[-1]:
            self._files.pop()
            self.moves += file != self._files[-1]
        else:  # Python 3.12 tells of the end of some native calls only
            self.moves += 2


@pytest.fixture
def session(models: dict[str, str]) -> Iterator[MultiDeviceSession]:
    with MultiDeviceSession(models["open"], devices=[0]) as made:
        made.infer(pair(0))
        yield made


def test_one_infer(session: MultiDeviceSession) -> None:
    feeds = pair(1)
    walk = Walk(lambda: session.infer(feeds))
    assert 0 < walk.calls <= 12
    assert 0 < walk.moves <= 14


@pytest.mark.parametrize("way", ["map", "map_unordered"])
def test_one_item_of_a_stream(session: MultiDeviceSession, way: str) -> None:
    results = getattr(session, way)(itertools.repeat(pair(1), 200))
    next(results)
    walk = of(results)
    assert (walk.calls, walk.moves) == (0, 0)
    results.close()


def of(results: Iterator[Any]) -> Walk:
    """Count what a hundred results cost."""
    return Walk(lambda: [next(results) for _ in range(100)])


def test_feeds_with_something_to_say_take_the_longer_way_to_the_same(session: MultiDeviceSession) -> None:
    left, right = pair(3)
    wanted = session.infer([left, right])
    for feeds in ((left, right), {"a": left, "b": right}, [memoryview(left), right]):
        assert np.array_equal(session.infer(feeds)[0], wanted[0])
