"""A pool of worker processes on devices. It knows nothing about models. This package runs in the caller's process."""

from ais_bench.pool.device_pool import DeviceInfo, DevicePool, WorkerInfo
from ais_bench.pool.interpreter import freeze_support
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task
from ais_bench.wire.protocol import Answer, Factory, Handler, WorkerContext

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
