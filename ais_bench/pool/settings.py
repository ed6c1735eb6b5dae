"""The settings of a device pool: one frozen object, checked before anything is started."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from ais_bench import _native
from ais_bench.errors import ConfigError, ConfigTypeError
from ais_bench.options import LARGEST_INT, as_device_id, as_int, as_seconds, check_affinity, check_names, check_spin

if TYPE_CHECKING:
    from typing_extensions import Self


class PoolOptions(TypedDict, total=False):
    """The settings as keywords, for type checkers. `affinity` is a separate argument of the functions that take them."""

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
    window: int | None
    window_items: int
    hedge: float | None
    weights: Mapping[int, float] | None


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """The settings of a pool.

    Raises ConfigError if a value is invalid, and ConfigTypeError if it has a wrong type or the name is unknown.

    name               default unit    meaning
    workers_per_device 1               worker processes for each device id
    tasks_in_flight    None    tasks   most tasks that one worker holds; None: fewest_in_flight, and more if they are very short
    fewest_in_flight   2       tasks   least tasks that one worker holds: as many as it runs at once, and one or two more
    task_timeout       None    seconds if one task takes longer, its worker is killed; None: no limit
    start_timeout      120     seconds a worker that is not ready after this time is killed
    close_timeout      30      seconds `close()` lets accepted tasks finish for this time, then it kills the workers
    max_restarts       3               deaths of a worker in a row, without a finished task, before its device is quarantined;
                                       deaths caused by a failing task do not count, for up to 30 such tasks in a row
    restart_backoff    0.05    seconds pause before the second restart in a row; doubles each time, at most 5 s
    retry_device_after 30      seconds time after which a quarantined device is tried again
    max_attempts       2               worker deaths or device failures after which a task fails
    min_devices        None    devices least number of devices that must become ready at the start; None: all
    threads            None    threads threads of each worker; None: its share of the processors
    affinity           "none"          "split": each worker is pinned to its share of the processors; "auto": the same, while
                                       no other program uses them; "none"; or {device id: [processors]}
    window             None    bytes   most bytes that a stream holds: feeds in progress and results not fetched; at least one
                                       item is allowed; None: an eighth of the memory that this process may use
    window_items       4096    items   most items of a stream in progress, behind the one that delays the order
    hedge              None    times   if the task that delays an ordered stream has taken this many times as long as an idle
                                       device would take, it runs a second time on that device; the first answer counts. So
                                       handlers and callables may be called twice for an item. None: never
    weights            None            {device id: weight above 0}: a device of weight 0.5 is expected to take twice as long
    spin               "auto"          microseconds that a waiting process spins before it sleeps; "auto": 50 while a processor
                                       is free for it; 0: never
    """

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
    window: int | None = None
    window_items: int = 4096
    hedge: float | None = None
    weights: Mapping[int, float] | None = None

    def __new__(cls, *_: object, **given: object) -> Self:
        """Raise ConfigTypeError for an unknown setting, with the nearest valid name, which `__init__` would not give."""
        check_names(given, cls.__dataclass_fields__)
        return super().__new__(cls)

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
        _check_weights(self.weights)
        _check_hedge(self.hedge)

    @property
    def window_bytes(self) -> int:
        """The number of bytes that a stream may hold."""
        return self.window if self.window is not None else _native.memory_limit() // 8


_INTEGERS = {  # name: least, most, may be None
    "workers_per_device": (1, LARGEST_INT, False),
    "tasks_in_flight": (1, 256, True),
    "fewest_in_flight": (1, 64, False),
    "max_restarts": (0, LARGEST_INT, False),
    "max_attempts": (1, LARGEST_INT, False),
    "min_devices": (1, LARGEST_INT, True),
    "threads": (1, 1024, True),
    "window": (1, 2**62, True),
    "window_items": (1, LARGEST_INT, False),
}


def _check_hedge(hedge: object) -> None:
    if hedge is None:
        return
    if isinstance(hedge, bool) or not isinstance(hedge, numbers.Real):
        raise ConfigTypeError(f"hedge must be a number of at least 1, or None for never, got {hedge!r}")
    if not 1 <= float(hedge) < float("inf"):
        raise ConfigError(f"hedge must be at least 1, a multiple of the time on an idle device, got {hedge!r}")


def _check_weights(weights: object) -> None:
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise ConfigTypeError(f"weights must be a mapping of device ids to numbers, got {type(weights).__name__}")
    for device, weight in weights.items():
        as_device_id(device)
        good = isinstance(weight, numbers.Real) and not isinstance(weight, bool) and 0 < float(weight) < float("inf")
        if not good:
            raise ConfigError(f"weights: the weight of device {device} must be a number above 0, got {weight!r}")
