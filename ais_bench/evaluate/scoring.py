"""Metrics of any library by protocol, updated in the order of the data set. If one raises, the others and the run go on."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ais_bench.errors import ConfigError
from ais_bench.options import wrong_type

__all__ = ["Scorer"]


class _Metric(Protocol):
    """The interface to which all kinds of metrics are adapted."""

    def update(self, outputs: Any, target: Any) -> None:
        """Count one sample."""

    def compute(self) -> Any:
        """Return the score."""


class _InBatches:
    """Adapts a metric with `add_batch(predictions=, references=)`; each batch has one sample."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def update(self, outputs: Any, target: Any) -> None:
        self._metric.add_batch(predictions=[outputs], references=[target])

    def compute(self) -> Any:
        return self._metric.compute()


class _Mean:
    """Adapts a function of (outputs, target): the mean of its numbers, or of each number in its dicts."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function
        self._sums: dict[str | None, float] = {}
        self._counts: dict[str | None, int] = {}

    def update(self, outputs: Any, target: Any) -> None:
        value = self._function(outputs, target)
        for name, number in value.items() if isinstance(value, Mapping) else ((None, value),):
            if number is not None:
                self._sums[name] = self._sums.get(name, 0.0) + float(number)
                self._counts[name] = self._counts.get(name, 0) + 1

    def compute(self) -> Any:
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        return means.get(None, float("nan")) if set(means) <= {None} else means


def _as_metric(metric: Any) -> _Metric:
    if isinstance(metric, type):
        raise ConfigError(f"a metric must be an object, got the class {metric!r}; pass {metric.__name__}()")
    if callable(getattr(metric, "update", None)) and callable(getattr(metric, "compute", None)):
        return metric  # type: ignore[no-any-return]
    if callable(getattr(metric, "add_batch", None)) and callable(getattr(metric, "compute", None)):
        return _InBatches(metric)
    if callable(metric):
        return _Mean(metric)
    raise ConfigError(
        "a metric must have update and compute, or add_batch and compute, or be a function of (outputs, target), "
        f"got {metric!r}"
    )


def _name_of(metric: Any) -> str:
    for name in (getattr(metric, "name", None), getattr(metric, "__name__", None)):
        if isinstance(name, str) and name:
            return "function" if name == "<lambda>" else name
    return type(metric).__name__


class Scorer:
    """All metrics of one evaluation.

    Args:
        metrics: one, several, or a mapping from names to them.
        final: a function of all outputs and all targets. It needs all of them in memory.

    Raises ConfigError if an object is not a metric.
    """

    def __init__(self, metrics: Any = (), final: Callable[[list[Any], list[Any]], Any] | None = None) -> None:
        if final is not None and not callable(final):
            raise wrong_type("final", "a function of all outputs and all targets", final)
        self.metrics: dict[str, _Metric] = {}
        for name, metric in _named(metrics):
            unique = next(n for n in _numbered(name) if n not in self.metrics)
            self.metrics[unique] = _as_metric(metric)
            if callable(getattr(metric, "reset", None)):
                metric.reset()
        self._final = final
        self._outputs: list[Any] = []
        self._targets: list[Any] = []
        self.scored = 0
        self.errors: dict[str, str] = {}

    @property
    def wanted(self) -> bool:
        """Whether any metric needs results."""
        return bool(self.metrics) or self._final is not None

    @property
    def names(self) -> list[str]:
        """The names of the metrics."""
        return [*self.metrics, *(["final"] if self._final is not None else [])]

    def update(self, index: int, outputs: Any, target: Any) -> None:
        """Count one sample."""
        self.scored += 1
        for name, metric in self.metrics.items():
            if name not in self.errors:
                try:
                    metric.update(outputs, target)
                except Exception as error:
                    self.errors[name] = f"at sample {index}: {_say(error)}"
        if self._final is not None:
            self._outputs.append(outputs)
            self._targets.append(target)

    def compute(self) -> dict[str, Any]:
        """Return the scores by name: Python numbers if possible, otherwise the metric's own value."""
        scores: dict[str, Any] = {}
        for name, metric in self.metrics.items():
            if name not in self.errors:
                try:
                    scores[name] = _plain(metric.compute())
                except Exception as error:
                    self.errors[name] = f"at the end: {_say(error)}"
        if self._final is not None:
            try:
                value = _plain(self._final(self._outputs, self._targets))
            except Exception as error:
                self.errors["final"] = f"at the end: {_say(error)}"
            else:
                for name, one in value.items() if isinstance(value, dict) else (("final", value),):
                    scores[str(name) if str(name) not in scores else f"final.{name}"] = one
        return scores


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _named(metrics: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(metrics, Mapping):
        return [(str(name), metric) for name, metric in metrics.items()]
    several = list(metrics) if isinstance(metrics, (list, tuple, set)) else [] if metrics is None else [metrics]
    return [(_name_of(metric), metric) for metric in several]


def _numbered(name: str) -> Iterable[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _plain(value: Any) -> Any:
    """Return numbers of numpy, torch and similar libraries as Python numbers, also inside dicts."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, numbers.Number) or (hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,))):
        try:
            return value.item()
        except AttributeError:
            return value
    return value
