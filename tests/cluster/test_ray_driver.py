"""The driver of a cluster session without a cluster: all of Ray's errors, in the test's thread. Skipped without Ray."""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

import ray.exceptions as errors  # type: ignore[import-not-found,unused-ignore]

from ais_bench.errors import PoolBroken, PoolClosed, TaskTimeout, WorkerDied
from ais_bench.ray.chunks import Chunk, ChunkWaiter, ItemOutcome, Order
from ais_bench.ray.driver import Driver, DriverWatch
from ais_bench.ray.helpers import Found
from ais_bench.ray.nodes import Node, NodeState, Settings
from ais_bench.tuning import MOST_TRIES, SILENT_S, STALL_S, SUSPECT_S, TICK_S


class Method:
    """A method of an actor that never answers; the tests answer instead."""

    def remote(self, *_arguments: object) -> Any:
        return SimpleNamespace(future=Future)


def driver_of(nodes: int = 2, failures: int = 3) -> Driver:
    driver = Driver("model", Settings(None, None, None, False, failures, 10, 10))
    driver._settled.set()
    for number in range(nodes):
        node = Node(number, f"node-{number}", "host", {"NPU": 2})
        node.actor, node.devices = SimpleNamespace(run=Method(), ping=Method(), close=Method()), [0, 1]
        driver._nodes[node.id] = node
        driver._join(node)
    return driver


def place(driver: Driver, items: int = 1, node: int | None = None) -> Chunk:
    chunk = Chunk(0, [f"item {n}" for n in range(items)], Order(), ChunkWaiter(), node)
    driver._accept(chunk, None)
    driver._place()
    return chunk


def holder(driver: Driver, chunk: Chunk) -> Node:
    (node,) = [node for node in driver.nodes() if chunk in node.in_hand]
    return node


def fail(driver: Driver, chunk: Chunk, error: BaseException) -> Node:
    node = holder(driver, chunk)
    driver._answered(node, chunk, node.in_hand[chunk], None, error)
    driver._place()
    return node


def events(driver: Driver) -> None:
    while not driver._events.empty():
        driver._events.get()()


def answer(driver: Driver, chunk: Chunk) -> None:
    node = holder(driver, chunk)
    driver._answered(node, chunk, node.in_hand[chunk], ([ItemOutcome(None, b"", None)] * chunk.count, 10**7), None)


LOST = {
    "RayActorError": (lambda: errors.RayActorError(), NodeState.RESTING),
    "ActorDiedError": (lambda: errors.ActorDiedError(), NodeState.RESTING),
    "ActorUnavailableError": (lambda: errors.ActorUnavailableError("away", b"\0" * 16), NodeState.SUSPECT),
    "ActorUnschedulableError": (lambda: errors.ActorUnschedulableError("no node"), NodeState.RESTING),
    "NodeDiedError": (lambda: errors.NodeDiedError("it is dead"), NodeState.RESTING),
    "ObjectLostError": (lambda: errors.ObjectLostError("00" * 28, None, ""), NodeState.SUSPECT),
    "WorkerCrashedError": (lambda: errors.WorkerCrashedError(), NodeState.RESTING),
    "OutOfMemoryError": (lambda: errors.OutOfMemoryError("killed"), NodeState.RESTING),
}


@pytest.mark.parametrize("name", LOST)
def test_at_the_first_error_a_node_is_suspected_and_its_chunk_runs_elsewhere(name: str) -> None:
    make, becomes = LOST[name]
    driver = driver_of()
    chunk = place(driver)
    node = fail(driver, chunk, make())
    assert (node.state, node.worker, node.in_hand) == (becomes, None, {})
    other = holder(driver, chunk)
    assert other is not node
    answer(driver, chunk)
    assert chunk.done
    assert chunk.error is None
    assert (driver._open, driver._tasks, driver._scheduler.check()) == (set(), {}, "")


@pytest.mark.parametrize("name", [name for name, (_, becomes) in LOST.items() if becomes is NodeState.SUSPECT])
def test_a_suspected_node_is_asked_and_comes_back_when_it_answers_or_is_started_again(name: str) -> None:
    for answers in (True, False):
        driver = driver_of()
        node = fail(driver, place(driver), LOST[name][0]())
        driver._ping(node, time.monotonic())
        assert node.asked_at
        if answers:
            driver._ponged(node, node.actor, None)
            assert node.state is NodeState.READY
            assert node.worker is not None
        else:
            node.suspected_at -= SUSPECT_S + 1
            driver._look()
            assert (node.state, node.actor, node.failures) == (NodeState.RESTING, None, 1)


def test_a_node_that_is_silent_is_suspected_and_a_late_answer_counts() -> None:
    driver = driver_of()
    chunk = place(driver)
    node = holder(driver, chunk)
    call = node.in_hand[chunk]
    node.asked_at = time.monotonic() - SILENT_S - 1
    driver._look()
    driver._place()
    assert node.state is NodeState.SUSPECT
    assert holder(driver, chunk) is not node
    driver._answered(node, chunk, call, ([ItemOutcome(None, b"", None)], 10**7), None)  # it was only slow
    assert chunk.done
    assert chunk.where == node.id
    second = holder(driver, chunk)
    answer(driver, chunk)  # the other node's answer is dropped
    assert chunk.where == node.id
    assert not second.in_hand
    assert (driver._tasks, driver._scheduler.check()) == ({}, "")


