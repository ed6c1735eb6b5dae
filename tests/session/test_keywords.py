"""The error for a misspelt keyword of any public function suggests the nearest valid name."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

from ais_bench import emulator, evaluate
from ais_bench.errors import ConfigTypeError
from ais_bench.pool import DevicePool, PoolSettings
from ais_bench.session import InferSession, MultiDeviceSession, system_info

CLASSES: list[type] = [InferSession, MultiDeviceSession, DevicePool]
FUNCTIONS: list[Callable[..., Any]] = [evaluate.evaluate, evaluate.score, emulator.pack, emulator.npus, system_info]
if importlib.util.find_spec("ray") is not None:
    from ais_bench.ray import ClusterSession

    CLASSES.append(ClusterSession)
Parameters = list[inspect.Parameter]


def named(function: Callable[..., Any]) -> Parameters:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one for one in inspect.signature(function).parameters.values() if one.kind in kinds and one.name != "self"]


def public() -> Iterator[Any]:
    """Yield every public function with an optional argument, because these are given by name."""
    for function in [*FUNCTIONS, *CLASSES]:
        yield pytest.param(function, id=function.__name__)
    for cls in CLASSES:
        for name, member in vars(cls).items():
            if name.startswith("_") or not inspect.isfunction(member):
                continue
            if any(one.default is not one.empty for one in named(member)):
                yield pytest.param(member, id=f"{cls.__name__}.{name}")


def call(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Call the function with values for its required arguments."""
    takes_self = "self" in inspect.signature(function).parameters
    needed = {one.name: MagicMock() for one in named(function) if one.default is one.empty}
    result = function(*([MagicMock()] if takes_self else []), **needed, **given)
    if inspect.iscoroutine(result):
        asyncio.run(result)
    if hasattr(result, "__enter__"):
        result.__enter__()


@pytest.mark.parametrize("function", list(public()))
def test_a_misspelt_keyword_is_answered_with_the_right_one(function: Callable[..., Any]) -> None:
    known = [one.name for one in named(function)]
    assert known
    for name in known:
        if len(name) < 3:
            continue
        wrong = f"{name[:-1]}x{name[-1]}"
        with pytest.raises(ConfigTypeError, match=rf"'{wrong}'; did you mean '\w+'") as caught:
            call(function, {wrong: 1})
        assert f"did you mean '{name}'" in str(caught.value)
        assert isinstance(caught.value, TypeError)  # like Python's own error
    with pytest.raises(ConfigTypeError, match=r"'qqqqqqqq'; (it takes|use) '\w+'"):
        call(function, {"qqqqqqqq": 1})


def test_evaluate_knows_the_options_of_the_session_too() -> None:
    for name, meant in {
        "metric": "metrics",
        "task_timout": "task_timeout",
        "prepocess": "preprocess",
        "warmups": "warmup",
    }.items():
        with pytest.raises(ConfigTypeError, match=f"unknown option '{name}'; did you mean '{meant}'"):
            evaluate.evaluate("no such file.onnx", [1, 2], **{name: 1})

    def make(model: Any, **options: Any) -> Any:
        assert options["colour"] == 1
        raise RuntimeError(f"made of {model}")

    with pytest.raises(RuntimeError, match="made of"):  # arguments of a foreign function are not checked
        evaluate.evaluate("no such file.onnx", [1, 2], session=make, colour=1)


def test_settings_of_a_pool() -> None:
    with pytest.raises(ConfigTypeError, match="unknown option 'task_timout'; did you mean 'task_timeout'"):
        PoolSettings(task_timout=3)  # type: ignore[call-arg]
    made = PoolSettings(task_timeout=3.0)
    assert pickle.loads(pickle.dumps(made)) == made
