"""Wait for several descriptors at once and call the action of each. For one thread only.

This does in native code what `selectors` does, because libraries such as gevent replace `select`
by a version that waits in their own loop.
"""

from __future__ import annotations

from collections.abc import Callable

from ais_bench import _native

READ = 0x1  # POLLIN
WRITE = 0x4  # POLLOUT


class Watch:
    """Descriptors, the wanted events of each, and its action."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}

    def __contains__(self, fd: int) -> bool:
        return fd in self._watched

    def add(self, fd: int, action: Callable[[int], None], events: int = READ) -> None:
        """Call `action(events)` from now on if the descriptor has one of the events, or has hung up."""
        self._watched[fd] = events, action

    def want(self, fd: int, events: int) -> None:
        """Change the events of a watched descriptor."""
        self._watched[fd] = events, self._watched[fd][1]

    def discard(self, fd: int) -> None:
        """Stop watching a descriptor. Call it before the descriptor is closed, because its number may be reused."""
        self._watched.pop(fd, None)

    def wait(self, seconds: float | None) -> None:
        """Wait for at most `seconds`, and call the actions of all events."""
        wanted = [(fd, events) for fd, (events, _action) in self._watched.items()]
        for fd, events in _native.poll(wanted, seconds):
            watched = self._watched.get(fd)
            if watched is not None:  # an earlier action may have removed it
                # If the other end of a connection is closed, it is read to its end, and writing to it fails.
                watched[1](events & (READ | WRITE) or READ)
