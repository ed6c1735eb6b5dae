"""What a preprocess hands to the postprocess of the same item."""

from __future__ import annotations

from typing import Any

__all__ = ["Carry"]


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
