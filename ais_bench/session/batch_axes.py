"""Find the axis of an output that runs over the samples, and join outputs of batches along it. Pure functions."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import ConfigError, FeedError
from ais_bench.one_device.descriptors import tensor_desc


class BatchAxes:
    """Which axis of each output runs over the samples.

    `asked` decides: one number for all outputs, or one for each, in a list or by name. Otherwise the model decides: by the name
    of its batch dimension, by a fixed batch that fits only one axis, or because only one axis is open. The lengths of a run
    must then agree. If several axes are possible, this is an error, because a wrong axis gives wrong numbers in the right
    shape.
    """

    def __init__(
        self, inputs: Sequence[tensor_desc], outputs: Sequence[tensor_desc], asked: Any = None, *, declared: bool = True
    ) -> None:
        """Find the axes. `declared` is False for outputs of a postprocess, which the model does not describe: axis 0."""
        self._outputs = outputs
        self._asked = _axes_asked(asked, [desc.name for desc in outputs])
        self._declared = declared
        fixed = {desc.shape[0] for desc in inputs if desc.shape and desc.shape[0] > 0}
        self._fixed = fixed.pop() if len(fixed) == 1 else None
        self._batch_names = {desc.dim_names[0] for desc in inputs if desc.dim_names and desc.dim_names[0]}
        self._other_names = {name for desc in inputs for name in desc.dim_names[1:] if name} - self._batch_names

    def axis_of(self, index: int, shape: tuple[int, ...], samples: int) -> int:
        """Return the axis of an output with this shape from a run of `samples` samples. Raises FeedError."""
        asked = self._asked.get(index)
        if asked is not None:
            axis = asked + len(shape) if asked < 0 else asked
            if not 0 <= axis < len(shape) or shape[axis] != samples:
                raise FeedError(
                    f"output {_name(self._outputs, index)} has shape {shape} for a batch of {samples}, and batch_axis is "
                    f"{asked}: not one entry a sample"
                )
            return axis
        possible = [axis for axis in self._possible(index, shape) if shape[axis] == samples]
        name = _name(self._outputs, index)
        if len(possible) == 1 and possible[0] > 0 and not self._says(index, possible[0], shape):
            raise FeedError(
                f"output {name} has shape {shape} for a batch of {samples}: not one entry a sample along axis 0; if axis "
                f"{possible[0]} runs over the samples, pass batch_axis={{{name}: {possible[0]}}}"
            )
        if len(possible) == 1 or (samples == 1 and 0 in possible):
            return possible[0]
        if not possible:
            raise FeedError(
                f"output {name} has shape {shape} for a batch of {samples}: not one entry a sample; leave it out by "
                "outputs=, or use map"
            )
        raise FeedError(
            f"output {name} has shape {shape} for a batch of {samples}, and each of the axes {possible} may run over the "
            f"samples; pass batch_axis={{{name}: {possible[0]}}}, or another of them"
        )

    def _says(self, index: int, axis: int, shape: tuple[int, ...]) -> bool:
        """Return whether the model itself declares that this axis is the batch: an equal length may be a coincidence."""
        desc = self._outputs[index] if index < len(self._outputs) else None
        if desc is None or len(desc.shape) != len(shape):
            return False
        return (bool(desc.dim_names) and desc.dim_names[axis] in self._batch_names) or (
            self._fixed is not None and desc.shape[axis] == self._fixed
        )

    def _possible(self, index: int, shape: tuple[int, ...]) -> list[int]:
        if not self._declared:
            return [0] if shape else []
        every = list(range(len(shape)))
        desc = self._outputs[index] if index < len(self._outputs) else None
        if desc is None or len(desc.shape) != len(shape):
            return every  # of any rank, or misdeclared
        names = desc.dim_names or [""] * len(shape)
        named = [axis for axis in every if names[axis] in self._batch_names]
        if named:
            return named
        mine = [axis for axis in every if names[axis] not in self._other_names]
        if self._fixed is not None:
            return [axis for axis in mine if desc.shape[axis] in (-1, self._fixed)]
        return [axis for axis in mine if desc.shape[axis] == -1] or ([] if self._batch_names else mine)


def _axes_asked(asked: Any, names: Sequence[str]) -> dict[int, int]:
    """Return {output: axis} from a caller's batch_axis. Raises ConfigError."""
    if asked is None:
        return {}
    wanted = f"batch_axis must be an integer, a list of one for each output, or {{output name: integer}}, got {asked!r}"
    if isinstance(asked, Mapping):
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ConfigError(f"batch_axis names {unknown}; the outputs are {list(names)}")
        pairs = [(names.index(name), axis) for name, axis in asked.items()]
    elif isinstance(asked, (list, tuple)):
        if len(asked) != len(names):
            raise ConfigError(f"batch_axis has {len(asked)} numbers; the model has {len(names)} outputs")
        pairs = list(enumerate(asked))
    else:
        pairs = [(index, asked) for index in range(len(names))]
    if any(isinstance(axis, bool) or not isinstance(axis, numbers.Integral) for _, axis in pairs):
        raise ConfigError(wanted)
    return {index: int(axis) for index, axis in pairs}


