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
affinity            "none"             "split": each worker pinned to its share; "none"; or {device id: [processors]}
spin                "auto"             microseconds a waiting side spins before it sleeps; "auto": 50 while a
                                       processor is free for it; 0: never
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ais_bench.errors import ConfigError

AUTO_SPIN_US = 50.0


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
    affinity: Literal["split", "none"] | Mapping[int, Sequence[int]] = field(default="none")
    spin: Literal["auto"] | float = "auto"

    def __post_init__(self) -> None:
        _check_int(self, "workers_per_device", 1)
        _check_int(self, "tasks_in_flight", 1, 256, optional=True)
        _check_int(self, "fewest_in_flight", 1, 64)
        _check_seconds(self, "task_timeout", optional=True)
        _check_seconds(self, "start_timeout")
        _check_seconds(self, "close_timeout", zero=True)
        _check_int(self, "max_restarts", 0)
        _check_seconds(self, "restart_backoff", zero=True)
        _check_seconds(self, "retry_device_after")
        _check_int(self, "max_attempts", 1)
        _check_int(self, "min_devices", 1, optional=True)
        _check_int(self, "threads", 1, optional=True)
        _check_affinity(self.affinity)
        if self.spin != "auto" and not (_is_number(self.spin) and 0 <= self.spin <= 10_000):
            raise ConfigError(f'spin is "auto" or 0 to 10000 microseconds, not {self.spin!r}')


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_int(settings: PoolSettings, name: str, low: int, high: int | None = None, *, optional: bool = False) -> None:
    value = getattr(settings, name)
    if optional and value is None:
        return
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or value < low or (high is not None and value > high):
        wanted = f"a whole number from {low}" + (f" to {high}" if high is not None else "") + (" or None" * optional)
        raise ConfigError(f"{name} is {wanted}, not {value!r}")


def _check_seconds(settings: PoolSettings, name: str, *, optional: bool = False, zero: bool = False) -> None:
    check_seconds(name, getattr(settings, name), optional=optional, zero=zero)


def check_seconds(name: str, value: Any, *, optional: bool = False, zero: bool = False) -> None:
    """Raises ConfigError for what is not a time in seconds, above 0, or from 0 with `zero`, or None with `optional`."""
    if optional and value is None:
        return
    if not _is_number(value) or not (0 < value < 1e9 or (zero and value == 0)):
        raise ConfigError(f"{name} is a positive number of seconds{' or None' * optional}, not {value!r}")


def _check_affinity(affinity: Any) -> None:
    if isinstance(affinity, str) and affinity in ("split", "none"):
        return
    if isinstance(affinity, Mapping) and all(
        not isinstance(device, str)
        and isinstance(cpus, Sequence)
        and not isinstance(cpus, str)
        and len(cpus) > 0
        and all(isinstance(cpu, int) for cpu in cpus)
        for device, cpus in affinity.items()
    ):
        return
    raise ConfigError(f'affinity is "split", "none" or {{device id: [processors]}}, not {affinity!r}')


def check_device_id(device: Any) -> int:
    """`device` as a plain int; accepts numpy integers and digits in a string. Raises ConfigError."""
    if isinstance(device, str) and device.isdecimal():
        return int(device)
    if isinstance(device, numbers.Integral) and not isinstance(device, bool) and int(device) >= 0:
        return int(device)
    raise ConfigError(f"a device id is a whole number from 0, not {device!r}")


def check_device_ids(devices: Any) -> tuple[int, ...]:
    """Device ids in the order given. Raises ConfigError for none at all, a repeated id, or something that is no id."""
    if isinstance(devices, str) or not isinstance(devices, Iterable):
        devices = [devices]
    ids = tuple(check_device_id(device) for device in devices)
    if not ids:
        raise ConfigError("no device ids were given")
    repeated = sorted({device for device in ids if ids.count(device) > 1})
    if repeated:
        raise ConfigError(f"device ids given twice: {repeated}; use workers_per_device for several workers on one device")
    return ids
