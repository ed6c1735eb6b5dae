"""The times of a session's executions and of the process's copies, in milliseconds."""

from __future__ import annotations

import functools
import operator
import threading
from typing import Any

from ais_bench import _native
from ais_bench.tuning import FILLED_AT_ONCE

__all__ = ["ExecTimes", "MemorySummary", "TimeSpan", "sumary"]


# The milliseconds of one execution, a float. It can also be unpacked and indexed as the pair (start, end), in milliseconds
# since the session was made, and has both as attributes. json, numpy and torch treat it as a number, because it is not a
# sequence for them.
TimeSpan = _native.TimeSpan


class _Later:
    """The entry of a list that is not filled yet. C code that reads the list without its methods gets an error from it."""


class sumary(list[TimeSpan]):
    """The times of a session: a list with one entry for each execution, oldest first. `exec_time_list` is the same list.

    The newest 1,048,576 executions are kept. A long list is filled only if an operation needs more than single entries and its
    length. So `summary().exec_time_list[-1]` costs the same after a million executions. Before that, C code that reads the list
    without its methods fails.
    """

    __slots__ = ("_from", "_source", "_stop")

    def __init__(self, source: list[TimeSpan], start: int, stop: int) -> None:
        """Make the list of source[start:stop]. The source may grow, but must not change otherwise."""
        self._source: list[TimeSpan] | None = None
        if stop - start <= FILLED_AT_ONCE:
            super().__init__(source[start:stop])
            return
        super().__init__([_Later()])  # type: ignore[list-item]
        self._source, self._from, self._stop = source, start, stop

    @property
    def exec_time_list(self) -> sumary:
        """The times."""
        source = self._source
        return sumary(self, 0, len(self)) if source is None else sumary(source, self._from, self._stop)

    def _fill(self) -> None:
        source = self._source
        if source is not None:
            self._source = None
            super().__setitem__(slice(None), source[self._from : self._stop])

    def __len__(self) -> int:
        return super().__len__() if self._source is None else self._stop - self._from

    def __bool__(self) -> bool:
        return len(self) > 0

    def __getitem__(self, index: Any) -> Any:
        source = self._source
        if source is None or isinstance(index, slice):
            self._fill()
            return super().__getitem__(index)
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError("list index out of range")
        return source[(self._from if place >= 0 else self._stop) + place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        self._fill()
        return np.fromiter(iter(self), np.float64, len(self)).astype(dtype or np.float64, copy=False)

    def __radd__(self, other: list[Any]) -> list[Any]:
        self._fill()
        joined: list[Any] = other + self[:]
        return joined

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        self._fill()
        return _refill, (self[:],)


def _refill(times: list[TimeSpan]) -> sumary:
    return sumary(times, 0, len(times))


def _filled_first(name: str) -> Any:
    """Return the list method of this name, which fills the list before it runs."""
    plain = getattr(list, name)

    @functools.wraps(plain)
    def method(self: sumary, *arguments: Any, **options: Any) -> Any:
        self._fill()
        return plain(self, *arguments, **options)

    return method


for _name in (
    *("__add__", "__contains__", "__delitem__", "__eq__", "__ge__", "__gt__", "__iadd__", "__imul__", "__iter__", "__le__"),
    *("__lt__", "__mul__", "__ne__", "__repr__", "__reversed__", "__rmul__", "__setitem__"),
    *("append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"),
):
    setattr(sumary, _name, _filled_first(_name))


class ExecTimes:
    """Reads a native session's log, and fetches only the entries since the last read."""

    def __init__(self, session: _native.Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._known: list[TimeSpan] = []  # guarded by the lock, like the rest; only grows, because lists use parts of it
        self._total = 0  # executions that it covers
        self._clears = 0  # of the log before it

    def read(self) -> sumary:
        """Return all recorded times. Raises SessionClosed in a forked child."""
        session = self._session
        session.check_process()  # before the lock, which another thread may have held during a fork
        with self._lock:
            new, total, clears = session.exec_times(self._total)
            if clears != self._clears:
                self._known, self._total, self._clears = [], 0, clears
                new, total, clears = session.exec_times(0)
            if len(self._known) + len(new) > 2 * _native.TIMES_KEPT:
                self._known = self._known[-_native.TIMES_KEPT :]
            if len(new) < total - self._total:
                self._known = []  # there were more than the log keeps
            self._known.extend(new)
            self._total = total
            return sumary(self._known, max(0, len(self._known) - _native.TIMES_KEPT), len(self._known))

    def clear(self) -> None:
        """Delete all recorded times."""
        self._session.clear_exec_times()


class MemorySummary:
    """Times of the copies between host and device, of all sessions of this process: milliseconds, one entry for each transfer.

    A CPU device reads host memory directly, so an entry is the time to hand over the memory, including a copy if the array had
    to be copied. Every function works on the class and on an instance, in both spellings. The newest 1,048,576 entries of each
    direction are kept. Any thread may call the functions.
    """

    @staticmethod
    def get_h2d_time_list() -> list[float]:
        """Return the times from host to device."""
        return _native.memory_times("h2d")

    @staticmethod
    def get_d2h_time_list() -> list[float]:
        """Return the times from device to host."""
        return _native.memory_times("d2h")

    @staticmethod
    def reset() -> None:
        """Delete the times of both directions."""
        _native.clear_memory_times()

    get_H2D_time_list = get_h2d_time_list
    get_D2H_time_list = get_d2h_time_list

    @property
    def H2D_time_list(self) -> list[float]:
        """The times from host to device."""
        return self.get_h2d_time_list()

    @property
    def D2H_time_list(self) -> list[float]:
        """The times from device to host."""
        return self.get_d2h_time_list()
