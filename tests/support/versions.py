"""Versions of the libraries under test, as numbers that can be compared."""

from __future__ import annotations

from ais_bench import _native

__all__ = ["ONNXRUNTIME"]

# Of the library in use, which the environment variable AIS_BENCH_ORT_LIBRARY may name.
ONNXRUNTIME = tuple(int(part) for part in _native.runtime_version("ort").split(".")[:2])
