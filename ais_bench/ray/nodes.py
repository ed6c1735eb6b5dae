"""The nodes of a cluster that a session uses, and what each of them is doing.

A node's states, and who moves it:

    state      meaning                                   becomes
    STARTING   its actor loads the model                 READY: `start` answered; RESTING: it failed
    READY      it gets chunks                            SUSPECT: an error of Ray's, or no answer to a ping; LEAVING: Ray
                                                         drains it
    SUSPECT    it gets none; it is asked whether it      READY: it answered; RESTING: its actor is dead, or has not answered
               is there                                  for long
    LEAVING    it gets none; it does what it has         OUT: it has nothing left; SUSPECT, as above
    RESTING    no actor; one is started when its pause   STARTING
               is over and its devices are free
    OUT        it failed too often in a row, or left     RESTING: it left and has joined again
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ais_bench.errors import ConfigError
from ais_bench.ray.chunks import Chunk
from ais_bench.tuning import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_CONVICTED

__all__ = ["Node", "Settings", "State", "find_nodes", "kinds_of", "reservation", "resource_of"]

KINDS = ("NPU", "GPU")  # resources of Ray that are devices


class State(enum.Enum):
    """What a node is doing; the table at the top of this file has the transitions."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    LEAVING = "leaving"
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
    convicted: int = 0  # deaths in a row that were the fault of a chunk
    spared: bool = False  # its last death was
    held: str = ""  # what is to be said of it if somebody else has its devices
    held_since: float = 0.0
    started_at: float = 0.0
    suspected_at: float = 0.0
    asked_at: float = 0.0  # when the ping under way was sent; 0: none is
    heard_at: float = 0.0
    error: BaseException | None = None

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.host} ({self.id[:8]})"

    def rest(self) -> None:
        """Wait before the next start, longer each time. A death that was a chunk's fault does not count."""
        spared, self.spared = self.spared and self.convicted < MOST_CONVICTED, False
        if spared:
            self.convicted += 1
        else:
            self.failures += 1
        self.pause_until = time.monotonic() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (max(1, self.failures) - 1))


@dataclass(frozen=True)
class Settings:
    """What a driver was asked for."""

    options: Any  # of each node's session, packed
    nodes: Sequence[str] | None
    devices: Sequence[int] | None
    reserve: bool
    max_node_failures: int
    start_timeout: float
    close_timeout: float
    random: int = 0


def reservation(node: Node, settings: Settings) -> tuple[dict[str, Any], tuple[str, float] | None]:
    """What Ray is to reserve for a node's actor: options of the actor, and (resource, amount); None: nothing.

    Ray picks which devices an actor sees, and they are numbered from 0. So `devices` needs as many as its largest id says.
    """
    kind = resource_of(node.resources)
    if not settings.reserve or kind is None:
        return {"num_cpus": 0}, None
    count = node.resources[kind]
    if settings.devices is not None:
        count = min(count, float(max(settings.devices) + 1))
    if kind == "CPU":
        return {"num_cpus": count}, (kind, count)
    if kind == "GPU":
        return {"num_cpus": 0, "num_gpus": count}, (kind, count)
    return {"num_cpus": 0, "resources": {kind: count}}, (kind, count)


def resource_of(resources: dict[str, float]) -> str | None:
    """The resource that is a node's devices; None if it has nothing to compute with."""
    for kind in (*KINDS, "CPU"):
        if resources.get(kind, 0) > 0:
            return kind
    return None


def kinds_of(nodes: Sequence[dict[str, Any]], wanted: Sequence[str] | None) -> Sequence[str]:
    """Which resources make a node of use: those of devices, or, if no node has any, the processors. For `find_nodes`.

    Raises ConfigError if there is no such node, or if one that is wanted is not there.
    """
    living = [node for node in nodes if node.get("Alive")]
    if wanted is not None:
        names = {str(name) for node in living for name in _names(node)}
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(f"nodes must name nodes of the cluster, got {unknown}; it has {sorted(names)}")
        return (*KINDS, "CPU")
    for kinds in (KINDS, ("CPU",)):
        if any(node["Resources"].get(kind, 0) > 0 for node in living for kind in kinds):
            return kinds
    raise ConfigError("the cluster has no node with devices or processors; start one with `ray start`")


def find_nodes(
    nodes: Sequence[dict[str, Any]], wanted: Sequence[str] | None, kinds: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Which of Ray's nodes to use, by id: living ones with such resources; of those the wanted, by id, host name or address."""
    found = {node["NodeID"]: node for node in nodes if node.get("Alive")}
    if wanted is not None:
        return {id: node for id, node in found.items() if _names(node) & set(wanted)}
    return {id: node for id, node in found.items() if any(node["Resources"].get(kind, 0) > 0 for kind in kinds)}


def _names(node: dict[str, Any]) -> set[Any]:
    return {name for name in (node["NodeID"], node.get("NodeManagerHostname"), node.get("NodeManagerAddress")) if name}
