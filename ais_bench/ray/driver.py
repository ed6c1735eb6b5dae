"""The thread that owns a cluster session's state: nodes, chunks under way, and the scheduler that places them.

    callers   `submit`, `cancel`: events in a queue
    Ray       an answer, or an error, of a call: an event in the same queue
    this      takes events; places chunks on nodes; sends pings to nodes that have work; starts actors, also again

Every wait has a time limit: the queue's, after which nodes are looked at. A chunk's outcome is taken once, whoever brings it
first: a node that was suspected and had only been slow may still deliver.

The scheduler is the one that places tasks within a node (csrc/pool/scheduler.hpp); here a node is a worker that does several
chunks at a time.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ais_bench import _native
from ais_bench.errors import ConfigError, PoolBroken, PoolClosed, WorkerDied, WorkerStartError
from ais_bench.ray.chunks import Chunk
from ais_bench.ray.node_actor import NodeActor
from ais_bench.ray.nodes import Node, State, find_nodes, resource_of

__all__ = ["Driver"]

_logger = logging.getLogger("ais_bench.ray")

CHUNKS_A_NODE = 4  # in a node's hand: one running out, others on their way there and back
TICK_S = 0.25  # the longest wait for an event
PING_EVERY_S = 0.5  # to a node that has chunks
SILENT_S = 2.0  # a node that has not answered a ping for so long is suspected
LOOK_EVERY_S = 1.0  # at the nodes of the cluster
LARGE = 100 << 10  # items of more bytes go into the object store once
START_LIMIT_S = 300.0

# What Ray raises when a node or an actor is lost, or may be. What the user's code raises is a RayTaskError.
LOST = (
    RayActorError,  # with ActorUnavailableError
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    WorkerCrashedError,
    OutOfMemoryError,
)


class Driver:
    """Own the nodes, the chunks under way and the scheduler, in a thread of its own. Any thread may call the public methods."""

    def __init__(
        self,
        model: Any,
        options: dict[str, Any],
        wanted: Sequence[str] | None,
        reserve: bool,
        max_node_failures: int,
        random: int = 0,
    ) -> None:
        self._model = ray.put(model) if isinstance(model, bytes) else model
        self._options = options
        self._wanted = wanted
        self._reserve = reserve
        self._max_failures = max_node_failures
        self._scheduler = _native.Scheduler(in_flight=CHUNKS_A_NODE, max_attempts=2, random=random)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._nodes: dict[str, Node] = {}
        self._numbers = 0
        self._open: set[Chunk] = set()  # accepted and not done
        # Of chunks that wait or that a node has. A chunk must not refer to its task, which refers to the chunk.
        self._tasks: dict[Chunk, _native.ScheduledTask] = {}
        self._looked_at = 0.0
        self._stopping = False
        self._settled = threading.Event()  # the first nodes are ready, or none will be
        self._broken: BaseException | None = None
        self._rate = 0.0  # items a second of one node
        self._thread = threading.Thread(target=self._run, name="ais_bench cluster", daemon=True)

    # ---- for callers ----

    def start(self, timeout_s: float) -> None:
        """Start an actor on each node and wait until those that can be are ready. Raises WorkerStartError, ConfigError."""
        nodes = find_nodes(ray.nodes(), self._wanted)
        if not nodes:
            raise ConfigError("the cluster has no node with devices or processors; start one with `ray start`")
        self._thread.start()
        if not self._settled.wait(timeout_s):
            self.stop(force=True)
            raise WorkerStartError(f"no node was ready within {timeout_s:g} seconds")
        if self._broken is not None:
            raise self._broken

    def submit(self, chunk: Chunk) -> None:
        """Have a chunk run on a node."""
        if self._stopping:
            raise PoolClosed("the session is closed")
        self._events.put(lambda: self._accept(chunk))

    def cancel(self, chunks: Sequence[Chunk]) -> None:
        """Nobody wants these any more."""
        self._events.put(lambda: self._drop(chunks))

    def ask(self, question: Callable[[], Any]) -> Any:
        """Call a function in the thread that owns the state, and return its value. Raises PoolClosed."""
        answer: Future[Any] = Future()

        def call() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        self._events.put(call)
        while True:
            with contextlib.suppress(TimeoutError):
                return answer.result(TICK_S)
            if not self._thread.is_alive() and not answer.done():
                raise PoolClosed("the session is closed")

    def nodes(self) -> list[Node]:
        """The nodes in use, in the order in which they were found."""
        return list(self._nodes.values())

    def ready(self) -> list[Node]:
        """Those that are ready."""
        return [node for node in self.nodes() if node.state is State.READY]

    def room(self) -> int:
        """How many chunks keep all nodes busy, and one more for each."""
        return (CHUNKS_A_NODE + 1) * max(1, len(self.ready()))

    def chunk_size(self, work_s: float) -> int:
        """How many items are so many seconds of one node's work, and at least one for each of its devices."""
        devices = max((len(node.devices) for node in self.ready()), default=1)
        return max(devices, min(4096, int(self._rate * work_s)))

    def alive(self) -> bool:
        """Whether somebody still works on chunks."""
        return self._thread.is_alive()

    def stop(self, *, force: bool) -> None:
        """End the actors; chunks under way finish first unless `force`."""
        self._stopping = True
        if self._thread.ident is None:
            return
        self._events.put(lambda: self._fail_all(PoolClosed("the session was closed")) if force else None)
        self._thread.join()

    # ---- the thread ----

    def _run(self) -> None:
        try:
            while not (self._stopping and not self._open):
                self._take_events()
                self._look()
                self._place()
        except BaseException as error:  # a mistake of this file's: nobody may wait for ever
            _logger.exception("the cluster session failed")
            self._fail_all(error)
            self._broken = error
        finally:
            self._settled.set()
            self._fail_all(PoolClosed("the session was closed"))
            for node in self.nodes():
                self._end_actor(node)

    def _take_events(self) -> None:
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=TICK_S)
            while True:
                event()
                event = self._events.get_nowait()

    def _accept(self, chunk: Chunk) -> None:
        if not chunk.wanted:
            return
        self._open.add(chunk)
        self._queue(chunk)
        self._fail_if_nobody_is_left()

    def _queue(self, chunk: Chunk) -> None:
        task = self._tasks[chunk] = _native.ScheduledTask(chunk)
        kind = len(chunk.items).bit_length()
        device = -1 if chunk.node is None else chunk.node
        self._scheduler.add(task, kind=kind, device=device)

    def _unqueue(self, chunk: Chunk) -> None:
        """Nobody needs its answer any more. A node that has it keeps it until it answers."""
        task = self._tasks.get(chunk)
        if task is not None:
            self._scheduler.drop(task)
            if not any(chunk in node.in_hand for node in self.nodes()):
                del self._tasks[chunk]

    def _place(self) -> None:
        nodes = {node.worker: node for node in self.nodes() if node.worker is not None}
        while (placed := self._scheduler.next(time.monotonic_ns())) is not None:
            task, worker = placed
            self._send(nodes[worker], task.value)

    def _send(self, node: Node, chunk: Chunk) -> None:
        chunk.sent_ns = time.monotonic_ns()
        if chunk.payload is None and _bytes_of(chunk.items) > LARGE:
            chunk.payload = ray.put(list(chunk.items))
        items = chunk.payload if chunk.payload is not None else list(chunk.items)
        reference = node.actor.run.remote(items, chunk.order)
        node.in_hand[chunk] = reference
        self._when_done(reference, lambda value, error: self._answered(node, chunk, reference, value, error))

    def _when_done(self, reference: Any, then: Callable[[Any, BaseException | None], None]) -> None:
        """Have `then(value, error)` called in this thread once Ray has the answer."""

        def told(future: Future[Any]) -> None:
            error = future.exception()
            value = None if error is not None else future.result()
            self._events.put(lambda: then(value, error))

        reference.future().add_done_callback(told)

    # ---- answers ----

    def _answered(self, node: Node, chunk: Chunk, reference: Any, value: Any, error: BaseException | None) -> None:
        current = node.in_hand.get(chunk) is reference
        cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
        if error is not None and (isinstance(error, LOST) or isinstance(cause, PoolBroken)):
            if current:
                self._suspect(node, error, dead=not _may_live(error))
            return
        if current:
            del node.in_hand[chunk]
            node.failures, node.heard_at = 0, time.monotonic()
            self._scheduler.answered(self._tasks.pop(chunk), chunk.sent_ns, time.monotonic_ns())
        if chunk.done:
            return
        if not current:  # a node that was given up has been faster than the one that does it again
            self._unqueue(chunk)
        if error is not None:
            self._finish(chunk, None, cause or error, node)
            return
        outcomes, took_ns = value
        self._learn(len(outcomes), took_ns)
        self._finish(chunk, outcomes, None, node)

    def _learn(self, items: int, took_ns: int) -> None:
        # Chunks overlap in a node, so this is less than its rate, by at most the number of chunks in its hand.
        rate = items * CHUNKS_A_NODE / max(1e-6, took_ns / 1e9)
        self._rate = rate if self._rate == 0 else self._rate + (rate - self._rate) / 4

    def _finish(self, chunk: Chunk, outcomes: Any, error: BaseException | None, node: Node | None) -> None:
        with chunk.waiting.changed:
            chunk.outcomes, chunk.error, chunk.done = outcomes, error, True
            chunk.where = "" if node is None else node.id
            chunk.payload = None
            chunk.waiting.changed.notify_all()
        self._open.discard(chunk)
        if chunk.future is not None and chunk.future.set_running_or_notify_cancel():
            if error is not None:
                chunk.future.set_exception(error)
            else:
                chunk.future.set_result(chunk)

    def _drop(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            for leaf in chunk.leaves():
                leaf.wanted = False
                if leaf.done or leaf not in self._open:
                    continue
                self._unqueue(leaf)
                self._finish(leaf, None, PoolClosed("the call that wanted this chunk has ended"), None)

    def _fail_all(self, error: BaseException) -> None:
        for chunk in list(self._open):
            self._unqueue(chunk)
            self._finish(chunk, None, error, None)

    # ---- nodes ----

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._find()
        for node in self.nodes():
            if node.state is State.RESTING and now >= node.pause_until and not self._stopping:
                self._start(node)
            elif node.state is State.STARTING and now - node.started_at > START_LIMIT_S:
                self._give_up(node, WorkerStartError(f"node {node.name} was not ready within {START_LIMIT_S:g} seconds"))
            elif node.state in (State.READY, State.SUSPECT):
                self._ping(node, now)

    def _find(self) -> None:
        """Nodes join and leave."""
        try:
            found = find_nodes(ray.nodes(), self._wanted)
        except Exception as error:  # the head is away for a moment
            _logger.debug("cannot ask for nodes: %s", error)
            return
        for id, told in found.items():
            node = self._nodes.get(id)
            if node is None:
                host = told.get("NodeManagerHostname") or told.get("NodeManagerAddress") or ""
                self._nodes[id] = Node(self._numbers, id, host, dict(told["Resources"]))
                self._numbers += 1
            elif node.state is State.OUT and node.error is None:
                node.failures = 0
                node.state, node.pause_until = State.RESTING, 0.0
        for id, node in self._nodes.items():
            if id not in found and node.state is not State.OUT:
                self._leave(node, None)
        self._settle()

    def _start(self, node: Node) -> None:
        kind = resource_of(node.resources)
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CHUNKS_A_NODE + 3,
        }
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        if self._reserve and kind is not None:
            asked = self._options.get("devices")
            count = node.resources[kind] if asked is None else min(node.resources[kind], len(asked))
            options.update({"num_cpus": count} if kind == "CPU" else {"num_gpus": count} if kind == "GPU" else {})
            if kind == "NPU":
                options["resources"] = {"NPU": count}
        node.state, node.started_at, node.error = State.STARTING, time.monotonic(), None
        node.actor = ray.remote(NodeActor).options(**options).remote(self._model, self._options)
        actor = node.actor
        self._when_done(actor.start.remote(), lambda value, error: self._started(node, actor, value, error))

    def _started(self, node: Node, actor: Any, value: Any, error: BaseException | None) -> None:
        if node.actor is not actor:
            return
        if error is None:
            node.devices, node.model = value["devices"], value["model"]
            self._join(node)
            _logger.info("node %s is ready with devices %s", node.name, node.devices)
        elif isinstance(error, LOST):
            self._give_up(node, error)
        else:  # what the session raised would be raised again
            node.failures = self._max_failures
            self._give_up(node, getattr(error, "cause", None) or error)
        self._settle()

    def _join(self, node: Node) -> None:
        node.state, node.asked_at, node.heard_at = State.READY, 0.0, time.monotonic()
        node.worker = self._scheduler.add_worker(node.number, float(max(1, len(node.devices))))

    def _suspect(self, node: Node, error: BaseException, *, dead: bool) -> None:
        """Nothing more for this node; what it had in hand runs elsewhere."""
        _logger.warning("node %s is suspected: %s", node.name, _first_line(error))
        chunks = list(node.in_hand)
        node.in_hand.clear()
        worker, node.worker = node.worker, None
        if worker is not None:
            orphans = [task.value for task in self._scheduler.remove_worker(worker)]
            for chunk in reversed(orphans):
                self._lost(node, chunk, begun=dead, certain=len(chunks) == 1)
        if dead:
            self._give_up(node, error)
        else:
            node.state = State.SUSPECT
        self._fail_if_nobody_is_left()

    def _lost(self, node: Node, chunk: Chunk, *, begun: bool, certain: bool) -> None:
        if begun:
            chunk.costs.append(node.name)
        if self._scheduler.lose(self._tasks[chunk], begun, certain):
            return
        del self._tasks[chunk]
        if chunk.done:
            return
        if len(chunk.items) > 1:
            self._open.discard(chunk)
            with chunk.waiting.changed:
                parts = chunk.split()
            for part in parts:
                self._open.add(part)
                self._queue(part)
            return
        error = WorkerDied(f"{len(chunk.costs)} nodes were lost with this item: {', '.join(chunk.costs)}")
        self._finish(chunk, None, error, node)

    def _give_up(self, node: Node, error: BaseException) -> None:
        """Its actor is dead, or useless."""
        self._end_actor(node)
        node.error = error
        node.rest()
        if node.failures > self._max_failures:
            node.state = State.OUT
            _logger.warning("node %s is out after %d failures in a row: %s", node.name, node.failures, _first_line(error))
        self._fail_if_nobody_is_left()

    def _leave(self, node: Node, error: BaseException | None) -> None:
        if node.worker is not None:
            self._suspect(node, error or PoolBroken("the node left the cluster"), dead=True)
        self._end_actor(node)
        node.state, node.error = State.OUT, error

    def _end_actor(self, node: Node) -> None:
        actor, node.actor = node.actor, None
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)

    def _ping(self, node: Node, now: float) -> None:
        if node.asked_at:
            if now - node.asked_at > SILENT_S and node.state is State.READY:
                self._suspect(node, TimeoutError(f"no answer for {SILENT_S:g} seconds"), dead=False)
            return
        if node.state is State.READY and (not node.in_hand or now - node.heard_at < PING_EVERY_S):
            return
        node.asked_at, actor = now, node.actor
        self._when_done(actor.ping.remote(), lambda value, error: self._ponged(node, actor, error))

    def _ponged(self, node: Node, actor: Any, error: BaseException | None) -> None:
        if node.actor is not actor:
            return
        node.asked_at = 0.0
        if error is None:
            node.heard_at = time.monotonic()
            if node.state is State.SUSPECT:
                _logger.warning("node %s is back", node.name)
                self._join(node)
        elif not _may_live(error):
            self._suspect(node, error, dead=True)
        elif node.state is State.READY:
            self._suspect(node, error, dead=False)

    def _settle(self) -> None:
        """Whether waiting for the first nodes is over."""
        if self._settled.is_set() or any(node.state in (State.STARTING,) for node in self.nodes()):
            return
        if any(node.state is State.RESTING for node in self.nodes()):
            return
        if not self.ready():
            errors = [node.error for node in self.nodes() if node.error is not None]
            self._broken = WorkerStartError("no node got ready" + (f": {errors[0]}" if errors else ""))
            self._broken.__cause__ = errors[0] if errors else None
        self._settled.set()

    def _fail_if_nobody_is_left(self) -> None:
        if any(node.state is not State.OUT for node in self.nodes()):
            return
        errors = [node.error for node in self.nodes() if node.error is not None]
        broken = PoolBroken("no node of the cluster is left")
        broken.__cause__ = errors[-1] if errors else None
        self._fail_all(broken)


def _may_live(error: BaseException) -> bool:
    """Whether the actor may still be there: it could not be reached."""
    return type(error).__name__ in ("ActorUnavailableError", "ObjectLostError", "OutOfMemoryError")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _bytes_of(items: Sequence[Any]) -> int:
    total = 0
    for item in items:
        for part in item if isinstance(item, (list, tuple)) else (item,):
            total += part.nbytes if isinstance(part, np.ndarray) else len(part) if isinstance(part, bytes) else 0
    return total
