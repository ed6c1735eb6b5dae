"""FeedWarnings of a pool reach the caller, and say where in the caller's code the feeds are from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from multi_device_support import DEVICES

from ais_bench.errors import FeedWarning
from ais_bench.session import MultiDeviceSession

pytestmark = pytest.mark.usefixtures("leaves_nothing")
FLAT = np.arange(8, dtype=np.float32)
WHOLE = np.arange(8, dtype=np.int32).reshape(2, 4)

CALLS: dict[str, Callable[[MultiDeviceSession, Any], Any]] = {
    "infer": lambda session, x: session.infer([x]),
    "infer bare": lambda session, x: session.infer(x),
    "submit": lambda session, x: session.submit([x]).result(60),
    "by device": lambda session, x: session.infer({0: [[x]]}),
    "map": lambda session, x: list(session.map([[x]])),
    "infer_pipeline": lambda session, x: session.infer_pipeline([x]),
    "infer_iteration": lambda session, x: session.infer_iteration([x], [-1], 2),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_pools_warnings_reach_the_caller_once(model: Callable[[str], str], call: str) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES) as session, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            CALLS[call](session, FLAT)
            CALLS[call](session, WHOLE)
        mine = [warning for warning in caught if warning.category is FeedWarning]
        texts = [str(warning.message) for warning in mine]
        assert len(texts) == 2
        assert "(2, 4)" in texts[0]
        assert "int32" in texts[1]
        assert {warning.filename for warning in mine} == {__file__}


def test_a_warning_turned_into_an_error_fails_the_call_alone(model: Callable[[str], str]) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FeedWarning)
            with pytest.raises(FeedWarning):
                session.infer([FLAT])
        (y,) = session.infer([WHOLE.astype(np.float32)])
        assert np.array_equal(y, -WHOLE)
