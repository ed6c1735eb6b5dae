"""A pool of worker processes on devices. It knows nothing of models."""

from ais_bench.pool.device_pool import DeviceInfo, DevicePool, WorkerInfo
from ais_bench.pool.protocol import Answer, Factory, Handler, WorkerContext
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task, Waiter

__all__ = [
    "Answer",
    "DeviceInfo",
    "DevicePool",
    "Factory",
    "Handler",
    "PoolSettings",
    "Task",
    "Waiter",
    "WorkerContext",
    "WorkerInfo",
]
