"""Split a whole data set into batches. Pure functions, except `infer_whole`, which also runs the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import ConfigError, FeedError
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.feeds import is_by_name, to_array, to_sequence
from ais_bench.options import as_int, wrong
from ais_bench.session.batch_axes import BatchAxes, no_samples, whole_arrays
from ais_bench.session.run_feeds import rank_of


class DataSet(NamedTuple):
    """A whole data set: one array for each given input, all with the same length along axis 0, and the values of constants,
    which every run gets unsplit."""

    arrays: dict[str, NDArray[Any]]
    constants: dict[str, Any]
    inputs: list[tensor_desc]  # the inputs that are given
    in_order: bool  # whether all inputs are given, and no constants

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(next(iter(self.arrays.values())))

    def runs(self, size: int, pad: bool) -> Iterator[list[NDArray[Any]] | dict[str, Any]]:
        """Yield the feeds of runs of `size` samples: a list in the model's order, or a mapping if a list is not enough."""
        for chunk in batches(list(self.arrays.values()), size, pad):
            yield chunk if self.in_order else dict(zip(self.arrays, chunk, strict=True)) | self.constants


def as_data_set(arrays: Any, inputs: Sequence[tensor_desc], overridable: Sequence[str] = ()) -> DataSet:
    """Return the whole data set. Optional inputs may be None, or missing from a mapping; a mapping may have values for the
    constants in `overridable`. Raises FeedError."""
    names, optional = [desc.name for desc in inputs], [desc.name for desc in inputs if desc.optional]
    several = [arrays] if isinstance(arrays, np.ndarray) and len(inputs) == 1 else arrays
    if type(several) is not list and type(several) is not tuple:
        several = to_sequence(several, names, [rank_of(desc) for desc in inputs], optional, overridable)
    by_name = is_by_name(arrays)
    if len(several) != len(inputs) and not by_name:
        raise FeedError(f"the model takes inputs {names}, got {len(several)} arrays")
    every = dict(zip([*names, *overridable], several, strict=False))
    constants = {name: value for name, value in every.items() if name not in names and value is not None}
    given = [desc for desc in inputs if every[desc.name] is not None or not desc.optional]
    whole = {desc.name: to_array(every[desc.name], f"input {desc.name!r}", numpy_name(desc)) for desc in given}
    if not whole:
        raise FeedError(f"the model takes inputs {names}, and none was given; the samples are counted by an input's array")
    single = [name for name, array in whole.items() if array.ndim == 0]
    if single:
        raise FeedError(
            f"the arrays for inputs {single} are single numbers; an array has one entry for each sample along axis 0"
        )
    lengths = {name: array.shape[0] for name, array in whole.items()}
    if len(set(lengths.values())) != 1:
        raise FeedError(f"all inputs need the same number of samples along axis 0; given were {lengths}")
    return DataSet(whole, constants, given, len(given) == len(inputs) and not constants)


def numpy_name(desc: tensor_desc) -> str:
    """Return numpy's spelling of an input's type: "np.float32"."""
    return f"{'np' if desc.dtype.isbuiltin == 1 else 'ml_dtypes'}.{desc.dtype.name}"


def batch_size_for(
    inputs: Sequence[tensor_desc], asked: int | None, samples: int, workers: int, gears: Sequence[int] = ()
) -> tuple[int, bool]:
    """Return the number of samples of a run, and whether a short last batch must be padded. Raises ConfigError.

    A fixed batch of the model decides. If the batch is open, `asked` decides, or else a size that gives each worker a few runs:
    the smallest batch gear (ascending) of at least this size, or the largest gear.
    """
    asked = as_int("batch_size", asked, 1, optional=True)
    fixed = {desc.shape[0] for desc in inputs if desc.shape and desc.shape[0] > 0}
    if len(fixed) > 1:
        raise ConfigError(f"the inputs of this model have different lengths along axis 0 ({sorted(fixed)}): no batch to split")
    if fixed:
        size = fixed.pop()
        if asked is not None and asked != size:
            raise wrong("batch_size", f"{size}, for which the model was built, or None", asked)
        return size, True
    if asked is not None:
        return asked, True
    size = max(1, min(64, -(-samples // max(1, 4 * workers))))
    if gears:
        return next((gear for gear in gears if gear >= size), gears[-1]), True
    return size, False


def infer_whole(
    run: Callable[[Iterator[Any]], Iterable[Any]],
    data: DataSet,
    wanted: Sequence[tensor_desc],
    batch_axis: Any,
    size_and_pad: tuple[int, bool],
    *,
    finishes: bool,
) -> list[NDArray[Any]]:
    """Return whole arrays, one for each output in `wanted`, of a data set that `run` runs in batches, in order.

    `finishes`: a postprocess makes the outputs. Raises ConfigError for the axis, FeedError for outputs that do not fit.
    """
    size, pad = size_and_pad
    axes = BatchAxes(data.inputs, wanted, batch_axis, declared=not finishes)
    if data.samples == 0:
        return no_samples(wanted)
    return whole_arrays(run(data.runs(size, pad)), data.samples, size, pad, wanted, axes)


def batches(arrays: Sequence[NDArray[Any]], size: int, pad: bool) -> Iterator[list[NDArray[Any]]]:
    """Yield slices of `size` samples; full slices are views. The last one is short, or padded with its last sample."""
    samples = arrays[0].shape[0]
    for start in range(0, samples, size):
        chunk = [array[start : start + size] for array in arrays]
        missing = start + size - samples
        if pad and missing > 0:
            chunk = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in chunk]
        yield chunk
