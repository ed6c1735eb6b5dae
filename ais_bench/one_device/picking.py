"""Pick the outputs that a caller wants. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ais_bench import _native
from ais_bench.errors import FeedError
from ais_bench.options import as_list, nearest


def indexes_of(wanted: Any, names: Sequence[str]) -> list[int]:
    """Return the positions of the outputs in `wanted`, in its order. Raises FeedError for an unknown name."""
    asked = as_list("outputs", wanted, "output names")
    for name in asked:
        if name not in names:
            raise FeedError(f"the model has no output {name!r}{nearest(name, names) or f'; it has {list(names)}'}")
    return [names.index(name) for name in asked]


def picker(wanted: Any, names: Sequence[str]) -> Callable[[Any], Any]:
    """Return a function that picks the outputs in `wanted` from a list of all outputs (None: the list itself). A value that is
    not a list, such as an error, stays. Raises the errors of `indexes_of`."""
    if wanted is None:
        return lambda result: result
    indexes = indexes_of(wanted, names)
    return lambda result: picked(result, indexes) if isinstance(result, list) else result


def picked(outputs: Sequence[Any], indexes: Sequence[int]) -> list[Any]:
    """Return the outputs at these positions. If an output is wanted twice, the second is a copy, because outputs must be
    independent of each other."""
    found = []
    for place, index in enumerate(indexes):
        one = outputs[index]
        if index in indexes[:place]:
            one = np.array(one) if isinstance(one, np.ndarray) else one._copied() if isinstance(one, _native.Tensor) else one
        found.append(one)
    return found
