"""The object that a preprocess passes to the postprocess of the same item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ais_bench.wire.objects import decode

if TYPE_CHECKING:
    from ais_bench.wire.lent import Borrower

__all__ = ["LENT", "Carry", "carried", "ready_made"]


class Carry:
    """A `preprocess` may return this instead of feeds: the `postprocess` is then called as `postprocess(outputs, extra)`.

    So a postprocess can know the size of the original picture, or the name or the true answer of the item. `extra` is any
    picklable object. Without a postprocess it is dropped.
    """

    __slots__ = ("extra", "feeds")

    def __init__(self, feeds: Any, extra: Any) -> None:
        self.feeds = feeds
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return Carry, (self.feeds, self.extra)


def carried(made: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the feeds in the result of a preprocess, and the further arguments of the postprocess."""
    return (made.feeds, (made.extra,)) if isinstance(made, Carry) else (made, ())


LENT = 1 << 32  # in the option of a task: its arrays come from ais_bench.wire.lent.lend


def ready_made(arrays: Sequence[Any], option: int, borrower: Borrower | None = None) -> tuple[Sequence[Any], tuple[Any, ...]]:
    """Return the same for arrays of a CPU worker. `option`: the task's; the number of feeds plus one if `extra` follows."""
    if option & LENT:
        assert borrower is not None
        arrays = borrower.arrays(arrays)
    feeds = (option & ~LENT) - 1
    if feeds < 0:
        return arrays, ()
    return arrays[:feeds], (decode(arrays[feeds:]),)
