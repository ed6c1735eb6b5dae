"""Versions of the libraries under test, as numbers that can be compared."""

from __future__ import annotations

import onnxruntime

__all__ = ["ONNXRUNTIME"]

ONNXRUNTIME = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
