"""Recognise the form {device id: [feeds, ...]}, and turn it into lists. Pure functions."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ais_bench.one_device.feeds import is_one_array, sets_of
from ais_bench.options import as_device_id, as_iterable


def is_by_device(feeds: Any) -> bool:
    """Return whether this is the form {device id: [feeds, ...]}. The keys of a mapping by input name are texts."""
    if type(feeds) is list:
        return False  # the usual case; a check against an abstract class is slow
    return (
        isinstance(feeds, Mapping)
        and len(feeds) > 0
        and all(isinstance(key, numbers.Integral) and not isinstance(key, bool) for key in feeds)
    )


def lists_by_device(feeds: Mapping[Any, Any]) -> dict[int, list[Any]]:
    """Return {device id: [feeds, ...]} with plain ints and lists. Raises ConfigError."""
    lists: dict[int, list[Any]] = {}
    for device, several in feeds.items():
        lists[as_device_id(device)] = list(as_iterable(f"the feeds of device {device}", several, "feeds, one for each run"))
    return lists


def sets_in(feeds_list: Iterable[Any], listed: bool) -> Iterator[Any]:
    """Yield the sets of feeds in a pipeline's list. `listed`: yield a single array as a list, as a preprocess takes it."""
    for element in feeds_list:
        for feeds in sets_of(element):
            yield [feeds] if listed and is_one_array(feeds) else feeds


def sets_by_device(feeds: Mapping[Any, Any], listed: bool) -> dict[int, list[list[Any]]]:
    """Return {device id: [feeds_list, ...]} with the sets of each list. Raises ConfigError."""
    return {device: [list(sets_in(one, listed)) for one in several] for device, several in lists_by_device(feeds).items()}


def regroup(items: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    """Return a flat list as lists of these lengths."""
    edges = [0, *itertools.accumulate(lengths)]
    return [list(items[low:high]) for low, high in itertools.pairwise(edges)]
