"""Every error of a task names the task, and every load error names the model."""

from __future__ import annotations

import copy
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench import errors
from ais_bench.session import InferSession, MultiDeviceSession
from support.scripts import run_script
from support.session import DEVICES, pair

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

X = np.ones((3, 4), np.float32)
BAD = [np.ones((3, 3), np.float32)]


def text_of(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def named(error: Any, index: int | None, device: int) -> bool:
    said = text_of(error)
    return (
        error.index == index
        and error.device_id == device
        and f"device {device}" in said
        and (index is None or re.search(rf"\bindex {index}\b", said) is not None)
    )


def test_an_error_of_a_pipeline_names_its_set(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        for wrong in (BAD, [None], [X, X]):
            with pytest.raises(errors.FeedError) as caught:
                session.infer_pipeline([[X], [X], wrong, [X]], "dymshape")
            assert named(caught.value, 2, 0)
        with pytest.raises(errors.FeedError) as caught:
            session.infer(BAD)
        assert caught.value.index is None
        assert named(caught.value, None, 0)


def test_a_pipeline_returns_errors_in_their_places(model: ModelPath) -> None:
    with InferSession(0, model("gather")) as session:
        sets = [[np.array([1])], [np.array([99])], [None], [np.array([0])], [np.array([-99])], [np.array([2])]]
        results = session.infer_pipeline(sets, on_error="return")
        wrong = [n for n, result in enumerate(results) if isinstance(result, errors.AisBenchError)]
        assert wrong == [1, 2, 4]
        assert all(named(results[n], n, 0) for n in wrong)
        for n in (0, 3, 5):
            assert np.array_equal(results[n][0], session.infer(sets[n])[0])
        with pytest.raises(errors.AisBenchError) as caught:
            session.infer_pipeline(sets)
        assert named(caught.value, 1, 0)
        assert session.infer_pipeline([], on_error="return") == []


def test_the_error_of_the_list_itself_is_raised_as_it_is(model: ModelPath) -> None:
    def sets() -> Any:
        yield [X]
        raise LookupError("the data end here")

    with InferSession(0, model("batch")) as session:
        for on_error in ("raise", "return"):
            with pytest.raises(LookupError, match="^'the data end here'|^the data end here"):
                session.infer_pipeline(sets(), "dymshape", on_error=on_error)
        assert np.array_equal(session.infer([X])[0], -X)


def test_every_call_of_a_pool_names_its_tasks(models: dict[str, str]) -> None:
    wrong = [np.zeros(5, np.int8)] * 2
    with MultiDeviceSession(models["open"], devices=DEVICES) as session:
        calls: list[tuple[Callable[[], Any], int | None]] = [
            (lambda: session.infer(wrong), None),
            (lambda: session.infer({DEVICES[-1]: [pair(0), wrong]}), 1),
            (lambda: session.submit(wrong).result(60), None),
            (lambda: list(session.map([pair(0), pair(1), wrong])), 2),
            (lambda: list(session.map_unordered([pair(0), pair(1), wrong])), 2),
            (lambda: session.infer_pipeline([pair(0), wrong]), 1),
            (lambda: session.infer_pipeline({DEVICES[0]: [[pair(0), wrong]]}), 1),
            (lambda: session.infer_iteration(wrong, [0, -1], 3), None),
        ]
        for call, index in calls:
            with pytest.raises(errors.FeedError) as caught:
                call()
            assert caught.value.device_id in DEVICES
            assert named(caught.value, index, caught.value.device_id)
        (returned,) = [one for one in session.map([pair(0), wrong], on_error="return") if isinstance(one, Exception)]
        assert named(returned, 1, returned.device_id)  # type: ignore[attr-defined]
        for lists, wanted in (([pair(0), wrong], 1), ({DEVICES[0]: [[pair(0), wrong]]}, 1)):
            results = session.infer_pipeline(lists, on_error="return")
            results = results[DEVICES[0]][0] if isinstance(results, dict) else results
            assert len(results) == 2
            assert named(results[wanted], wanted, results[wanted].device_id)


class Strange(Exception):
    """An exception with another constructor and without attributes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


def test_the_error_of_a_callable_keeps_its_type_and_names_its_task(models: dict[str, str]) -> None:
    def preprocess(n: int) -> Any:
        if n == 4:
            raise KeyError("n is 4")
        return pair(n)

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=preprocess) as session:
        with pytest.raises(KeyError, match="^'n is 4'") as caught:
            list(session.map(range(6)))
        assert caught.value.args == ("n is 4",)
        assert named(caught.value, 4, caught.value.device_id)  # type: ignore[attr-defined]
        with pytest.raises(KeyError) as single:
            session.infer(4)
        assert single.value.device_id in DEVICES  # type: ignore[attr-defined]


def test_an_exception_whose_attributes_raise_is_still_the_error_of_its_task(models: dict[str, str]) -> None:
    """In another process, because pytest reads attributes of exceptions, too."""
    printed = run_script(
        """
        import sys
        from ais_bench.session import MultiDeviceSession

        class Closed(Exception):
            def __getattr__(self, name):
                raise ZeroDivisionError(name)

        def preprocess(n):
            raise Closed(f"n is {n}")

        with MultiDeviceSession(sys.argv[1], devices=[0], preprocess=preprocess) as session:
            try:
                session.infer(1)
            except Closed as error:
                print(error)
            print(*(type(result).__name__ for result in session.map([1, 2], on_error="return")))
        """,
        models["open"],
    )
    assert printed.splitlines() == ["n is 1", "Closed Closed"]


def test_naming_adds_what_is_not_said_yet() -> None:
    error = errors.name_task(errors.FeedError("wrong"), 3)
    assert str(error) == "wrong (feeds with index 3)"
    assert str(errors.name_task(error, 3, 1)) == "wrong (feeds with index 3) (device 1)"
    assert errors.name_task(error, 7, 2) is error
    assert (error.index, error.device_id) == (3, 1)
    strange = errors.name_task(Strange(1, "two"), 3, 1)
    assert (strange.args, text_of(strange)) == ((1, "two"), "(1, 'two')\n(feeds with index 3, device 1)")
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(copied), str(copied), copied.index, copied.device_id) == (type(error), str(error), 3, 1)


def test_a_model_that_does_not_load_is_named_whatever_the_reason(model: ModelPath, tmp_path: Path) -> None:
    good = model("add")
    with pytest.raises(errors.DeviceUnavailable, match=re.escape(good)):
        InferSession(5000, good)
    for kind, content in (("text", b"no model"), ("empty", b""), ("cut", Path(good).read_bytes()[:-20])):
        path = tmp_path / f"{kind}.model"
        path.write_bytes(content)
        for make in (lambda: InferSession(0, path), lambda: MultiDeviceSession(path, devices=[0]).start()):  # noqa: B023
            with pytest.raises(errors.AisBenchError, match=re.escape(str(path))):
                make()
    with pytest.raises(errors.ModelLoadError, match=re.escape(str(tmp_path / "missing"))):
        InferSession(0, tmp_path / "missing")


def test_a_compiled_model_without_ascendcl_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.om"
    path.write_bytes(b"IMOD" + bytes(1000))
    printed = run_script(
        """
        import sys
        from ais_bench import errors
        from ais_bench.session import InferSession, MultiDeviceSession

        for make in (
            lambda: InferSession(0, sys.argv[1]),
            lambda: MultiDeviceSession(sys.argv[1]).start(),
            lambda: MultiDeviceSession(sys.argv[1]).devices,
            lambda: MultiDeviceSession(sys.argv[1], devices=[0]).start(),
        ):
            try:
                make()
            except errors.AisBenchError as error:
                print(type(error).__name__, sys.argv[1] in str(error), "libascendcl.so" in str(error))
        """,
        str(path),
        AIS_BENCH_ACL_LIBRARY=str(tmp_path / "libascendcl.so"),
    )
    assert [line.split()[1:] for line in printed.splitlines()] == [["True", "True"]] * 4, printed


@pytest.mark.parametrize("level", [logging.NOTSET, logging.WARNING])
def test_debug_leaves_the_logging_of_the_program_alone(model: ModelPath, level: int, caplog: pytest.LogCaptureFixture) -> None:
    logger, root = logging.getLogger("ais_bench"), logging.getLogger()
    before_level = logger.level
    logger.setLevel(level)
    before = (list(root.handlers), list(logger.handlers), root.level)
    InferSession(0, model("add"), debug=True).free_resource()
    assert (list(root.handlers), list(logger.handlers), root.level) == before
    assert logger.level == (level or logging.DEBUG)
    assert ("loaded <Model>" in caplog.text) == (level == logging.NOTSET)
    logger.setLevel(before_level)
