"""Sessions: one model on one device (`InferSession`), or on all of them (`MultiDeviceSession`).

The names are looked up when they are used: a worker imports this package, too, and needs next to nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ais_bench.session.about import SystemInfo, system_info
    from ais_bench.session.carry import Carry
    from ais_bench.session.infer_session import InferSession
    from ais_bench.session.item import Item, Keyed
    from ais_bench.session.multi_device import MultiDeviceSession
    from ais_bench.session.times import MemorySummary

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

_HOMES = {
    "Carry": "carry",
    "InferSession": "infer_session",
    "Item": "item",
    "Keyed": "item",
    "MemorySummary": "times",
    "MultiDeviceSession": "multi_device",
    "SystemInfo": "about",
    "system_info": "about",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
