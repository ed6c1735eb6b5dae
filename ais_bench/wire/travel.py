"""The rule for what is sent to another process by name, and what by value: for callables, items, results and exceptions.

A class, a function or a module is sent by name if the other process can import it and finds the same one. Otherwise it is sent
by value: definitions in `__main__` (a script, a notebook, `python -c`) or, in a child of multiprocessing, in `__mp_main__`;
objects that a function made; modules that were loaded from a path, as `pytest --import-mode=importlib` does, or made by hand.
By value means that cloudpickle sends the definition itself, with the globals that it uses. cloudpickle is imported only if it
is needed, because a worker without it starts in half the time.

This is decided without an import: the module's file is searched on the path of the workers, and compared with the file that is
in use here. If only a special finder knows a module (some editable installations have one), `ask` returns what a fresh
interpreter would find.

A class that was sent by value is the same class when it comes back, and functions are found by name again in the process from
which they come. So `isinstance` holds for results and errors.

Exceptions keep their type, for any constructor: they are made again without calling it.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import importlib.machinery
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ais_bench.errors import AisBenchError, ConfigError, TransportError, advice_on_limit

__all__ = ["Keep", "dump", "dumps", "error_again", "give_path", "loads", "not_sent", "returning", "texts"]

Keep = Callable[[pickle.PickleBuffer], bool]

_NEVER_IMPORTED = ("__main__", "__mp_main__")
_HEAP_TYPE = 1 << 9  # in a type's __flags__: made by Python code, not by the interpreter or an extension

_lock = _thread.RLock()  # guards cloudpickle's list of modules to send by value, during pickling
_path: tuple[str, ...] | None = None  # sys.path of the workers; None: no workers yet
_importables: dict[tuple[str, str | None, tuple[str, ...]], bool] = {}
_returning = False
_by_value_first = False


def texts(path: Iterable[Any]) -> tuple[str, ...]:
    """Return a `sys.path` as texts. Imports ignore other objects than texts and bytes, but programs also add Path objects."""
    return tuple(os.fsdecode(entry) for entry in path if isinstance(entry, str | bytes | os.PathLike))


def give_path(path: Sequence[str]) -> None:
    """Set the `sys.path` of workers."""
    global _path
    _path = tuple(path)


def returning() -> None:
    """Declare that this process is a worker, so everything that it sends returns to its parent."""
    global _returning
    _returning = True


def _found_here(name: str) -> str | None:
    """Return the file of a module by the finders of this process, without an import; "" for a module without a file."""
    for finder in sys.meta_path:
        with contextlib.suppress(Exception):
            spec = finder.find_spec(name, None, None)
            if spec is not None:
                return spec.origin or ""
    return None


ask: Callable[[str], str | None] = _found_here  # a process that has workers asks a fresh interpreter


def ask_with(found: Callable[[str], str | None]) -> None:
    """Let `found` return the file of a module that only a special finder knows. A worker continues to search by itself."""
    global ask
    if not _returning:
        ask = found


def dumps(obj: Any) -> bytes:
    """Return bytes from which `loads` makes `obj` in another process. Raises errors of pickling."""
    return dump(obj, lambda: None)


def dump(obj: Any, begin: Callable[[], Keep | None]) -> bytes:
    """Like `dumps`, with buffers out of band. `begin` is called before each attempt, and returns the callback for buffers."""
    global _by_value_first
    if not _by_value_first:
        stream = io.BytesIO()
        try:
            _ByName(stream, protocol=5, buffer_callback=begin()).dump(obj)
            return stream.getvalue()
        except Exception as error:  # on any error the other way decides
            _by_value_first = isinstance(error, _GoesByValue)
    with _lock:
        return _dump_by_value(obj, begin())


def loads(data: Any, buffers: Sequence[Any] = ()) -> Any:
    """Return the object of `dumps` or `dump`."""
    return pickle.loads(data, buffers=buffers)


def not_sent(obj: Any, error: Exception) -> AisBenchError:
    """Return the error of an object that cannot be sent: a shortage of descriptors, or the object itself, is the reason."""
    what = f"{_text_of(obj)} cannot be sent to a worker"
    if isinstance(error, TransportError) or advice_on_limit(error):
        return TransportError(f"{what}: {error}{advice_on_limit(error)}")
    return ConfigError(f"{what}: {error}")


def _text_of(obj: Any) -> str:
    try:
        return repr(obj)
    except Exception:  # code of the user
        return f"an object of {type(obj).__module__}.{type(obj).__qualname__}"


# ---- the rule ----


def goes_by_name(obj: Any) -> bool:
    """Return whether another process would find this class, function or module under its name."""
    if isinstance(obj, ModuleType):
        return _importable(obj.__name__)
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return True  # pickle searches for it, and has the better message
    return _is_there(obj, module, name) and _importable(module)


def _is_there(obj: Any, module: str, name: str) -> bool:
    """Return whether this name leads to this object here."""
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module]) is obj
    except (KeyError, AttributeError):
        return False


def _importable(name: str) -> bool:
    if name in _NEVER_IMPORTED:
        return False
    if name in sys.builtin_module_names:
        return True
    here = sys.modules.get(name)
    file = getattr(here, "__file__", None)
    path = texts(sys.path) if _path is None else _path
    key = (name, file, path)
    known = _importables.get(key)
    if known is None:
        known = _importables[key] = _would_import(name, here, file, path)
    return known


def _would_import(name: str, here: ModuleType | None, file: str | None, path: tuple[str, ...]) -> bool:
    if getattr(getattr(here, "__spec__", None), "origin", None) in ("frozen", "built-in"):
        return True  # a part of the interpreter
    parent, _, _last = name.rpartition(".")
    if parent and not _importable(parent):
        return False
    search: Iterable[Any] = path
    if parent:
        search = getattr(sys.modules.get(parent), "__path__", ())
        if not search:
            return True  # a module that the parent puts there itself, such as os.path
    spec = importlib.machinery.PathFinder.find_spec(name, list(texts(search)))
    if spec is not None:
        return here is None or _same_file(spec.origin, file)
    if parent:
        return True  # it comes with the parent, which can be imported
    if importlib.machinery.FrozenImporter.find_spec(name) is not None:
        return True
    if here is None or getattr(here, "__spec__", None) is None:
        return False  # made by hand
    origin = ask(name)
    return origin is not None and _same_file(origin, file)


def _same_file(origin: str | None, file: str | None) -> bool:
    if not file or not origin or not os.path.isabs(origin):
        return not file and (not origin or not os.path.isabs(origin))  # namespace packages, and what is frozen, have none
    if os.path.realpath(origin) == os.path.realpath(file):
        return True
    with contextlib.suppress(OSError):
        return os.path.samefile(origin, file)
    return False


# ---- pickling ----


class _GoesByValue(pickle.PicklingError):
    """Something cannot go by name."""


class _ByName(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Pickle's hook: a recipe for `obj`, or NotImplemented for the usual one."""
        if isinstance(obj, type | FunctionType):
            if not goes_by_name(obj):
                raise _GoesByValue(f"{obj!r} cannot be imported by another process")
        elif isinstance(obj, BaseException):
            return _recipe_of_error(obj)
        return NotImplemented


