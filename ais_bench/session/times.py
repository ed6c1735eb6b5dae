"""The times of a session's executions and of the process's copies, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ais_bench import _native

__all__ = ["ExecTimes", "MemorySummary", "TimeSpan", "sumary"]


class TimeSpan(float):
    """The milliseconds of one execution. Also the pair (start, end), in milliseconds since the session was made.

    Programs for this API read an entry as a number or unpack it as a pair; this is both. It pickles, and json writes the
    number.
    """

    __slots__ = ("end", "start")
    start: float
    end: float

    def __new__(cls, start: float, end: float | None = None) -> TimeSpan:
        """Make the span from `start` to `end`; of one number, which is how `statistics` makes a mean, the span from 0."""
        if end is None:
            start, end = 0.0, float(start)
        self = super().__new__(cls, end - start)
        self.start = start
        self.end = end
        return self

    def __iter__(self) -> Iterator[float]:
        return iter((self.start, self.end))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (self.start, self.end)[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.start, self.end)


class sumary(list[TimeSpan]):
    """The times of a session: a list, one entry an execution, oldest first; `exec_time_list` is the same as a plain list.

    The newest 1,048,576 executions are kept.
    """

    @property
    def exec_time_list(self) -> list[TimeSpan]:
        """A copy of the times."""
        return list(self)


class ExecTimes:
    """Reads a native session's log, fetching only what is new since the last read."""

    def __init__(self, session: _native.Session) -> None:
        self._session = session
        # What was read so far, how many executions that covers, and the clears before it: one tuple that is replaced whole, so
        # that threads may read at once.
        self._read: tuple[list[TimeSpan], int, int] = ([], 0, 0)

    def read(self) -> sumary:
        """Return all times that are kept."""
        known, since, clears_then = self._read
        new, total, clears = self._session.exec_times(since)
        if clears != clears_then:
            known = []
            new, total, clears = self._session.exec_times(0)
        spans = (known + [TimeSpan(start, end) for start, end in new])[-_KEPT:]
        self._read = spans, total, clears
        return sumary(spans)

    def clear(self) -> None:
        """Forget all times."""
        self._session.clear_exec_times()


_KEPT = 1 << 20  # what the native log keeps


class MemorySummary:
    """Times of the copies between host and device, of all sessions of this process: milliseconds, one entry a transfer.

    On a CPU device, which reads host memory, an entry is the time it took to hand the memory over, copying included where the
    array had to be copied. Every function works on the class and on an instance, in both spellings. The newest 1,048,576 of
    each direction are kept. Any thread may call them.
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
        """Forget the times of both directions."""
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
