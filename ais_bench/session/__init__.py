"""Sessions: one model on one device (`InferSession`), or on all of them (`MultiDeviceSession`)."""

from ais_bench.session.infer_session import InferSession
from ais_bench.session.multi_device import MultiDeviceSession
from ais_bench.session.times import MemorySummary

__all__ = ["InferSession", "MemorySummary", "MultiDeviceSession"]
