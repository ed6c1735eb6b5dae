"""The classes of the API guide, under the guide's import path."""

from ais_bench.session import InferSession, MemorySummary, MultiDeviceSession

__all__ = ["InferSession", "MemorySummary", "MultiDeviceSession"]
