"""Turn the arguments of callers into lists of feeds for the pool. Pure functions."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import ConfigError, FeedError
from ais_bench.one_device import gather
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.feeds import is_by_name, is_one_array, sets_of, to_array, to_sequence
from ais_bench.options import as_device_id, as_int, as_iterable, as_mode, check_custom_sizes, wrong


def is_by_device(feeds: Any) -> bool:
    """Return whether this is the form {device id: [feeds, ...]}. The keys of a mapping by input name are texts."""
    if type(feeds) is list:
        return False  # the usual case; a check against an abstract class is slow
    return (
        isinstance(feeds, Mapping)
        and len(feeds) > 0
        and all(isinstance(key, numbers.Integral) and not isinstance(key, bool) for key in feeds)
    )


def by_device(feeds: Mapping[Any, Any]) -> dict[int, list[Any]]:
    """Return {device id: [feeds, ...]} with plain ints and lists. Raises ConfigError."""
    lists: dict[int, list[Any]] = {}
    for device, several in feeds.items():
        lists[as_device_id(device)] = list(as_iterable(f"the feeds of device {device}", several, "feeds, one for each run"))
    return lists


def as_feeds(feeds: Any, inputs: Sequence[tensor_desc]) -> Sequence[Any]:
    """Return the feeds of one run as a list or tuple in the model's order. Raises FeedError."""
    if type(feeds) is list or type(feeds) is tuple:
        return feeds
    return to_sequence(feeds, [desc.name for desc in inputs], [rank_of(desc) for desc in inputs])


def by_name(feeds: Any, inputs: Sequence[tensor_desc], overridable: Sequence[str]) -> dict[str, Any] | None:
    """Return the feeds of one run by name, if a list in the model's order is not enough: an optional input is left out, or a
    constant gets another value. Return None otherwise. Raises FeedError."""
    optional = [desc.name for desc in inputs if desc.optional]
    if not (optional or overridable) or (not optional and not is_by_name(feeds)):
        return None
    names = [desc.name for desc in inputs]
    if type(feeds) is not list and type(feeds) is not tuple:
        feeds = to_sequence(feeds, names, [rank_of(desc) for desc in inputs], optional, overridable)
    if len(feeds) not in (len(names), len(names) + len(overridable)):
        return None  # the task reports what is wrong with the feeds
    every = dict(zip([*names, *overridable], feeds, strict=False))
    given = {name: value for name, value in every.items() if value is not None or (name in names and name not in optional)}
    return None if list(given) == names else given


def numpy_name(desc: tensor_desc) -> str:
    """Return numpy's spelling of an input's type: "np.float32"."""
    return f"{'np' if desc.dtype.isbuiltin == 1 else 'ml_dtypes'}.{desc.dtype.name}"


def rank_of(desc: tensor_desc) -> int:
    """Return the number of dimensions; -1 for an input of any rank, which has neither a shape nor a size."""
    return len(desc.shape) if desc.shape or desc.size else -1


def sets(feeds_list: Iterable[Any], listed: bool) -> Iterator[Any]:
    """Yield the sets of feeds in a pipeline's list. `listed`: yield a single array as a list, as a preprocess takes it."""
    for element in feeds_list:
        for feeds in sets_of(element):
            yield [feeds] if listed and is_one_array(feeds) else feeds


def sets_by_device(feeds: Mapping[Any, Any], listed: bool) -> dict[int, list[list[Any]]]:
    """Return {device id: [feeds_list, ...]} with the sets of each list. Raises ConfigError."""
    return {device: [list(sets(one, listed)) for one in several] for device, several in by_device(feeds).items()}


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
    axes = gather.BatchAxes(data.inputs, wanted, batch_axis, declared=not finishes)
    if data.samples == 0:
        return gather.no_samples(wanted)
    return gather.whole_arrays(run(data.runs(size, pad)), data.samples, size, pad, wanted, axes)


def batches(arrays: Sequence[NDArray[Any]], size: int, pad: bool) -> Iterator[list[NDArray[Any]]]:
    """Yield slices of `size` samples; full slices are views. The last one is short, or padded with its last sample."""
    samples = arrays[0].shape[0]
    for start in range(0, samples, size):
        chunk = [array[start : start + size] for array in arrays]
        missing = start + size - samples
        if pad and missing > 0:
            chunk = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in chunk]
        yield chunk


def mode_number(mode: str, custom_sizes: Any = None) -> int:
    """Return the number that stands for a mode in a task. Raises ConfigError."""
    number = as_mode(mode)
    if mode == "dymshape":
        check_custom_sizes(custom_sizes)
    return number
