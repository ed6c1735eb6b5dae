"""The times of the tasks of a MultiDeviceSession's last call."""

from __future__ import annotations

from collections.abc import Iterable

from ais_bench.pool import Task
from ais_bench.session.own_process import OwnProcess
from ais_bench.tuning import KEPT_TIMES


class LastTimes(dict[int, list[float]]):
    """End-to-end milliseconds of the last call by device. Read it as `session.summary()` or `session.summary[device]`.

    A stream keeps the newest times of each device, at least 100,000.
    """

    def __init__(self, process: OwnProcess | None = None) -> None:
        super().__init__()
        self._process = process

    def __call__(self) -> dict[int, list[float]]:
        """Return a copy, {device id: [milliseconds, ...]}, in the order of the feeds."""
        if self._process is not None:
            self._process.check()
        return {device: list(times) for device, times in list(self.items())}

    def __getitem__(self, device: int) -> list[float]:
        if self._process is not None:
            self._process.check()
        return super().__getitem__(device)

    def note_one(self, task: Task) -> None:
        """Record the time of a call of one task."""
        self.clear()
        if task.ran_on is not None:
            self[task.ran_on] = [task.end_to_end_ns / 1e6]

    def note_done(self, tasks: Iterable[Task]) -> None:
        """Record the times of a call of several tasks."""
        self.clear()
        for task in tasks:
            self.note(task)

    def note(self, task: Task) -> None:
        """Add the time of one more task of the call."""
        device = task.ran_on
        if device is None:
            return
        times = self.get(device)
        if times is None:
            times = self[device] = []
        elif len(times) == 2 * KEPT_TIMES:
            del times[:KEPT_TIMES]
        times.append(task.end_to_end_ns / 1e6)
