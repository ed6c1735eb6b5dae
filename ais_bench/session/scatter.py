"""From what callers pass to lists that can be handed out. Pure functions."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ais_bench.errors import ConfigError, FeedError
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.feeds import is_by_name, is_one_array, sets_of, to_array, to_sequence
from ais_bench.options import as_device_id, as_int, as_iterable, as_mode, check_custom_sizes, wrong


def is_by_device(feeds: Any) -> bool:
    """Whether this is the guide's form {device id: [feeds, ...]}; a mapping by input name has texts for keys."""
    if type(feeds) is list:
        return False  # the usual case; asking an abstract class takes its time
    return (
        isinstance(feeds, Mapping)
        and len(feeds) > 0
        and all(isinstance(key, numbers.Integral) and not isinstance(key, bool) for key in feeds)
    )


def by_device(feeds: Mapping[Any, Any]) -> dict[int, list[Any]]:
    """{device id: [feeds, ...]} with plain ints and lists. Raises ConfigError."""
    lists: dict[int, list[Any]] = {}
    for device, several in feeds.items():
        lists[as_device_id(device)] = list(as_iterable(f"the feeds of device {device}", several, "feeds, one for each run"))
    return lists


def as_feeds(feeds: Any, inputs: Sequence[tensor_desc]) -> Sequence[Any]:
    """The feeds of one run as a list or tuple in the model's order. Raises FeedError."""
    if type(feeds) is list or type(feeds) is tuple:
        return feeds
    return to_sequence(feeds, [desc.name for desc in inputs], [rank_of(desc) for desc in inputs])


def by_name(feeds: Any, inputs: Sequence[tensor_desc], overridable: Sequence[str]) -> dict[str, Any] | None:
    """The feeds of one run by name, if a list in the model's order cannot say what they are: an optional input is left out, or
    a constant gets another value. None for all others. Raises FeedError."""
    optional = [desc.name for desc in inputs if desc.optional]
    if not (optional or overridable) or (not optional and not is_by_name(feeds)):
        return None
    names = [desc.name for desc in inputs]
    if type(feeds) is not list and type(feeds) is not tuple:
        feeds = to_sequence(feeds, names, [rank_of(desc) for desc in inputs], optional, overridable)
    if len(feeds) not in (len(names), len(names) + len(overridable)):
        return None  # the task says what is wrong with them
    every = dict(zip([*names, *overridable], feeds, strict=False))
    given = {name: value for name, value in every.items() if value is not None or (name in names and name not in optional)}
    return None if list(given) == names else given


def numpy_name(desc: tensor_desc) -> str:
    """How numpy spells the type of an input: "np.float32"."""
    return f"{'np' if desc.dtype.isbuiltin == 1 else 'ml_dtypes'}.{desc.dtype.name}"


def rank_of(desc: tensor_desc) -> int:
    """The number of dimensions; -1 for an input of any rank, which has neither a shape nor a size."""
    return len(desc.shape) if desc.shape or desc.size else -1


def sets(feeds_list: Iterable[Any], listed: bool) -> Iterator[Any]:
    """The sets of feeds in a pipeline's list. `listed`: a bare array comes as a list of it, as a preprocess takes it."""
    for element in feeds_list:
        for feeds in sets_of(element):
            yield [feeds] if listed and is_one_array(feeds) else feeds


def sets_by_device(feeds: Mapping[Any, Any], listed: bool) -> dict[int, list[list[Any]]]:
    """{device id: [feeds_list, ...]} with the sets of each list. Raises ConfigError."""
    return {device: [list(sets(one, listed)) for one in several] for device, several in by_device(feeds).items()}


def as_arrays(arrays: Any, inputs: Sequence[tensor_desc]) -> list[NDArray[Any]]:
    """The whole data set as one array for each input, all with the same length along axis 0. Raises FeedError."""
    several = [arrays] if isinstance(arrays, np.ndarray) and len(inputs) == 1 else as_feeds(arrays, inputs)
    if len(several) != len(inputs):
        raise FeedError(f"the model takes inputs {[desc.name for desc in inputs]}; {len(several)} arrays were given")
    whole = [to_array(array, f"input {desc.name!r}", numpy_name(desc)) for desc, array in zip(inputs, several, strict=True)]
    single = [desc.name for desc, array in zip(inputs, whole, strict=True) if array.ndim == 0]
    if single:
        raise FeedError(
            f"the arrays for inputs {single} are single numbers; an array has one entry for each sample along axis 0"
        )
    lengths = {desc.name: array.shape[0] for desc, array in zip(inputs, whole, strict=True)}
    if len(set(lengths.values())) != 1:
        raise FeedError(f"all inputs need the same number of samples along axis 0; given were {lengths}")
    return whole


def batch_size_for(
    inputs: Sequence[tensor_desc], asked: int | None, samples: int, workers: int, gears: Sequence[int] = ()
) -> tuple[int, bool]:
    """How many samples a run takes, and whether a short last batch has to be padded. Raises ConfigError.

    A model with a fixed batch decides by itself. An open one takes `asked`, or what gives each worker a few runs: the smallest
    of its batch gears (ascending) that is as much, or the largest.
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


def batches(arrays: Sequence[NDArray[Any]], size: int, pad: bool) -> Iterator[list[NDArray[Any]]]:
    """Slices of `size` samples, views where they are whole. The last one is short, or padded with its last sample."""
    samples = arrays[0].shape[0]
    for start in range(0, samples, size):
        chunk = [array[start : start + size] for array in arrays]
        missing = start + size - samples
        if pad and missing > 0:
            chunk = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in chunk]
        yield chunk


def mode_number(mode: str, custom_sizes: Any = None) -> int:
    """The number by which a mode travels. Raises ConfigError."""
    number = as_mode(mode)
    if mode == "dymshape":
        check_custom_sizes(custom_sizes)
    return number
