"""Carries what a worker logs to the parent.

Importing `logging` is a part of a worker's start that a worker without Python in its tasks never needs. So whatever brings the
first such code in calls `begin` before.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ais_bench.wire.protocol import LogLine

if TYPE_CHECKING:
    import logging

    from ais_bench.wire.connection import WorkerEnd

_waiting: tuple[WorkerEnd, int] | None = None


def carry(connection: WorkerEnd, level: int, *, now: bool) -> None:
    """From `begin` on records of at least `level` go to the parent, as text: their arguments need not pickle. `now`: begin."""
    global _waiting
    _waiting = (connection, level)
    if now or "logging" in sys.modules:
        begin()


def begin() -> None:
    """Code that may log follows. Idempotent; nothing happens in a process that is no worker."""
    global _waiting
    if _waiting is None:
        return
    (connection, level), _waiting = _waiting, None
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


def end() -> None:
    """Flush the handlers that anybody added."""
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
