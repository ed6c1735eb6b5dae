"""Which process an object belongs to."""

from __future__ import annotations

import os

from ais_bench.errors import SessionClosed

__all__ = ["OwnProcess"]


class OwnProcess:
    """The process that made it. What must not be touched in a forked child is reached through `check`.

    A lock that another thread held during the fork stays locked in the child for ever, and the workers are the parent's.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Whether this is still that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise SessionClosed in a forked child."""
        if os.getpid() != self._pid:
            raise SessionClosed(
                "this session was made in the process that this one was forked from; make a new MultiDeviceSession here"
            )
