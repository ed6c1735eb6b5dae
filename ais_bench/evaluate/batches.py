"""The code around the model in a worker: read and preprocess samples, join them to a batch, split and postprocess outputs.

The two callables are the `preprocess` and the `postprocess` of a MultiDeviceSession. One task is one batch. `Reader` makes its
feeds. `Finisher` makes a list of (sample's position in the batch, outcome).
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ais_bench.errors import AisBenchError, FeedError
from ais_bench.wire.carry import Carry

__all__ = ["Batch", "Finisher", "Inputs", "Reader", "SampleOutcome", "SamplesFailed", "failure_of"]

TARGETS = ("label", "labels", "target", "targets")  # keys of the true answer in a sample that is a mapping


class Inputs(NamedTuple):
    """The description of the model's inputs for a batch: names, ranks (-1: any), element types."""

    names: tuple[str, ...]
    ranks: tuple[int, ...]
    kinds: tuple[str, ...]


class Batch(NamedTuple):
    """One task on its way to a worker.

    Attributes:
        size: number of samples that the model gets; positions without a sample are filled with copies.
        entries: tuples (position, index, sample); the sample is None if the worker reads it by its index.
        inputs: the inputs of the model.
    """

    size: int
    entries: tuple[tuple[int, int, Any], ...]
    inputs: Inputs


class SampleOutcome(NamedTuple):
    """The outcome of one sample: a result and a target, or a failure in the form of a record."""

    result: Any = None
    target: Any = None
    failure: dict[str, str] | None = None


class SamplesFailed(AisBenchError):
    """No sample of a batch could be read. `outcomes` has the position and the failure of each sample."""

    def __init__(self, outcomes: list[tuple[int, SampleOutcome]]) -> None:
        super().__init__("no sample of the batch could be read")
        self.outcomes = outcomes

    def __reduce__(self) -> tuple[Any, ...]:
        return SamplesFailed, (self.outcomes,)


def failure_of(error: BaseException) -> dict[str, str]:
    """Return a record's form of an error: its type, its message, and its origin."""
    try:
        message = str(error)
    except Exception:  # the class is the caller's
        message = "its str() raised an error"
    remote = error.__cause__
    if remote is not None and type(remote).__name__ == "RemoteTraceback":
        place = str(remote).strip().strip('"').strip()
    else:
        place = "".join(traceback.format_exception(error)).strip()
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "message": message, "traceback": place}


class Reader:
    """Make feeds, and the data for `Finisher`, from the indexes of a batch.

    Args:
        data: the data set, or None if samples come with the batch.
        target, preprocess: the caller's functions of a sample.
        seed: if given, `random` and numpy's generator are seeded again for each sample, from the seed and its index.
        fails_alone: whether a sample that cannot be read fails alone. Otherwise its error fails the task.
    """

    def __init__(
        self,
        data: Any,
        target: Callable[[Any], Any] | None,
        preprocess: Callable[[Any], Any] | None,
        seed: int | None,
        fails_alone: bool,
    ) -> None:
        self._data, self._target, self._preprocess = data, target, preprocess
        self._seed, self._fails_alone = seed, fails_alone

    def __call__(self, batch: Batch) -> Carry:
        """Return the feeds of a batch, with (size, targets by position, failures by position)."""
        feeds: dict[int, list[Any]] = {}
        targets: dict[int, Any] = {}
        failures: list[tuple[int, SampleOutcome]] = []
        for place, index, sample in batch.entries:
            try:
                feeds[place], targets[place] = self._read(index, sample, batch.inputs)
            except Exception as error:
                if not self._fails_alone or batch.size == 1:
                    raise
                failures.append((place, SampleOutcome(failure=failure_of(error))))
        if not feeds:
            raise SamplesFailed(failures)
        filler = next(iter(feeds.values()))
        whole = [feeds.get(place, filler) for place in range(batch.size)]
        joined = [_join([one[i] for one in whole], batch, i) for i in range(len(filler))]
        return Carry(joined, (batch.size, targets, failures))

    def _read(self, index: int, sample: Any, inputs: Inputs) -> tuple[list[Any], Any]:
        if self._seed is not None:
            mixed = random.Random(f"{self._seed} {index}").getrandbits(32)
            random.seed(mixed)
            np.random.seed(mixed)
        if self._data is not None:
            sample = self._data[index]
        feeds, target = sample, None
        if self._preprocess is None and self._target is None:
            feeds, target = _feeds_and_target(sample, inputs)
        elif self._preprocess is None:
            feeds, _ = _feeds_and_target(sample, inputs)
        if self._target is not None:
            target = self._target(sample)
        elif self._preprocess is not None:
            _, target = _feeds_and_target(sample, inputs)
        if self._preprocess is not None:
            feeds = self._preprocess(sample)
        return _listed(feeds, inputs), target


