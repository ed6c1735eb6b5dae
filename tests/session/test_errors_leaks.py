"""All errors are in ais_bench.errors: every public call is tested with an invalid value for every argument.

A call may succeed or raise an AisBenchError. The only exception is Python's own error for a wrong number of arguments.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aclruntime
import ais_bench
import ais_bench.emulator as emulator
import ais_bench.evaluate
from ais_bench.errors import AisBenchError, SessionClosed
from ais_bench.infer import summary as summaries
from ais_bench.pool import PoolSettings
from ais_bench.session import InferSession, MemorySummary, MultiDeviceSession

pytestmark = pytest.mark.usefixtures("leaves_nothing", "a_folder_of_its_own")
ModelPath = Callable[[str], str]

X = np.ones((3, 4), np.float32)


@pytest.fixture
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a new folder, because some of the invalid values are names of files that can be written."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    logger = logging.getLogger("ais_bench")
    level = logger.level  # `debug` sets it
    yield
    logger.setLevel(level)


class Nothing:
    """An object that is invalid for every argument."""

    def __repr__(self) -> str:
        return "Nothing()"


WRONG = [
    *(None, Nothing(), Nothing, object, lambda: 0, iter([1]), range(3), True, -1, 0, 10**30, 1.5, float("nan"), np.float32(1)),
    *("text", "", "a\0b", b"bytes", "/no/such/file", Path("/no/such")),
    *([], [None], ["text"], [-1], [10**30], [[]], [[None]], (1, 2, 3), ["/no/such/file"], [["/no/such/file"]]),
    *({}, {"x": None}, {0: 5}, {"text": [1]}, {None: None}, {-1: [[X]]}),
    *(np.array("text"), np.array(None), np.ones((0, 4), np.float32), [np.array(["a"])]),
]  # fmt: skip


def is_signature_error(error: TypeError, call: Callable[..., Any], given: dict[str, Any]) -> bool:
    try:
        inspect.signature(call).bind(**given)
    except TypeError:
        return True
    except ValueError:
        return "argument" in str(error)
    return False


def leaks_of(label: str, call: Callable[..., Any], good: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """Return the errors of `call(**good)` that are not an AisBenchError, with each argument replaced by each invalid value."""
    found = []
    for name in names if names is not None else good:
        for wrong in WRONG:
            value = iter([1]) if isinstance(wrong, type(iter([1]))) else wrong
            given = {**good, name: value}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = call(**given)
                    if isinstance(made, Iterator):
                        list(made)
            except AisBenchError:
                pass
            except BaseException as error:
                if not (isinstance(error, TypeError) and is_signature_error(error, call, given)):
                    found.append(f"{label}({name}={wrong!r}): {type(error).__name__}: {error}"[:300])
    return found


def defaults(method: Callable[..., Any], **good: Any) -> dict[str, Any]:
    """Return the arguments of a method, from `good` if there is no default."""
    result = {}
    if method.__name__ in ("to_host",):
        return result  # native, without arguments
    for one in inspect.signature(method).parameters.values():
        if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        result[one.name] = good.get(one.name, None if one.default is one.empty else one.default)
    return result


# Valid values for arguments without a default, by name.
GOOD: dict[str, Any] = {
    **{"feeds": [X], "feeds_list": [[X]], "iterable": [[X]], "arrays": [X], "in_out_list": [0], "infilelist": [], "files": []},
    **{
        "output": "",
        "loop": 1,
        "w": 1,
        "h": 1,
        "height": 1,
        "width": 1,
        "dymBatch": 3,
        "batch": 1,
        "batchsize": 1,
        "device": 0,
    },
    **{
        "dym_dims": "x:3,4",
        "dym_shape": "x:3,4",
        "dims": "x:3,4",
        "shapes": "x:3,4",
        "shape": [3, 4],
        "config_file": "/no/such",
    },
    **{"custom_sizes": 100, "tensors": [], "output_names": ["y"], "get_outputs": False, "mem_copy": True, "input": None},
    **{"sizes": [1], "name": "RGB888_U8", "size": [4, 4], "on": 0, "values": [1]},
}
SKIP = {"add_device", "remove_device", "close", "free_resource", "finalize", "start", "report"}


def methods(instance: Any, cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(cls):
        if name.startswith("_") or name in SKIP or isinstance(inspect.getattr_static(cls, name), property):
            continue  # reading a property may raise
        if callable(getattr(instance, name)):
            yield name, getattr(instance, name)


def leaks_of_methods(instance: Any, cls: type, **good: Any) -> list[str]:
    found = []
    for name, method in methods(instance, cls):
        found += leaks_of(f"{cls.__name__}.{name}", method, defaults(method, **{**GOOD, **good}))
    return found


def test_infer_session(model: ModelPath) -> None:
    found = leaks_of("InferSession", InferSession, defaults(InferSession, device_id=0, model_path=model("batch")))
    with InferSession(0, model("batch")) as session:
        desc = session.get_inputs()[0]
        found += leaks_of_methods(session, InferSession, desc=desc)
        session.set_staticbatch()
        session.set_loop_count(1)
        assert np.array_equal(session.infer([X])[0], -X)
    assert found == []


def test_aclruntime(model: ModelPath) -> None:
    options = aclruntime.session_options()
    found = leaks_of(
        "InferenceSession",
        lambda model_path, device_id, options: aclruntime.InferenceSession(model_path, device_id, options),
        {"model_path": model("batch"), "device_id": 0, "options": options},
    )
    found += leaks_of("model", aclruntime.model, {"modelPath": model("batch"), "deviceId": 0, "options": options})
    session = aclruntime.InferenceSession(model("batch"), 0, options)
    names = [desc.name for desc in session.get_outputs()]
    tensor = aclruntime.Tensor(X)
    desc = session.get_inputs()[0]
    found += leaks_of_methods(session, aclruntime.InferenceSession, output_names=names, feeds=[tensor], desc=desc)
    for form in (
        {"infiles": [], "options": aclruntime.infer_options(), "extra": []},
        {"infiles": [], "output": "", "auto_shape": False, "auto_dims": False},
        {"names": names, "inputs": [[X]], "shapes": [[[3, 4]]], "auto_shape": True, "auto_dims": False},
    ):
        found += leaks_of(f"run_pipeline/{len(form)}", lambda **given: session.run_pipeline(*given.values()), form)
    found += leaks_of("Tensor", aclruntime.Tensor, {"array": X, "device_id": None})
    found += leaks_of_methods(tensor, aclruntime.Tensor, device_id=0, array=X, dtype=None)
    found += leaks_of("BaseTensor", aclruntime.BaseTensor, {"address": X.ctypes.data, "nbytes": X.nbytes}, ["nbytes"])
    found += leaks_of("batch", aclruntime.batch, {"inputs": [tensor, tensor], "keep_dims": False})
    session.free_resource()
    assert found == []


def test_options_of_sessions_that_are_assigned(model: ModelPath) -> None:
    found = []
    for name in ("loop", "log_level", "acl_json_path"):

        def make(value: Any, name: str = name) -> None:
            options = aclruntime.session_options()
            setattr(options, name, value)
            aclruntime.InferenceSession(model("batch"), 0, options).free_resource()

        found += leaks_of(f"session_options.{name}", make, {"value": 1})
    assert found == []


def test_multi_device_session(models: dict[str, str]) -> None:
    settings = {name: 1 for name in PoolSettings.__dataclass_fields__ if name != "affinity"}
    good = {**defaults(MultiDeviceSession, model_path=models["add"]), **settings}
    found = leaks_of("MultiDeviceSession", lambda **given: MultiDeviceSession(**given), good)
    with MultiDeviceSession(models["add"], devices=[0]) as session:
        feeds = [np.ones(desc.shape, np.float32) for desc in session.get_inputs()]
        good = {"feeds": feeds, "feeds_list": [feeds], "iterable": [feeds], "arrays": feeds, "in_out_list": [0, -1]}
        for name, method in methods(session, MultiDeviceSession):
            calls = {
                "submit": lambda **given: session.submit(**given).result(60),
                "infer_async": lambda **given: asyncio.run(session.infer_async(**given)),
            }
            arguments = defaults(method, **{**GOOD, **good, "device": None})
            found += leaks_of(f"MultiDeviceSession.{name}", calls.get(name, method), arguments)
        for name in ("add_device", "remove_device"):
            found += leaks_of(f"MultiDeviceSession.{name}", getattr(session, name), {"device": 77})
        assert len(session.infer(feeds)) == 1
    assert found == []


def test_times_and_summaries() -> None:
    found = leaks_of_methods(MemorySummary(), MemorySummary)
    found += leaks_of(
        "Summary.report", lambda **given: summaries.Summary().report(**given), defaults(summaries.Summary().report, batchsize=1)
    )
    assert found == []


def test_the_emulator(onnx_model: ModelPath, tmp_path: Path) -> None:
    found = leaks_of("pack", emulator.pack, defaults(emulator.pack, model=onnx_model("batch"), output=tmp_path / "model.om"))

    def npus(**given: Any) -> None:
        with emulator.npus(**given):
            pass

    found += leaks_of("npus", npus, {**defaults(emulator.npus), "report": None})
    found += leaks_of("Emulator", emulator.Emulator, {"path": None})
    found += leaks_of_methods(emulator.Emulator(), emulator.Emulator, rules="", function="aclInit", device=0)
    assert found == []


def test_pool_settings() -> None:
    names = list(PoolSettings.__dataclass_fields__)
    assert leaks_of("PoolSettings", PoolSettings, {}, names) == []


def test_closed_sessions(model: ModelPath, models: dict[str, str]) -> None:
    session = InferSession(0, model("batch"))
    desc = session.get_inputs()[0]
    session.free_resource()
    quiet = []
    for name, method in methods(session, InferSession):
        try:
            method(**defaults(method, **GOOD, desc=desc))
            quiet.append(name)
        except AisBenchError:
            pass
    assert {"infer", "infer_pipeline", "infer_iteration", "run", "first_inner_run", "cancel"} & set(quiet) == set()
    pool = MultiDeviceSession(models["add"], devices=[0])
    pool.close()
    for name, method in methods(pool, MultiDeviceSession):
        if name in ("summary", "sumary", "infer_async"):
            continue
        try:
            made = method(**defaults(method, **GOOD))
            assert name in ("reset_summaryinfo", "reset_sumaryinfo", "progress"), (name, made)
        except AisBenchError:
            pass


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_a_session_says_what_to_do_instead_of_copying_it(model: ModelPath, models: dict[str, str], how: str) -> None:
    act = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickle.dumps}[how]
    low = aclruntime.InferenceSession(model("batch"), 0, aclruntime.session_options())
    with InferSession(0, model("batch")) as session, MultiDeviceSession(models["add"], devices=[0]) as pool:
        pool.start()  # a pool that was not started can be pickled
        for one in (session, pool, low):
            with pytest.raises(AisBenchError, match="cannot be (copied|pickled).*make") as caught:
                act(one)
            assert isinstance(caught.value, TypeError)
    low.free_resource()


def test_the_lazy_modules_raise_what_python_wants_of_them() -> None:
    for module in (ais_bench, ais_bench.evaluate):
        with pytest.raises(AttributeError):
            module.no_such_name  # noqa: B018
    assert issubclass(SessionClosed, AisBenchError)
