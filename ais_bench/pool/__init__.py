"""A pool of worker processes on devices. It knows nothing of models.

The names below are looked up when they are used: a worker imports this package, too, and needs next to nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ais_bench.pool.device_pool import DeviceInfo, DevicePool, WorkerInfo
    from ais_bench.pool.interpreter import freeze_support
    from ais_bench.pool.protocol import Answer, Factory, Handler, WorkerContext
    from ais_bench.pool.settings import PoolSettings
    from ais_bench.pool.task import Task

__all__ = [
    "Answer",
    "DeviceInfo",
    "DevicePool",
    "Factory",
    "Handler",
    "PoolSettings",
    "Task",
    "WorkerContext",
    "WorkerInfo",
    "freeze_support",
]

_HOMES = {
    "device_pool": ("DeviceInfo", "DevicePool", "WorkerInfo"),
    "interpreter": ("freeze_support",),
    "protocol": ("Answer", "Factory", "Handler", "WorkerContext"),
    "settings": ("PoolSettings",),
    "task": ("Task",),
}


def __getattr__(name: str) -> Any:
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"ais_bench.pool.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
