"""Callables and exceptions as bytes.

Callables of the user travel by value where they must: a worker never imports the caller's `__main__`, so a function or class
defined there (a script, a notebook, `python -c`) has to come along with the globals it uses. dill does that; it is imported
only where plain pickle is not enough, because it costs a worker 30 ms of its start.
"""

from __future__ import annotations

import contextlib
import io
import operator
import pickle
import sys
from typing import Any

from ais_bench.errors import AisBenchError, ConfigError


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: the traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class _ImportableOnly(pickle.Pickler):
    """Refuses what a worker could not import."""

    def reducer_override(self, obj: Any) -> Any:
        if getattr(obj, "__module__", None) == "__main__" and (isinstance(obj, type) or callable(obj)):
            raise pickle.PicklingError("defined in __main__")
        return NotImplemented


def dumps_by_value(obj: Any) -> bytes:
    """Bytes that `loads` turns back into `obj` in a worker. Raises ConfigError when it cannot be pickled."""
    buffer = io.BytesIO()
    try:
        _ImportableOnly(buffer, protocol=5).dump(obj)
        return buffer.getvalue()
    except Exception:  # whatever pickle has against it, dill has the last word and the better message
        import dill
    try:
        return bytes(dill.dumps(obj, protocol=5, recurse=True))
    except Exception as error:
        raise ConfigError(f"{obj!r} cannot be sent to a worker: {error}") from error


def loads(data: bytes) -> Any:
    """The object again. dill registers what its pickles need when they name it, so plain pickle reads both kinds."""
    return pickle.loads(data)


class _ErrorPickler(pickle.Pickler):
    """A worker has only copies of the classes of the caller's `__main__`: they go by name, and the caller finds his own."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj.__module__ == "__main__":
            return _class_of_main, (obj.__qualname__,)
        return NotImplemented


def _class_of_main(name: str) -> Any:
    return operator.attrgetter(name)(sys.modules["__main__"])


def dumps_error(error: BaseException) -> bytes:
    """An exception and its traceback as bytes, for `loads_error`. Never raises."""
    import traceback

    buffer = io.BytesIO()
    try:
        _ErrorPickler(buffer, protocol=5).dump(error)
    except Exception:  # its own pickling may raise anything
        buffer = io.BytesIO()
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        name, text = f"{name}: {error}", "".join(traceback.format_exception(error))
    except Exception:  # and so may its str()
        text = f"{''.join(traceback.format_tb(error.__traceback__))}{name}: its str() raised an error"
    return pickle.dumps((buffer.getvalue(), name, text))


def loads_error(data: bytes) -> BaseException:
    """The exception again, its remote traceback as the cause; an AisBenchError that names it where it does not unpickle."""
    pickled, name, text = pickle.loads(data)
    error: object = None
    with contextlib.suppress(Exception):  # it was not pickled, or its class cannot be found or made here
        error = pickle.loads(pickled)
    if not isinstance(error, BaseException):
        error = AisBenchError(name)
    error.__cause__ = RemoteTraceback(text)
    return error
