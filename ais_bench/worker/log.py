"""Send a worker's log records to the parent.

A worker whose tasks need no Python never needs `logging`, whose import takes time. So code that loads the first Python code of
the user calls `begin` before.
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
    """Send records of at least `level` to the parent once `begin` is called. They are sent as text. `now`: call `begin`."""
    global _waiting
    _waiting = (connection, level)
    if now or "logging" in sys.modules:
        begin()


def begin() -> None:
    """Start to send log records. Call it before code that may log. Idempotent; no effect outside of a worker."""
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
                os._exit(0)  # the parent has ended
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(ToParent())
    root.setLevel(level)


def end() -> None:
    """Flush the handlers that user code added."""
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
