"""Waits for several descriptors at once and calls what belongs to each. One thread only.

It is what `selectors` does, in native code: libraries such as gevent replace `select`
by a version that waits in a loop of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from ais_bench import _native

READ = 0x1  # POLLIN
WRITE = 0x4  # POLLOUT


class Watch:
    """Descriptors, the events that are wanted of each, and an action for them."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}

    def __contains__(self, fd: int) -> bool:
        return fd in self._watched

    def add(self, fd: int, action: Callable[[int], None], events: int = READ) -> None:
        """From now on `action(events)` is called when the descriptor has some of them, or has hung up."""
        self._watched[fd] = events, action

    def want(self, fd: int, events: int) -> None:
        """Other events of a descriptor that is watched."""
        self._watched[fd] = events, self._watched[fd][1]

    def discard(self, fd: int) -> None:
        """Watch it no more. Before it is closed: its number may be another's soon."""
        self._watched.pop(fd, None)

    def wait(self, seconds: float | None) -> None:
        """Call the actions of what has happened, after `seconds` at most."""
        wanted = [(fd, events) for fd, (events, _action) in self._watched.items()]
        for fd, events in _native.poll(wanted, seconds):
            watched = self._watched.get(fd)
            if watched is not None:  # an action before this one may have ended it
                # A connection whose other end is gone is read to its end, and writing to it fails.
                watched[1](events & (READ | WRITE) or READ)
