"""The nodes of a cluster that a session uses, and what each of them is doing.

A node's states, and who moves it:

    state      meaning                                   becomes
    STARTING   its actor loads the model                 READY: `start` answered; RESTING: it failed
    READY      it gets chunks                            SUSPECT: an error of Ray's, or no answer to a ping
    SUSPECT    it gets none; it is asked whether it      READY: it answered; RESTING: its actor is dead
               is there
    RESTING    no actor; one is started again when       STARTING: its pause is over and Ray says that the node lives
               its pause is over
    OUT        it failed too often in a row, or left     STARTING: it joined again
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ais_bench.errors import ConfigError
from ais_bench.ray.chunks import Chunk

__all__ = ["Node", "State", "find_nodes", "resource_of"]

KINDS = ("NPU", "GPU")  # resources of Ray that are devices
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class State(enum.Enum):
    """What a node is doing; the table at the top of this file has the transitions."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    RESTING = "resting"
    OUT = "out"


@dataclass(eq=False)
class Node:
    """One node. The driver's thread alone changes it."""

    number: int  # the scheduler's device
    id: str
    host: str
    resources: dict[str, float]
    state: State = State.RESTING
    actor: Any = None
    worker: Any = None  # the scheduler's, while READY
    devices: list[int] = field(default_factory=list)
    model: Any = None
    in_hand: dict[Chunk, Any] = field(default_factory=dict)  # with the reference to its answer
    failures: int = 0  # in a row, without a chunk answered
    pause_until: float = 0.0
    started_at: float = 0.0
    asked_at: float = 0.0  # when the ping under way was sent; 0: none is
    heard_at: float = 0.0
    error: BaseException | None = None

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.host} ({self.id[:8]})"

    def rest(self) -> None:
        """Wait before the next start, longer each time."""
        self.state, self.actor = State.RESTING, None
        self.failures += 1
        self.pause_until = time.monotonic() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))


def resource_of(resources: dict[str, float]) -> str | None:
    """The resource that is a node's devices; None if it has nothing to compute with."""
    for kind in (*KINDS, "CPU"):
        if resources.get(kind, 0) > 0:
            return kind
    return None


def find_nodes(alive: Sequence[dict[str, Any]], wanted: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Which of Ray's nodes to use, by id: those wanted, by id or host name; or all that have devices, or else processors."""
    living = {node["NodeID"]: node for node in alive if node.get("Alive")}
    if wanted is not None:
        names = {name for node in living.values() for name in (node["NodeID"], node.get("NodeManagerHostname"))}
        names |= {node.get("NodeManagerAddress") for node in living.values()}
        unknown = [name for name in wanted if name not in names]
        if len(unknown) == len(wanted):
            raise ConfigError(f"nodes must name nodes of the cluster, got {list(wanted)}; it has {sorted(map(str, names))}")
        return {
            id: node
            for id, node in living.items()
            if {id, node.get("NodeManagerHostname"), node.get("NodeManagerAddress")} & set(wanted)
        }
    with_devices = {id: node for id, node in living.items() if any(node["Resources"].get(kind, 0) > 0 for kind in KINDS)}
    return with_devices or {id: node for id, node in living.items() if node["Resources"].get("CPU", 0) > 0}
