"""The import path of the original's evaluator for language models, which is not part of this package."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Evaluator":
        raise ImportError(
            "ais_bench.evaluate.interface.Evaluator (ceval, gsm8k, mmlu) is not part of this package; AISBench's "
            "distribution ais_bench_benchmark is its successor. For any other data set: from ais_bench.evaluate import evaluate"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
