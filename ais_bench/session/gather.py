"""From single outputs to what callers asked for. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import FeedError
from ais_bench.options import as_list, nearest
from ais_bench.session.descriptors import tensor_desc


def whole_arrays(
    runs: Iterable[Sequence[NDArray[Any]]], samples: int, size: int, pad: bool, outputs: Sequence[tensor_desc]
) -> list[NDArray[Any]]:
    """Outputs of runs over consecutive batches as one array for each output, padding trimmed.

    The arrays are allocated once, at the first run, and filled. Raises FeedError for an output without one entry for each
    sample along axis 0, or whose other dimensions change from run to run.
    """
    whole: list[NDArray[Any]] = []
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
            if array.ndim == 0 or array.shape[0] != expected:
                raise FeedError(
                    f"output {_name(outputs, index)} has shape {array.shape} for a batch of {expected}: not one entry a sample"
                )
            if start == 0:
                whole.append(np.empty((samples, *array.shape[1:]), array.dtype))
            elif array.shape[1:] != whole[index].shape[1:]:
                raise FeedError(
                    f"output {_name(outputs, index)} has samples of shape {array.shape[1:]} in one batch and "
                    f"{whole[index].shape[1:]} in another; use map for outputs that vary"
                )
            whole[index][start:stop] = array[: stop - start]
        start = stop
    return whole


def indexes_of(wanted: Any, names: Sequence[str]) -> list[int]:
    """The places of the outputs named in `wanted`, in its order. Raises FeedError for a name that the model does not have."""
    asked = as_list("outputs", wanted, "output names")
    for name in asked:
        if name not in names:
            raise FeedError(f"the model has no output {name!r}{nearest(name, names) or f'; it has {list(names)}'}")
    return [names.index(name) for name in asked]


def regroup(items: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    """A flat list cut into lists of these lengths."""
    edges = [0, *itertools.accumulate(lengths)]
    return [list(items[low:high]) for low, high in itertools.pairwise(edges)]


def no_samples(outputs: Sequence[tensor_desc]) -> list[NDArray[Any]]:
    """What `whole_arrays` gives for no samples at all: empty arrays, open dimensions as 0."""
    return [np.empty((0, *(max(0, dim) for dim in desc.shape[1:])), desc.dtype) for desc in outputs]


def _name(outputs: Sequence[tensor_desc], index: int) -> str:
    return repr(outputs[index].name) if index < len(outputs) else str(index)
