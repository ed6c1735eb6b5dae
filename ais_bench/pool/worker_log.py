"""Carries what a worker logs to the parent, as soon as something in the worker can log.

Importing `logging` is a part of a worker's start that one whose handler is native never needs. So it is not imported: a finder
waits until somebody else imports it, and adds the handler then, before anybody can log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ais_bench.pool.protocol import LogLine

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from ais_bench.pool.wire import WorkerEnd


def carry_logging(connection: WorkerEnd, level: int) -> None:
    """From now on records of at least `level` go to the parent, as text: their arguments need not pickle."""
    if "logging" in sys.modules:
        _add_handler(connection, level)
    else:
        sys.meta_path.insert(0, _Finder("logging", lambda: _add_handler(connection, level)))


def end_logging() -> None:
    """Flushes the handlers that anybody added."""
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()


def _add_handler(connection: WorkerEnd, level: int) -> None:
    import logging

    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                connection.send(LogLine(record.name, record.levelno, self.format(record), record.created))
            except OSError:
                os._exit(0)  # the parent is gone
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(ToParent())
    root.setLevel(level)


class _Finder:
    """Finds one module as the finders behind it do, and has something done once it is executed."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Importing's hook."""
        if name != self._name:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._executed)  # type: ignore[assignment]
                return spec
        return None

    def _executed(self) -> None:
        sys.meta_path.remove(self)  # not before: finding is not importing
        self._then()


class _Loader:
    """A module's own loader, and something to do after it."""

    def __init__(self, own: Any, then: Callable[[], None]) -> None:
        self._own = own
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def exec_module(self, module: ModuleType) -> None:
        """Importing's hook."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._own
        self._own.exec_module(module)
        self._then()
