"""Decide whether several threads may call a function at the same time.

A function may be called so if it keeps no state between calls. So this file looks for places in which a function could keep
state. It is conservative: anything unknown counts as state. The only cost is that one thread calls the function instead of two.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from ais_bench.options import as_int

__all__ = ["keeps_no_state", "threads_for"]

_CONSTANTS = (int, float, complex, str, bytes, range, type(None), type(Ellipsis), np.generic, np.dtype, np.ufunc)
_CODE = (type, ModuleType)
_KEEPS = ("STORE_GLOBAL", "DELETE_GLOBAL")


def threads_for(function: Callable[..., Any] | None, asked: int | None) -> int:
    """Return how many threads call a callable of a session. Raises ConfigError if `asked` is not a number of threads."""
    if asked is not None:
        asked = as_int("callable_threads", asked, 0, 64)
    if function is None:
        return 0
    if asked is not None:
        return asked
    return 2 if keeps_no_state(function) else 1


def keeps_no_state(function: Any) -> bool:
    """Return whether a function uses only its arguments, modules, classes, constants and functions of the same kind."""
    return _is_harmless(function, set())


def _is_harmless(value: Any, seen: set[int]) -> bool:
    if id(value) in seen:  # for example a function that calls itself
        return True
    seen.add(id(value))
    if isinstance(value, functools.partial):
        return all(_is_harmless(part, seen) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, (tuple, frozenset)):
        return all(_is_harmless(part, seen) for part in value)
    if isinstance(value, BuiltinFunctionType):  # of a module, not the method of an object
        return value.__self__ is None or isinstance(value.__self__, ModuleType)
    if type(value) is FunctionType:
        return _is_harmless_function(value, seen)
    return isinstance(value, (*_CONSTANTS, *_CODE))


def _is_harmless_function(function: FunctionType, seen: set[int]) -> bool:
    if function.__dict__:
        return False
    codes = list(_codes(function.__code__))
    outer = set(function.__code__.co_freevars)
    for code in codes:
        for step in dis.get_instructions(code):
            if step.opname in _KEEPS or (step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outer):
                return False
    names = {name for code in codes for name in code.co_names}
    used: list[Any] = [function.__globals__[name] for name in names if name in function.__globals__]
    used += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    try:
        used += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # an empty cell
        return False
    return all(_is_harmless(value, seen) for value in used)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
