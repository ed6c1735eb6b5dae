"""Bring the feeds of one run into the form in which the pool takes them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.feeds import is_by_name, to_sequence
from ais_bench.options import as_mode, check_custom_sizes


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


def rank_of(desc: tensor_desc) -> int:
    """Return the number of dimensions; -1 for an input of any rank, which has neither a shape nor a size."""
    return len(desc.shape) if desc.shape or desc.size else -1


def mode_number(mode: str, custom_sizes: Any = None) -> int:
    """Return the number that stands for a mode in a task. Raises ConfigError."""
    number = as_mode(mode)
    if mode == "dymshape":
        check_custom_sizes(custom_sizes)
    return number