def _feeds_and_target(sample: Any, inputs: Inputs) -> tuple[Any, Any]:
    """Split a sample into the model's feeds and the true answer.

    A tuple is (feeds, target), or has one entry more than the model has inputs. In a mapping the true answer has a key in
    TARGETS. In all other cases the whole sample is feeds.
    """
    count = len(inputs.names)
    if isinstance(sample, Mapping):
        target = next((sample[name] for name in TARGETS if name in sample and name not in inputs.names), None)
        return ({name: sample[name] for name in inputs.names} if all(n in sample for n in inputs.names) else sample), target
    if isinstance(sample, tuple):
        if len(sample) == 2 and (count == 1 or isinstance(sample[0], (list, tuple, Mapping))):
            return sample[0], sample[1]
        if len(sample) == count + 1:
            return sample[:count], sample[count]
    return sample, None


def _listed(feeds: Any, inputs: Inputs) -> list[Any]:
    """Return one array for each input. Add the batch axis if the model's rank shows that it is missing. Raises FeedError."""
    count = len(inputs.names)
    if isinstance(feeds, Mapping):
        missing = [name for name in inputs.names if name not in feeds]
        if missing:
            raise FeedError(f"the model takes inputs {list(inputs.names)}; the sample has {list(feeds)}, not {missing}")
        several: Sequence[Any] = [feeds[name] for name in inputs.names]
    elif isinstance(feeds, (list, tuple)) and (count > 1 or (len(feeds) == 1 and hasattr(feeds[0], "shape"))):
        several = feeds
    else:
        several = [feeds]
    if len(several) != count:
        raise FeedError(f"the model takes {count} inputs {list(inputs.names)}; the sample has {len(several)}")
    return [_array(value, inputs, index) for index, value in enumerate(several)]


def _array(value: Any, inputs: Inputs, index: int) -> Any:
    if isinstance(value, (list, tuple, int, float)):  # they have no element type of their own
        try:
            value = np.asarray(value, inputs.kinds[index])
        except (TypeError, ValueError) as error:
            raise FeedError(
                f"input {inputs.names[index]!r}: the sample must be an array of {inputs.kinds[index]}: {error}"
            ) from None
    elif not hasattr(value, "shape"):
        raise FeedError(f"input {inputs.names[index]!r}: the sample must be an array, got a {type(value).__name__}")
    if len(value.shape) == inputs.ranks[index] - 1:
        return value[None]
    return value


def _join(parts: list[Any], batch: Batch, index: int) -> Any:
    """Return one input of all samples of a batch."""
    if batch.size == 1:
        return parts[0]
    arrays = [_numpy(part) for part in parts]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise FeedError(
            f"input {batch.inputs.names[index]!r}: samples of the shapes {sorted(shapes)[:3]} do not make a batch; "
            "preprocess them to one shape, or use batch_size=1"
        )
    if arrays[0].ndim == batch.inputs.ranks[index]:
        return np.concatenate(arrays)
    return np.stack(arrays)


def _numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    from ais_bench.one_device.feeds import to_array

    return to_array(value, "a sample")


class Finisher:
    """Make [(position, SampleOutcome), ...] from a batch's outputs: split them, drop the copies, and postprocess.

    Args:
        postprocess: the caller's function of the outputs of one sample; None: the outputs themselves.
        wanted: whether results and targets are needed; otherwise they are not sent back.
        fails_alone: as for Reader.
    """

    def __init__(self, postprocess: Callable[[Any], Any] | None, wanted: bool, fails_alone: bool) -> None:
        self._postprocess, self._wanted, self._fails_alone = postprocess, wanted, fails_alone

    def __call__(self, outputs: list[Any], extra: tuple[int, dict[int, Any], list[Any]]) -> list[tuple[int, SampleOutcome]]:
        """Return the outcomes in the order of the positions."""
        size, targets, failures = extra
        outcomes = list(failures)
        parts = _split(outputs, size) if self._wanted or self._postprocess is not None else None
        for place, target in targets.items():
            outcomes.append((place, self._finish(None if parts is None else parts[place], target, size)))
        return sorted(outcomes, key=lambda one: one[0])

    def _finish(self, part: Any, target: Any, size: int) -> SampleOutcome:
        try:
            result = part if self._postprocess is None else self._postprocess(part)
        except Exception as error:
            if not self._fails_alone or size == 1:
                raise
            return SampleOutcome(failure=failure_of(error))
        return SampleOutcome(result, target) if self._wanted else SampleOutcome()


def _split(outputs: list[Any], size: int) -> list[list[Any]]:
    """Split the outputs of a batch into outputs of its samples, and keep the batch axis. Raises FeedError."""
    if size == 1:
        return [outputs]
    for index, array in enumerate(outputs):
        if array.ndim == 0 or array.shape[0] % size:
            raise FeedError(
                f"output {index} has shape {array.shape} for a batch of {size}: it must have {size} entries along axis 0; "
                "use batch_size=1"
            )
    rows = [array.shape[0] // size for array in outputs]
    return [[array[place * n : (place + 1) * n] for array, n in zip(outputs, rows, strict=True)] for place in range(size)]