def test_a_chunk_that_costs_two_nodes_is_split_and_its_item_fails_alone() -> None:
    driver = driver_of(nodes=8)
    chunk = place(driver, items=3)
    for _ in range(2):
        fail(driver, chunk, errors.ActorDiedError())
    assert chunk.parts is not None
    poison, *others = chunk.parts
    for part in others:
        answer(driver, part)
    for _ in range(2):
        fail(driver, poison, errors.ActorDiedError())
    assert chunk.finished()
    assert isinstance(poison.error, WorkerDied)
    assert "4 nodes were lost with this item" in str(poison.error)
    assert [leaf.error for leaf in chunk.leaves()[1:]] == [None, None]
    # Only for the first death may the node be the reason.
    assert sorted(node.failures for node in driver.nodes() if node.state is NodeState.RESTING) == [0, 0, 0, 1]


def test_a_chunk_whose_objects_are_lost_again_and_again_fails() -> None:
    driver = driver_of(nodes=3)
    chunk = place(driver)
    for _ in range(2):
        fail(driver, chunk, errors.ObjectLostError("00" * 28, None, ""))
    assert isinstance(chunk.error, WorkerDied)
    driver = driver_of(nodes=MOST_TRIES + 5)
    chunk = place(driver)
    for _ in range(MOST_TRIES + 2):  # the chunk is never known to have begun
        fail(driver, chunk, errors.ActorUnavailableError("away", b"\0" * 16))
    assert isinstance(chunk.error, WorkerDied)


def test_a_node_fails_so_often_in_a_row_and_is_out() -> None:
    driver = driver_of(nodes=2, failures=1)
    pinned = place(driver, node=0)
    node = holder(driver, pinned)
    fail(driver, pinned, errors.NodeDiedError("dead"))
    assert node.state is NodeState.RESTING
    assert not pinned.done  # it waits for its node
    driver._move(node, NodeState.STARTING)
    driver._give_up(node, errors.ActorDiedError())
    assert node.state is NodeState.OUT
    assert isinstance(pinned.error, PoolBroken)
    chunk = place(driver)
    answer(driver, chunk)  # the other chunk continues
    last = place(driver)
    other = holder(driver, last)
    other.failures = 1
    fail(driver, last, errors.NodeDiedError("dead"))
    assert other.state is NodeState.OUT
    assert isinstance(last.error, PoolBroken)
    assert isinstance(place(driver).error, PoolBroken)


def test_nodes_join_leave_and_are_drained() -> None:
    driver = driver_of(nodes=2)
    driver._kinds = ("NPU", "GPU")
    chunk = place(driver)
    node = holder(driver, chunk)

    def told(*ids: str, draining: set[str] | None = None) -> Found:
        nodes = [{"NodeID": id, "Alive": True, "Resources": {"NPU": 2.0}, "NodeManagerHostname": "host"} for id in ids]
        return Found(nodes, draining or set(), {})

    driver._find(told("node-0", "node-1", "node-2", draining={node.id}))
    assert [other.state for other in driver.nodes()].count(NodeState.READY) == 1
    assert (node.state, driver._nodes["node-2"].state) == (NodeState.LEAVING, NodeState.RESTING)
    later = [place(driver) for _ in range(3)]
    assert all(holder(driver, one) is not node for one in later)
    answer(driver, chunk)
    assert (node.state, node.worker, node.error) == (NodeState.OUT, None, None)
    driver._find(told("node-2"))  # the node with the chunks is gone
    assert [driver._nodes[id].state for id in ("node-0", "node-1")] == [NodeState.OUT, NodeState.OUT]
    assert not any(one.done for one in later)  # they wait for the node that starts
    driver._find(told("node-0", "node-2"))
    assert driver._nodes["node-0"].state is NodeState.RESTING


def test_a_deadline_passes_and_cancelled_chunks_leave() -> None:
    driver = driver_of(nodes=1)
    late, gone = (Chunk(0, ["item"], Order(), ChunkWaiter()) for _ in range(2))
    driver._accept(late, (time.monotonic() - 1, 1, late, 0.5))
    driver._accept(gone, None)
    driver._expire()
    driver._drop([gone])
    assert isinstance(late.error, TaskTimeout)
    assert "0.5 seconds" in str(late.error)
    assert isinstance(gone.error, PoolClosed)
    assert (driver._open, driver._deadlines) == (set(), [])


def test_a_driver_that_does_not_move_is_noticed_by_those_who_wait() -> None:
    driver = driver_of(nodes=1)
    waits = int(STALL_S / TICK_S)
    watch = DriverWatch(driver)
    for _ in range(waits + 1):
        watch.check()
    with pytest.raises(PoolBroken, match="has not moved for 60 seconds"):
        watch.check()
    watch = DriverWatch(driver)
    for _ in range(waits + 3):
        driver.beat += 1
        watch.check()


def test_a_call_that_ray_refuses_fails_the_chunk_and_no_node() -> None:
    driver = driver_of(nodes=1)
    (node,) = driver.nodes()

    class Full(Method):
        def remote(self, *_arguments: object) -> Any:
            raise errors.ObjectStoreFullError("full")

    node.actor.run = Full()
    chunk = place(driver)
    events(driver)
    assert isinstance(chunk.error, errors.ObjectStoreFullError)
    assert (node.state, driver._tasks, driver._scheduler.check()) == (NodeState.READY, {}, "")