def whole_arrays(
    runs: Iterable[Sequence[NDArray[Any]]],
    samples: int,
    size: int,
    pad: bool,
    outputs: Sequence[tensor_desc],
    axes: BatchAxes | None = None,
) -> list[NDArray[Any]]:
    """Return one array for each output from runs over consecutive batches, without the padding.

    The arrays are allocated once, at the first run, and filled. Raises FeedError if an output does not have one entry for each
    sample, or its other dimensions change from run to run.
    """
    axes = axes or BatchAxes([], outputs, declared=False)
    whole: list[NDArray[Any]] = []
    chosen: list[int] = []
    start = 0
    for run in runs:
        stop = min(start + size, samples)
        expected = size if pad else stop - start
        if not isinstance(run, (list, tuple)) or not all(isinstance(array, np.ndarray) for array in run):
            raise FeedError(
                f"the postprocess returned a {type(run).__name__} where a list of arrays is wanted, with one entry a sample; "
                "use map for other results"
            )
        for index, array in enumerate(run):
            if start == 0:
                axis = axes.axis_of(index, array.shape, expected)
                chosen.append(axis)
                whole.append(np.empty((*array.shape[:axis], samples, *array.shape[axis + 1 :]), array.dtype))
            _place(array, whole[index], chosen[index], start, stop, expected, _name(outputs, index))
        start = stop
    return whole


def _place(array: NDArray[Any], whole: NDArray[Any], axis: int, start: int, stop: int, expected: int, name: str) -> None:
    """Copy one run's output to its position. Raises FeedError."""
    rest = (*whole.shape[:axis], *whole.shape[axis + 1 :])
    if array.ndim != whole.ndim or array.shape[axis] != expected:
        raise FeedError(f"output {name} has shape {array.shape} for a batch of {expected}: not one entry a sample")
    given = (*array.shape[:axis], *array.shape[axis + 1 :])
    if given != rest:
        raise FeedError(
            f"output {name} has samples of shape {given} in one batch and {rest} in another; use map for outputs that vary"
        )
    np.moveaxis(whole, axis, 0)[start:stop] = np.moveaxis(array, axis, 0)[: stop - start]


def no_samples(outputs: Sequence[tensor_desc]) -> list[NDArray[Any]]:
    """Return the result of `whole_arrays` without samples: empty arrays, with open dimensions as 0."""
    return [np.empty((0, *(max(0, dim) for dim in desc.shape[1:])), desc.dtype) for desc in outputs]


def _name(outputs: Sequence[tensor_desc], index: int) -> str:
    return repr(outputs[index].name) if index < len(outputs) else str(index)
