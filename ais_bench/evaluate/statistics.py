"""Statistics of many times: the percentiles that a number of samples supports, and their bounds.

A percentile is reported only if, with 99 % confidence, the true percentile is not above the reported one: MLPerf's
early-stopping rule with a tolerance of 0. The reported value is an order statistic: the highest of n times after the t - 1
highest are discarded, where t is the largest number with P[Bin(n, 1 - p) <= t] <= 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["PERCENTILES", "discarded", "distribution", "least_samples"]

CONFIDENCE = 0.99
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}


def _log_pmf(n: int, q: float, k: int) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(q) + (n - k) * math.log1p(-q)


def discarded(n: int, p: float) -> int | None:
    """Return how many of the highest of n times are discarded for the bound of percentile p; None if n is too small."""
    total, t = 0.0, -1
    for k in range(n + 1):
        total += math.exp(_log_pmf(n, 1 - p, k))
        if total > 1 - CONFIDENCE:
            break
        t = k
    return t - 1 if t >= 1 else None


def least_samples(p: float) -> int:
    """Return the least number of times for which percentile p is reported."""
    low, high = 1, 2
    while discarded(high, p) is None:
        low, high = high, high * 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if discarded(middle, p) is None else (low, middle)
    return high


def distribution(times: Sequence[float] | Any) -> dict[str, float | int]:
    """Return count, mean, min and max of times, and an upper bound for each percentile that they support."""
    values = np.sort(np.asarray(times, np.float64))
    count = int(values.size)
    if not count:
        return {"count": 0}
    figures: dict[str, float | int] = {
        "count": count,
        "mean": float(values.mean()),
        "min": float(values[0]),
        "max": float(values[-1]),
    }
    for name, p in PERCENTILES.items():
        highest = discarded(count, p)
        if highest is None:
            break
        figures[name] = float(values[count - 1 - highest])
    return figures
