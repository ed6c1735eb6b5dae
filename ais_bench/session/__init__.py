"""Sessions: one model on one device (`InferSession`), or on all of them (`MultiDeviceSession`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ais_bench.session.infer_session import InferSession
from ais_bench.session.times import MemorySummary

if TYPE_CHECKING:
    from ais_bench.session.multi_device import MultiDeviceSession

__all__ = ["InferSession", "MemorySummary", "MultiDeviceSession"]


def __getattr__(name: str) -> Any:
    """MultiDeviceSession on first use: its workers import this package, too, and need only the rest of it."""
    if name != "MultiDeviceSession":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ais_bench.session.multi_device import MultiDeviceSession

    globals()[name] = MultiDeviceSession
    return MultiDeviceSession
