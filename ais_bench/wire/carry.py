"""What a preprocess hands to the postprocess of the same item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ais_bench.wire.objects import decode

if TYPE_CHECKING:
    from ais_bench.wire.lent import Borrower

__all__ = ["LENT", "Carry", "carried", "ready_made"]


class Carry:
    """A `preprocess` may return this instead of feeds: the `postprocess` is then called as `postprocess(outputs, extra)`.

    So a postprocess knows the size of the picture it was, the name or the true answer of the item. `extra` is any picklable
    object. Without a postprocess it is dropped.
    """

    __slots__ = ("extra", "feeds")

    def __init__(self, feeds: Any, extra: Any) -> None:
        self.feeds = feeds
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return Carry, (self.feeds, self.extra)


def carried(made: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the feeds of what a preprocess made, and the further arguments of the postprocess."""
    return (made.feeds, (made.extra,)) if isinstance(made, Carry) else (made, ())


LENT = 1 << 32  # in the option of a task: its arrays are what ais_bench.wire.lent.lend returned


def ready_made(arrays: Sequence[Any], option: int, borrower: Borrower | None = None) -> tuple[Sequence[Any], tuple[Any, ...]]:
    """Return the same of what a CPU worker made. `option`: of the task, one more than there are feeds if `extra` follows."""
    if option & LENT:
        assert borrower is not None
        arrays = borrower.arrays(arrays)
    feeds = (option & ~LENT) - 1
    if feeds < 0:
        return arrays, ()
    return arrays[:feeds], (decode(arrays[feeds:]),)
