"""What goes to a node and comes back: a chunk of items, and what became of each. Plain data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ais_bench.ray.parcels import Packed, Parcel

__all__ = ["Chunk", "Order", "Outcome", "Waiting"]


class Order(NamedTuple):
    """How a node runs items."""

    mode: str = "static"
    device: int | None = None  # the device of the node; None: any
    outputs: tuple[str, ...] | None = None  # their names; None: all


class Outcome(NamedTuple):
    """What became of one item. `error` is what ais_bench.wire.pickling.dumps_error made of an exception."""

    outputs: Packed | None
    error: bytes | None
    item: Packed | None  # of ais_bench.session.Item, its index within the chunk


class Waiting:
    """Whoever waits for chunks: a stream. The driver notifies, the caller waits."""

    def __init__(self) -> None:
        self.changed = threading.Condition()


@dataclass(eq=False)
class Chunk:
    """Some items that follow each other. The driver's thread alone changes it until `done`, and never after that."""

    first: int  # index of the first item in the stream
    parcels: Sequence[Parcel]
    order: Order
    waiting: Waiting
    node: int | None = None  # the number of the node that it must run on
    then: Callable[[Chunk], None] | None = None  # called once it is done, in a thread for such calls
    outcomes: Sequence[Outcome] | None = None  # once it is done, unless it failed as a whole
    error: BaseException | None = None
    done: bool = False
    wanted: bool = True
    where: str = ""  # the node that answered
    costs: list[str] = field(default_factory=list)  # nodes that were lost with it
    tries: int = 0  # nodes that were suspected while they had it
    sent_ns: int = 0
    count: int = 0  # of the items
    parts: list[Chunk] | None = None  # what it was split into

    def __post_init__(self) -> None:
        self.count = self.count or len(self.parcels)

    def leaves(self) -> list[Chunk]:
        """The chunks that stand for it now, in order."""
        if self.parts is None:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]

    def split(self) -> list[Chunk]:
        """Chunks of one item each in its place."""
        self.parts = [
            Chunk(self.first + place, [parcel], self.order, self.waiting, self.node, costs=list(self.costs))
            for place, parcel in enumerate(self.parcels)
        ]
        return self.parts

    def finished(self) -> bool:
        """Whether all that stands for it is done."""
        return all(leaf.done for leaf in self.leaves())
