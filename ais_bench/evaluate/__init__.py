"""Run a data set through a model on all devices and compute its scores. See docs/evaluate.md."""

from __future__ import annotations

from ais_bench.evaluate.loop import evaluate
from ais_bench.evaluate.metrics import Collect, EditDistance, MeanError, TopK
from ais_bench.evaluate.rescore import score
from ais_bench.evaluate.result import Result, load

__all__ = ["Collect", "EditDistance", "MeanError", "Result", "TopK", "evaluate", "load", "score"]
