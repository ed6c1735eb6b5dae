"""Callables and exceptions as bytes. What goes by value is decided in ais_bench.wire.travel."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

from ais_bench.errors import AisBenchError, ConfigError
from ais_bench.wire import travel


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: the traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def dumps_by_value(obj: Any) -> bytes:
    """Bytes that `loads` turns back into `obj` in a worker. Raises ConfigError when it cannot be pickled."""
    try:
        return travel.dumps(obj)
    except Exception as error:
        raise ConfigError(f"{obj!r} cannot be sent to a worker: {error}") from error


def loads(data: bytes) -> Any:
    """The object again."""
    return travel.loads(data)


def dumps_error(error: BaseException) -> bytes:
    """An exception and its traceback as bytes, for `loads_error`. Never raises."""
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
    """The exception, without those of its attributes that cannot be sent, such as an open file."""
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
    """The exception again, its remote traceback as the cause; an AisBenchError that names it where it does not unpickle."""
    pickled, name, text = pickle.loads(data)
    error: object = None
    with contextlib.suppress(Exception):  # it was not pickled, or its class cannot be found or made here
        error = travel.loads(pickled)
    if not isinstance(error, BaseException):
        error = AisBenchError(name)
    error.__cause__ = RemoteTraceback(text)
    return error
