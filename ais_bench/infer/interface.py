"""The API guide's classes, under the path it gives."""

from ais_bench.session import InferSession, MemorySummary, MultiDeviceSession

__all__ = ["InferSession", "MemorySummary", "MultiDeviceSession"]
