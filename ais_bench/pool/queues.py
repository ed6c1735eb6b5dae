"""Tasks that wait for room, in the order in which they go. The dispatcher's lock guards all of it."""

from __future__ import annotations

from collections import deque

from ais_bench.pool.task import Task


class Queues:
    """One for each device that a task asked for, and one for tasks that any device may run."""

    def __init__(self) -> None:
        self.shared: deque[Task] = deque()
        self._by_device: dict[int, deque[Task]] = {}

    def of(self, task: Task) -> deque[Task]:
        """Where the task waits."""
        if task.device is None:
            return self.shared
        queue = self._by_device.get(task.device)
        if queue is None:
            queue = self._by_device[task.device] = deque()
        return queue

    def for_device(self, device: int | None) -> tuple[deque[Task], ...]:
        """Those whose tasks can run on no other device; None: all there are, tasks for one device before the others."""
        if device is None:
            return (*self._by_device.values(), self.shared)
        return (self._by_device.get(device, deque()),)

    def __bool__(self) -> bool:
        return bool(self.shared) or (bool(self._by_device) and any(self._by_device.values()))
