"""The Python side of tasks: their answers, and the errors that the pool makes for them. The record itself is native."""

from __future__ import annotations

from typing import Any, NoReturn

from ais_bench._native import PoolTask as Task
from ais_bench.errors import TaskTimeout, name_task
from ais_bench.wire import OBJECT, decode
from ais_bench.wire.pickling import loads_error

__all__ = ["Task", "answer_of", "too_late"]


def answer_of(task: Task) -> Any:
    """Return the object with which the handler answered, or raise the task's error. Native code calls this function.

    The error has `index` and `device_id`.
    """
    if task.error is not None:
        _raise_named(task, task.error)
    assert task.outputs is not None
    answer = decode(task.outputs)
    if task.answer_kind == OBJECT:
        return answer
    _raise_named(task, loads_error(answer))


def _raise_named(task: Task, error: BaseException) -> NoReturn:
    raise name_task(error, task.index, task.device if task.ran_on is None else task.ran_on)


def too_late(task: Task, option: str, limit_s: float, took_s: float) -> TaskTimeout:
    """Return the error of a task that took `took_s` seconds, longer than `option` allows."""
    error = TaskTimeout(f"the task took {took_s:.3f} s, and {option} allows {limit_s:g} s")
    return name_task(error, task.index, task.at_device)
