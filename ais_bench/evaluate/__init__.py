"""Run a data set through a model on all devices and compute its scores. See docs/evaluate.md.

The names are imported on first use, so the command line's help imports none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ais_bench.evaluate.loop import evaluate
    from ais_bench.evaluate.metrics import Collect, EditDistance, MeanError, TopK
    from ais_bench.evaluate.rescore import score
    from ais_bench.evaluate.result import Result, load

__all__ = ["Collect", "EditDistance", "MeanError", "Result", "TopK", "evaluate", "load", "score"]

_HOMES = {
    "Collect": "metrics",
    "EditDistance": "metrics",
    "MeanError": "metrics",
    "Result": "result",
    "TopK": "metrics",
    "evaluate": "loop",
    "load": "result",
    "score": "rescore",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
