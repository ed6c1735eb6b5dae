"""FeedWarnings of a pool reach the caller, with the line of the caller's code."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import FeedTypeError, FeedWarning, InferenceError
from ais_bench.session import InferSession, MultiDeviceSession
from support.session import DEVICES, add_model

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]
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


STREAMS: dict[str, Callable[[MultiDeviceSession, Any], Any]] = {
    "map": lambda session, items: list(session.map(items)),
    "map details": lambda session, items: [out for out, _ in session.map(items, details=True)],
    "map_unordered": lambda session, items: [out for _, out in sorted(session.map_unordered(items), key=lambda pair: pair[0])],
    "infer_pipeline": lambda session, items: session.infer_pipeline(items),
    "amap": lambda session, items: asyncio.run(all_of(session.amap(items))),
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda x: [x],
    "tuples": lambda x: (x,),
    "bare": lambda x: x,
    "mappings": lambda x: {"x": x},
}


async def all_of(results: Any) -> list[Any]:
    return [result async for result in results]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", STREAMS)
def test_an_item_of_a_stream_warns_however_late_it_comes(model: Callable[[str], str], stream: str, form: str) -> None:
    right = WHOLE.astype(np.float32)
    odd = {90: WHOLE, 110: FLAT, 130: WHOLE.astype(np.uint32), 150: WHOLE, 170: np.ones((1, 2, 4), np.int32)}
    items = [odd.get(index, right) for index in range(200)]
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as session, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = STREAMS[stream](session, (FORMS[form](x) for x in items[:160]))
        mine = [warning for warning in caught if warning.category is FeedWarning]
    assert [out[0].view(x.dtype).ravel().tolist() for (out, x) in zip(results, items, strict=False) if x is right] == [
        (-right).ravel().tolist()
    ] * 156
    texts = [str(warning.message) for warning in mine]
    assert ["int32" in text and "uint32" not in text for text in texts] == [True, False, False]
    assert "by its size" in texts[1]
    assert "uint32" in texts[2]
    if stream != "amap":  # with amap the event loop is the caller
        assert {warning.filename for warning in mine} == {__file__}


@pytest.mark.parametrize("stream", STREAMS)
def test_what_cannot_be_fed_is_one_items_error_and_names_the_input(model: Callable[[str], str], stream: str) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1], on_error="return") as session:
        items = [[WHOLE.astype(np.float32)], [None], [1.5], [np.array([{}])], [WHOLE.astype(np.float32)]]
        good, none, single, objects, last = STREAMS[stream](session, iter(items))
    assert np.array_equal(good[0], -WHOLE)
    assert np.array_equal(last[0], -WHOLE)
    for error, words in (
        (none, "a NoneType"),
        (single, "a float; pass np.asarray(x, np.float32)"),
        (objects, "an array of object"),
    ):
        assert isinstance(error, FeedTypeError)
        assert f"input 'x' is {words}" in str(error)


def test_a_preprocess_warns_of_what_it_makes(model: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    def halves(n: int) -> Any:
        import numpy as np

        return [np.full((2, 4), n, np.int32)]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with MultiDeviceSession(model("batch"), devices=DEVICES[:1], preprocess=halves, preprocess_workers=1) as session:
            list(session.map(range(80)))
    assert ["int32" in str(warning.message) for warning in caught if warning.category is FeedWarning] == [True]
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1], preprocess=halves) as session:
        list(session.map(range(3)))
    told = [record for record in caplog.records if "takes float32 and was given int32" in record.getMessage()]
    assert told
    assert {record.levelname for record in told} == {"WARNING"}


FAILING: dict[str, Callable[[InferSession, list[Any]], Any]] = {
    "infer": lambda session, feeds: session.infer(feeds),
    "tensors": lambda session, feeds: session.infer(feeds, out_array=False),
    "run": lambda session, feeds: session.run(feeds),
    "infer_pipeline": lambda session, feeds: session.infer_pipeline([feeds]),
    "infer_iteration": lambda session, feeds: session.infer_iteration(feeds, [-1, -1], 2),
    "first_inner_run": lambda session, feeds: session.first_inner_run(feeds),
}


@pytest.mark.parametrize("call", FAILING)
def test_a_run_that_fails_gives_its_own_warning(tmp_path: Path, call: str) -> None:
    good = np.ones((2, 4), np.float32)
    path = add_model(tmp_path / "add.onnx", [None, 4])
    with InferSession(0, path) as session:
        with (
            pytest.warns(FeedWarning, match="'a' takes float32 and was given int32"),
            pytest.raises(InferenceError, match=r"by 3( |$)"),
        ):
            FAILING[call](session, [np.ones((2, 4), np.int32), np.ones((3, 4), np.float32)])
        with warnings.catch_warnings():
            warnings.simplefilter("error", FeedWarning)
            assert (session.infer([good, good])[0] == 2).all()


ERRORS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "infer": lambda session, x: [error_of(lambda: session.infer([x]))],
    "infer_iteration": lambda session, x: [error_of(lambda: session.infer_iteration([x], [-1], 2))],
    "infer_pipeline": lambda session, x: session.infer_pipeline([[x], [x]], on_error="return"),
}


def error_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except FeedWarning as error:
        return error


@pytest.mark.parametrize("call", ERRORS)
def test_a_warning_turned_into_an_error_is_one_every_time(model: Callable[[str], str], call: str) -> None:
    with InferSession(0, model("batch")) as one, MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as many:
        for session in (one, many):
            for _ in range(2):
                with warnings.catch_warnings():
                    warnings.simplefilter("error", FeedWarning)
                    found = ERRORS[call](session, WHOLE)
                assert [type(error) for error in found] == [FeedWarning] * len(found)
            (y,) = session.infer([WHOLE.astype(np.float32)])  # type: ignore[attr-defined]
            assert np.array_equal(y, -WHOLE)
