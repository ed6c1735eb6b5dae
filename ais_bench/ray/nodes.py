"""The nodes of a cluster that a session uses, and what each of them is doing.

The states of a node, and its transitions:

    state      meaning                                   becomes
    STARTING   its actor loads the model                 READY: `start` answered; RESTING: it failed
    READY      it gets chunks                            SUSPECT: an error of Ray, or no answer to a ping; LEAVING: Ray
                                                         drains it
    SUSPECT    it gets no chunks; it is sent pings       READY: it answered; RESTING: its actor is dead, or has not answered
                                                         for too long
    LEAVING    it gets no chunks, and finishes those     OUT: it has no chunks left; SUSPECT, as above
               that it has
    RESTING    no actor; one is started when the pause   STARTING
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
from ais_bench.tuning import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_BLAMED_ON_CHUNKS

__all__ = ["Node", "NodeState", "Settings", "find_nodes", "kinds_of", "reservation", "resource_of"]

KINDS = ("NPU", "GPU")  # resources of Ray that are devices


class NodeState(enum.Enum):
    """The state of a node. The table at the top of this file has the transitions."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    LEAVING = "leaving"
    RESTING = "resting"
    OUT = "out"


@dataclass(eq=False)
class Node:
    """One node. Only the driver's thread changes it."""

    number: int  # the scheduler's device
    id: str
    host: str
    resources: dict[str, float]
    state: NodeState = NodeState.RESTING
    actor: Any = None
    worker: Any = None  # the scheduler's, while READY
    devices: list[int] = field(default_factory=list)
    model: Any = None
    in_hand: dict[Chunk, Any] = field(default_factory=dict)  # with the references to their answers
    failures: int = 0  # consecutive failures without an answered chunk
    pause_until: float = 0.0
    blamed_on_chunks: int = 0  # consecutive deaths that a chunk caused
    spared: bool = False  # whether a chunk caused its last death
    held: str = ""  # the message if another job has reserved its devices
    held_since: float = 0.0
    started_at: float = 0.0
    suspected_at: float = 0.0
    asked_at: float = 0.0  # when the present ping was sent; 0: no ping in progress
    heard_at: float = 0.0
    error: BaseException | None = None

    @property
    def name(self) -> str:
        """The node's name in messages."""
        return f"{self.host} ({self.id[:8]})"

    def rest(self) -> None:
        """Set the pause before the next start, longer each time. A death that a chunk caused does not count."""
        spared, self.spared = self.spared and self.blamed_on_chunks < MOST_BLAMED_ON_CHUNKS, False
        if spared:
            self.blamed_on_chunks += 1
        else:
            self.failures += 1
        self.pause_until = time.monotonic() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (max(1, self.failures) - 1))


@dataclass(frozen=True)
class Settings:
    """The settings of a driver."""

    options: Any  # of each node's session, as a Bundle
    nodes: Sequence[str] | None
    devices: Sequence[int] | None
    reserve: bool
    max_node_failures: int
    start_timeout: float
    close_timeout: float
    random: int = 0


def reservation(node: Node, settings: Settings) -> tuple[dict[str, Any], tuple[str, float] | None]:
    """Return what Ray must reserve for a node's actor: options of the actor, and (resource, amount); None: nothing.

    Ray picks the devices that an actor sees, and they are numbered from 0. So `devices` needs its largest id plus one.
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
    """Return the resource for a node's devices; None if the node has no devices and no processors."""
    for kind in (*KINDS, "CPU"):
        if resources.get(kind, 0) > 0:
            return kind
    return None


def kinds_of(nodes: Sequence[dict[str, Any]], wanted: Sequence[str] | None) -> Sequence[str]:
    """Return the resources of usable nodes for `find_nodes`: those of devices, or processors if no node has devices.

    Raises ConfigError if there is no such node, or if a wanted node does not exist.
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
    """Return the nodes to use, by id: living nodes with such resources that are wanted by id, host name or address."""
    found = {node["NodeID"]: node for node in nodes if node.get("Alive")}
    if wanted is not None:
        return {id: node for id, node in found.items() if _names(node) & set(wanted)}
    return {id: node for id, node in found.items() if any(node["Resources"].get(kind, 0) > 0 for kind in kinds)}


def _names(node: dict[str, Any]) -> set[Any]:
    return {name for name in (node["NodeID"], node.get("NodeManagerHostname"), node.get("NodeManagerAddress")) if name}