def _recipe_of_error(error: BaseException) -> Any:
    """Return how to make an exception without its constructor, if it has its own one and pickle would call it."""
    kind = type(error)
    if not kind.__flags__ & _HEAP_TYPE:
        return NotImplemented
    if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not _builtin_base(kind).__reduce__:
        return NotImplemented
    recipe: tuple[Any, ...] = error.__reduce__()  # type: ignore[assignment]
    return error_again, (kind, error.args, recipe[1]), *recipe[2:]


def error_again(kind: type[BaseException], args: tuple[Any, ...], made_of: tuple[Any, ...] | None = None) -> BaseException:
    """Return an exception of this type with these `args`, without its constructor. `made_of`: arguments of its base."""
    made_of = args if made_of is None else made_of
    builtin = _builtin_base(kind)
    try:
        error = builtin.__new__(kind, *made_of)
        builtin.__init__(error, *made_of)  # what the interpreter keeps beside `args`, such as the code of a SystemExit
    except TypeError:
        error = builtin.__new__(kind)
    error.args = args
    return error


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if issubclass(base, BaseException) and not base.__flags__ & _HEAP_TYPE)


def _dump_by_value(obj: Any, keep: Keep | None) -> bytes:
    stream = io.BytesIO()
    pickler = _by_value_pickler()(stream, protocol=5, buffer_callback=keep)
    try:
        pickler.dump(obj)
    finally:
        pickler.end()
    return stream.getvalue()


@functools.cache
def _by_value_pickler() -> Any:
    import cloudpickle

    locks = {_thread.LockType: _thread.allocate_lock, _thread.RLock: _thread.RLock}

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            self._listed: list[ModuleType] = []
            self._known: set[str] = set()

        def end(self) -> None:
            """Restore cloudpickle's list."""
            for module in self._listed:
                cloudpickle.unregister_pickle_by_value(module)

        def reducer_override(self, obj: Any) -> Any:
            """Pickle's hook."""
            if isinstance(obj, type | FunctionType | ModuleType):
                self._decide(obj)
                if _returning and isinstance(obj, FunctionType) and "<" not in obj.__qualname__ and not goes_by_name(obj):
                    return _function_at_home, (obj.__module__, obj.__qualname__, cloudpickle.dumps(obj, protocol=5))
            elif isinstance(obj, BaseException):
                return _recipe_of_error(obj)
            elif isinstance(obj, BuiltinFunctionType):
                if isinstance(obj.__self__, ModuleType) and not goes_by_name(obj):
                    raise _native_code(obj)
            elif (make := locks.get(type(obj))) is not None:
                return make, ()  # an open one
            return super().reducer_override(obj)

        def _decide(self, obj: Any) -> None:
            """Make cloudpickle send the object by value, if it would not do so by itself."""
            name = obj.__name__ if isinstance(obj, ModuleType) else getattr(obj, "__module__", None)
            if not isinstance(name, str) or name in self._known or name == "__main__":
                return
            self._known.add(name)
            if _importable(name):
                return
            if isinstance(obj, type) and not obj.__flags__ & _HEAP_TYPE:
                raise _native_code(obj)
            module = sys.modules.get(name)
            if module is not None and module.__name__ == name and name not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                self._listed.append(module)

    return ByValue


def _native_code(obj: Any) -> pickle.PicklingError:
    return pickle.PicklingError(
        f"{obj!r} is native code of the module {obj.__module__!r}, which another process cannot import: "
        "put its folder on sys.path before the session is made"
    )


def _function_at_home(module: str, qualname: str, value: bytes) -> Any:
    """Return this process's own function of that name, or the function that was sent."""
    try:
        return functools.reduce(getattr, qualname.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return pickle.loads(value)
