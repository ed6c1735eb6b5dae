"""Sessions: one model on one device (`InferSession`), or on all devices (`MultiDeviceSession`)."""

from ais_bench.one_device.infer_session import InferSession
from ais_bench.one_device.times import MemorySummary
from ais_bench.session.item import Item, Keyed
from ais_bench.session.machine import SystemInfo, system_info
from ais_bench.session.multi_device import MultiDeviceSession
from ais_bench.wire.carry import Carry

__all__ = [
    "Carry",
    "InferSession",
    "Item",
    "Keyed",
    "MemorySummary",
    "MultiDeviceSession",
    "SystemInfo",
    "system_info",
]
