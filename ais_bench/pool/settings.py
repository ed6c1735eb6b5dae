"""The settings of a device pool: one frozen object, checked before anything is started.

name                default   unit     meaning
workers_per_device  1                  processes for each device id
tasks_in_flight     None      tasks    handed to one worker at a time; None: fewest_in_flight, more of very short ones
fewest_in_flight    2         tasks    see above; what a worker can work on at once, and one or two more
task_timeout        None      seconds  a worker at one task for longer is killed; None: never
start_timeout       120       seconds  a worker that is not ready by then is killed
close_timeout       30        seconds  `close()` lets accepted work finish for so long, then kills
max_restarts        3                  deaths of a worker in a row, without a task done, before its device is set aside; those
                                       of a task that max_attempts convict do not count, for 30 such tasks in a row
restart_backoff     0.05      seconds  pause before the second restart in a row; doubles, at most 5 s
retry_device_after  30        seconds  a device set aside is tried again after this time
max_attempts        2                  a task that was being worked on when so many workers died, or that so many devices
                                       failed with, fails
min_devices         None      devices  so many must get ready at the start; None: all
threads             None      threads  for each worker's own computing; None: its share of the processors
affinity            "none"             "split": each worker pinned to its share; "auto": the same, while no other program
                                       uses those; "none"; or {device id: [processors]}
spin                "auto"             microseconds a waiting side spins before it sleeps; "auto": 50 while a
                                       processor is free for it; 0: never
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ais_bench.options import LARGEST_INT, as_int, as_seconds, check_affinity, check_spin

AUTO_SPIN_US = 50.0


class PoolOptions(TypedDict, total=False):
    """The settings as keywords, for type checkers; `affinity` is an argument of its own where they are taken."""

    workers_per_device: int
    tasks_in_flight: int | None
    fewest_in_flight: int
    task_timeout: float | None
    start_timeout: float
    close_timeout: float
    max_restarts: int
    restart_backoff: float
    retry_device_after: float
    max_attempts: int
    min_devices: int | None
    threads: int | None
    spin: Literal["auto"] | float


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """See the table above. Raises ConfigError when a value makes no sense."""

    workers_per_device: int = 1
    tasks_in_flight: int | None = None
    fewest_in_flight: int = 2
    task_timeout: float | None = None
    start_timeout: float = 120.0
    close_timeout: float = 30.0
    max_restarts: int = 3
    restart_backoff: float = 0.05
    retry_device_after: float = 30.0
    max_attempts: int = 2
    min_devices: int | None = None
    threads: int | None = None
    affinity: Literal["auto", "split", "none"] | Mapping[int, Sequence[int]] = field(default="none")
    spin: Literal["auto"] | float = "auto"

    def __post_init__(self) -> None:
        for name, (low, high, optional) in _INTEGERS.items():
            object.__setattr__(self, name, as_int(name, getattr(self, name), low, high, optional=optional))
        as_seconds("task_timeout", self.task_timeout, optional=True)
        as_seconds("start_timeout", self.start_timeout)
        as_seconds("close_timeout", self.close_timeout, zero=True)
        as_seconds("restart_backoff", self.restart_backoff, zero=True)
        as_seconds("retry_device_after", self.retry_device_after)
        check_affinity(self.affinity)
        check_spin(self.spin)


_INTEGERS = {  # name: least, most, may be None
    "workers_per_device": (1, LARGEST_INT, False),
    "tasks_in_flight": (1, 256, True),
    "fewest_in_flight": (1, 64, False),
    "max_restarts": (0, LARGEST_INT, False),
    "max_attempts": (1, LARGEST_INT, False),
    "min_devices": (1, LARGEST_INT, True),
    "threads": (1, 1024, True),
}
