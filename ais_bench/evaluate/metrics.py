"""The metrics of this library. Any object with `update` and `compute`, or a function, is a metric, too: see docs/evaluate.md.

`update(outputs, target)` gets the result of postprocess for one sample; without postprocess the outputs, a list of arrays.
Targets come from the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ais_bench.errors import ConfigError
from ais_bench.options import one_of, wrong

__all__ = ["Collect", "EditDistance", "MeanError", "TopK"]


def _only(outputs: Any, what: str) -> Any:
    """Return the single array of the outputs. Raises ConfigError if there are several."""
    if isinstance(outputs, (list, tuple)) and outputs and hasattr(outputs[0], "shape"):
        if len(outputs) > 1:
            raise ConfigError(f"{what} needs one array, got the model's {len(outputs)}; select one in postprocess")
        return outputs[0]
    return outputs


class TopK:
    """The share of samples whose true class is among the k best scores. If scores are equal, the lower class comes first.

    `update` takes scores (any shape; flattened), or the number of the best class, and the true class: a number, or an array of
    one number. Raises ConfigError for another `k`.
    """

    def __init__(self, k: int = 1) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise wrong("k", "an integer of at least 1", k)
        self.k = int(k)
        self.name = f"top{self.k}"
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.right = 0
        self.count = 0

    def update(self, outputs: Any, target: Any) -> None:
        """Count one sample. Raises ConfigError without a true class, for a class beyond the scores, and for several arrays."""
        if target is None:
            raise ConfigError(f"{self.name} needs the true class; pass target=, or samples that are (sample, class)")
        true = int(np.asarray(target).reshape(-1)[0]) if np.size(target) == 1 else int(target)
        scores = np.asarray(_only(outputs, self.name)).reshape(-1)
        if scores.size == 1 and scores.dtype.kind in "iu":
            hit = int(scores[0]) == true
        else:
            if not 0 <= true < scores.size:
                raise wrong("the true class", f"from 0 to {scores.size - 1}, as there are {scores.size} scores", true)
            ahead = np.count_nonzero(scores > scores[true]) + np.count_nonzero(scores[:true] == scores[true])
            hit = bool(ahead < self.k) and not np.isnan(scores[true])
        self.right += hit
        self.count += 1

    def merge_state(self, others: Sequence[TopK]) -> None:
        """Add what others have counted."""
        for other in others:
            self.right += other.right
            self.count += other.count

    def compute(self) -> float:
        """Return the share, 0 to 1; NaN without samples."""
        return self.right / self.count if self.count else float("nan")


class MeanError:
    """The mean over samples of the error compared with reference outputs, computed in float64.

    Args:
        kind: "absolute": mean of |output - target|; "relative": mean of |output - target| / |target| for targets that
            are not 0; "cosine": 1 minus the cosine between the two, 0 for equal directions.

    `update` takes an array and its reference, or two lists of equal length, whose errors are averaged.

    Raises ConfigError for another kind.
    """

    def __init__(self, kind: str = "absolute") -> None:
        if kind not in _ERRORS:
            raise wrong("kind", one_of(_ERRORS), kind)
        self.kind = kind
        self.name = f"mean_{kind}_error"
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.total = 0.0
        self.count = 0

    def update(self, outputs: Any, target: Any) -> None:
        """Count one sample. Raises ConfigError if the shapes differ."""
        ours, theirs = _arrays(outputs), _arrays(target)
        if len(ours) != len(theirs):
            raise ConfigError(f"{self.name} needs one reference for each of the {len(ours)} arrays, got {len(theirs)}")
        errors = []
        for one, other in zip(ours, theirs, strict=True):
            if one.size != other.size:
                raise ConfigError(f"{self.name} needs a reference of the output's shape {one.shape}, got {other.shape}")
            errors.append(_ERRORS[self.kind](one.reshape(-1), other.reshape(-1)))
        self.total += sum(errors) / len(errors)
        self.count += 1

    def merge_state(self, others: Sequence[MeanError]) -> None:
        """Add what others have counted."""
        for other in others:
            self.total += other.total
            self.count += other.count

    def compute(self) -> float:
        """Return the mean; NaN without samples."""
        return self.total / self.count if self.count else float("nan")


def _arrays(value: Any) -> list[Any]:
    several = value if isinstance(value, (list, tuple)) and value and hasattr(value[0], "shape") else [value]
    return [np.asarray(one).astype(np.float64) for one in several]


def _absolute(one: Any, other: Any) -> float:
    return float(np.mean(np.abs(one - other))) if one.size else 0.0


def _relative(one: Any, other: Any) -> float:
    counts = other != 0
    return float(np.mean(np.abs(one[counts] - other[counts]) / np.abs(other[counts]))) if counts.any() else 0.0


def _cosine(one: Any, other: Any) -> float:
    lengths = float(np.sqrt(one @ one) * np.sqrt(other @ other))
    if lengths == 0:
        return 0.0 if not one.any() and not other.any() else 1.0
    return 1.0 - float(one @ other) / lengths


_ERRORS: dict[str, Callable[[Any, Any], float]] = {"absolute": _absolute, "relative": _relative, "cosine": _cosine}


class EditDistance:
    """Insertions, deletions and replacements between texts, or any sequences of hashable objects.

    `compute` returns `edit_distance`, their mean over samples; `error_rate`, their sum divided by the total length of the
    targets (for texts the character error rate, for lists of words the word error rate); `exact`, the share of samples without
    any.
    """

    name = "edit_distance"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.edits = self.length = self.exact = self.count = 0

    def update(self, outputs: Any, target: Any) -> None:
        """Count one sample."""
        distance = _distance(outputs, target)
        self.edits += distance
        self.length += len(target)
        self.exact += distance == 0
        self.count += 1

    def merge_state(self, others: Sequence[EditDistance]) -> None:
        """Add what others have counted."""
        for other in others:
            self.edits += other.edits
            self.length += other.length
            self.exact += other.exact
            self.count += other.count

    def compute(self) -> dict[str, float]:
        """Return the three figures."""
        nothing = float("nan")
        return {
            "edit_distance": self.edits / self.count if self.count else nothing,
            "error_rate": self.edits / self.length if self.length else (0.0 if self.count and not self.edits else nothing),
            "exact": self.exact / self.count if self.count else nothing,
        }


def _distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        return _plain_distance(one, other)
    return int(Levenshtein.distance(one, other))


def _plain_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the distance, computed row by row over the shorter sequence."""
    if len(one) < len(other):
        one, other = other, one
    row = list(range(len(other) + 1))
    for line, item in enumerate(one, 1):
        diagonal, row[0] = row[0], line
        for column, wanted in enumerate(other, 1):
            least = min(row[column] + 1, row[column - 1] + 1, diagonal + (item != wanted))
            diagonal, row[column] = row[column], least
    return row[-1]


class Collect:
    """Keeps everything: `compute` returns {"outputs": [...], "targets": [...]}, in the order of the data set."""

    name = "collect"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.outputs: list[Any] = []
        self.targets: list[Any] = []

    def update(self, outputs: Any, target: Any) -> None:
        """Keep the outputs and the target of one sample."""
        self.outputs.append(outputs)
        self.targets.append(target)

    def merge_state(self, others: Sequence[Collect]) -> None:
        """Append the samples of others."""
        for other in others:
            self.outputs += other.outputs
            self.targets += other.targets

    def compute(self) -> dict[str, list[Any]]:
        """Return all outputs and targets."""
        return {"outputs": list(self.outputs), "targets": list(self.targets)}
