"""The messages between the driver and a node: a chunk of items, and the outcome of each item. Plain data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ais_bench.ray.bundles import Bundle, BundleOrRef

__all__ = ["Chunk", "ChunkWaiter", "ItemOutcome", "Order"]


class Order(NamedTuple):
    """How a node runs items."""

    mode: str = "static"
    device: int | None = None  # a device of the node; None: any device
    outputs: tuple[str, ...] | None = None  # names of the wanted outputs; None: all


class ItemOutcome(NamedTuple):
    """The outcome of one item. `error` is an exception as bytes, from ais_bench.wire.pickling.dumps_error."""

    outputs: Bundle | None
    error: bytes | None
    item: Bundle | None  # an ais_bench.session.Item, with its index within the chunk


class ChunkWaiter:
    """A stream that waits for chunks. The driver notifies it, and the caller waits."""

    def __init__(self) -> None:
        self.changed = threading.Condition()


@dataclass(eq=False)
class Chunk:
    """Some consecutive items. Only the driver's thread changes a chunk, and never after `done`."""

    first: int  # index of the first item in the stream
    bundles: Sequence[BundleOrRef]
    order: Order
    waiting: ChunkWaiter
    node: int | None = None  # the number of the node on which it must run
    then: Callable[[Chunk], None] | None = None  # called once it is done, in a separate thread
    outcomes: Sequence[ItemOutcome] | None = None  # set once it is done, unless it failed as a whole
    error: BaseException | None = None
    done: bool = False
    wanted: bool = True
    where: str = ""  # the node that answered
    costs: list[str] = field(default_factory=list)  # nodes that were lost with it
    tries: int = 0  # nodes that were suspected while they had it
    sent_ns: int = 0
    count: int = 0  # number of items
    parts: list[Chunk] | None = None  # the chunks into which it was split

    def __post_init__(self) -> None:
        self.count = self.count or len(self.bundles)

    def leaves(self) -> list[Chunk]:
        """Return the chunks into which it was split, in order, or the chunk itself."""
        if self.parts is None:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]

    def split(self) -> list[Chunk]:
        """Split the chunk into chunks of one item each, and return them."""
        self.parts = [
            Chunk(self.first + place, [bundle], self.order, self.waiting, self.node, costs=list(self.costs))
            for place, bundle in enumerate(self.bundles)
        ]
        return self.parts

    def finished(self) -> bool:
        """Return whether the chunk, or all its parts, are done."""
        return all(leaf.done for leaf in self.leaves())
