"""The process to which an object belongs."""

from __future__ import annotations

import os

from ais_bench.errors import SessionClosed

__all__ = ["OwnProcess"]


class OwnProcess:
    """The process that made an object. Call `check` before any access that is not allowed in a forked child.

    A lock that another thread held during the fork stays locked in the child, and the workers belong to the parent.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Return whether this is still that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise SessionClosed in a forked child."""
        if os.getpid() != self._pid:
            raise SessionClosed(
                "this session was made in the process that this one was forked from; make a new MultiDeviceSession here"
            )
