"""Callables and exceptions as bytes. ais_bench.wire.travel decides what is sent by value."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

from ais_bench.errors import AisBenchError
from ais_bench.wire import travel


class RemoteTraceback(Exception):
    """The cause of an exception from a worker: the worker's traceback as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def dumps_by_value(obj: Any) -> bytes:
    """Return bytes from which `loads` makes `obj` in a worker. Raises ConfigError if it cannot be pickled."""
    try:
        return travel.dumps(obj)
    except Exception as error:
        raise travel.not_sent(obj, error) from error


def loads(data: bytes) -> Any:
    """Return the object of `dumps_by_value`."""
    return travel.loads(data)


def dumps_error(error: BaseException) -> bytes:
    """Return an exception and its traceback as bytes, for `loads_error`. Never raises."""
    import traceback

    pickled = b""
    with contextlib.suppress(Exception):  # its own pickling may raise anything
        pickled = _dumps_what_can_be(error)
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        name, text = f"{name}: {error}", "".join(traceback.format_exception(error))
    except Exception:  # and so may its str()
        text = f"{''.join(traceback.format_tb(error.__traceback__))}{name}: its str() raised an error"
    return pickle.dumps((pickled, name, text))


def _dumps_what_can_be(error: BaseException) -> bytes:
    """Return the exception as bytes, without the attributes that cannot be sent, such as an open file."""
    try:
        return travel.dumps(error)
    except Exception:
        copy = travel.error_again(type(error), tuple(arg if _can_be_sent(arg) else repr(arg) for arg in error.args))
        copy.__dict__.update({name: value for name, value in error.__dict__.items() if _can_be_sent(value)})
        return travel.dumps(copy)


def _can_be_sent(value: Any) -> bool:
    try:
        travel.dumps(value)
    except Exception:
        return False
    return True


def loads_error(data: bytes) -> BaseException:
    """Return the exception, with the remote traceback as its cause; an AisBenchError that names it if unpickling fails."""
    pickled, name, text = pickle.loads(data)
    error: object = None
    with contextlib.suppress(Exception):  # it was not pickled, or its class cannot be found or made here
        error = travel.loads(pickled)
    if not isinstance(error, BaseException):
        error = AisBenchError(name)
    error.__cause__ = RemoteTraceback(text)
    return error
