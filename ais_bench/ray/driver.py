"""The thread that owns a cluster session's state: nodes, chunks in progress, and the scheduler that places them.

    callers   `submit`, `cancel`: events in a queue
    Ray       an answer, or an error, of a call: an event in the same queue
    Head      the list of nodes (helpers.py): an event in the same queue
    this      takes events; places chunks on nodes; sends pings to nodes that have work; starts and restarts actors

Every wait has a time limit. After the limit of the queue this thread checks the nodes. After the limit of a caller the caller
checks whether this thread still makes progress. This thread waits for nothing else: a helper does everything that may take
long. No event is accepted once the thread has taken its last one. A chunk's outcome is taken once, from the node that delivers
first: a suspected node that was only slow may still deliver.

The scheduler is the one that places tasks within a node (csrc/pool/scheduler.hpp). Here a node is a worker that runs several
chunks at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ais_bench
from ais_bench import _native
from ais_bench.errors import PoolBroken, PoolClosed, SessionClosed, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.ray.chunks import Chunk
from ais_bench.ray.helpers import Ender, Found, Head, Helper, look
from ais_bench.ray.node_actor import NodeActor
from ais_bench.ray.nodes import Node, NodeState, Settings, find_nodes, kinds_of, reservation
from ais_bench.tuning import (
    CHUNKS_A_NODE,
    CLOSE_S,
    DRIVER_SHARE,
    HELD_S,
    MOST_ANSWERS,
    MOST_TRIES,
    PING_EVERY_S,
    PROCESS_START_S,
    SHORTEST_S,
    SILENT_S,
    STALL_S,
    SUSPECT_S,
    TICK_S,
)

__all__ = ["Driver"]

_logger = logging.getLogger("ais_bench.ray")

# The errors of Ray if a node or an actor is lost, or may be lost. Errors of the user's code are RayTaskErrors.
LOST = (
    RayActorError,  # with ActorUnavailableError
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    WorkerCrashedError,
    OutOfMemoryError,
)
MAY_LIVE = (ActorUnavailableError, ObjectLostError, GetTimeoutError)  # the actor is not known to be dead
UNBEGUN = (ActorUnavailableError, PoolClosed, SessionClosed)  # the chunk is not known to have been begun

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()  # the running drivers


class Driver:
    """The owner of the nodes, the chunks in progress and the scheduler: one thread. Any thread may call the public methods."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self._model = ray.put(model) if isinstance(model, bytes) else model
        self._settings = settings
        self._scheduler = _native.Scheduler(in_flight=CHUNKS_A_NODE, max_attempts=2, random=settings.random)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._gate = threading.RLock()  # guards `_ended` and puts into `_events`; re-entrant for signal handlers
        self._ended = False  # whether the thread takes no more events
        self._nodes: dict[str, Node] = {}
        self._at: dict[Any, Node] = {}  # by the scheduler's worker
        self._ready: list[Node] = []
        self._out: dict[int, Node] = {}  # by number
        self._free: dict[str, dict[str, float]] = {}
        self._job: str | None = None  # this program's connection to the cluster
        self._kinds: Sequence[str] = ()  # resources; a node that has one of them is used
        self._numbers = 0
        self._open: set[Chunk] = set()  # accepted and not done
        # The tasks of chunks that wait or that a node has. A chunk must not refer to its task, which refers to the chunk.
        self._tasks: dict[Chunk, _native.ScheduledTask] = {}
        self._deadlines: list[tuple[float, int, Chunk, float]] = []  # the last number is the time that was allowed
        self._looked_at = 0.0
        self._stopping = False
        self._force = False
        self._end_by = 0.0  # after `stop`: the time until which accepted work may run
        self._settled = threading.Event()  # set once the first nodes are ready, or all have failed
        self._broken: BaseException | None = None
        self._rate = 0.0  # items per second of one node
        self._done = 0
        self._cost_s = 0.0  # seconds of this thread's time for each chunk
        self.beat = 0  # number of turns of the thread
        self._thread = threading.Thread(target=self._run, name="ais_bench cluster", daemon=True)
        self._head = Head(lambda found: self._post(lambda: self._find(found)), self._is_connected)
        self._ender = Ender(self._is_connected)
        self._answers = Helper("ais_bench cluster answers")  # resolves futures
        self.calls = Helper("ais_bench cluster calls")  # runs the callbacks of futures

    # ---- for callers ----

    def start(self, timeout_s: float) -> None:
        """Start an actor on each node and wait until every node is ready or has failed. Raises WorkerStartError, ConfigError.

        May be called again after an interruption.
        """
        if self._thread.ident is None:
            found = look()
            self._kinds = kinds_of(found.nodes, self._settings.nodes)
            self._job = ray.get_runtime_context().get_job_id()
            self._post(lambda: self._find(found))
            for thread in (*(helper.thread for helper in self._helpers()), self._thread):
                thread.start()
            _drivers.add(self)
        began = time.monotonic()
        watch = DriverWatch(self)
        while not self._settled.wait(TICK_S):
            watch.check()
            nodes = self.nodes()
            all_held = bool(nodes) and all(node.held or node.state is NodeState.OUT for node in nodes)
            if time.monotonic() - began > (self._settings.start_timeout if all_held else timeout_s):
                raise WorkerStartError(f"no node was ready within {time.monotonic() - began:.0f} seconds{self._why_not()}")
        if self._broken is not None:
            raise self._broken
        if self._stopping:
            raise PoolClosed("the session was closed")

    def submit(self, chunk: Chunk, timeout: float | None = None) -> None:
        """Run a chunk on a node, for at most `timeout` seconds. Raises PoolClosed."""
        until = None if timeout is None else (time.monotonic() + timeout, id(chunk), chunk, timeout)
        if self._stopping or not self._post(lambda: self._accept(chunk, until)):
            raise self._over()

    def cancel(self, chunks: Sequence[Chunk]) -> None:
        """Cancel chunks."""
        self._post(lambda: self._drop(chunks))

    def ask(self, question: Callable[[], Any]) -> Any:
        """Call a function in the thread that owns the state, and return its value. Raises PoolClosed."""
        answer: Future[Any] = Future()

        def call() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        if not self._post(call):
            raise self._over()
        watch = DriverWatch(self)
        while True:
            with contextlib.suppress(TimeoutError):
                return answer.result(TICK_S)
            watch.check()

    def nodes(self) -> list[Node]:
        """The nodes in use, in the order in which they were found."""
        return list(self._nodes.values())

    def ready(self) -> list[Node]:
        """The nodes that are ready."""
        return self._ready

    def room(self) -> int:
        """Return how many chunks keep all nodes busy, plus one for each node."""
        return (CHUNKS_A_NODE + 1) * max(1, len(self._ready))

    def chunk_size(self, work_s: float) -> int:
        """Return how many items are `work_s` seconds of one node's work, at least one for each of its devices.

        The number is larger if there are so many nodes that this thread has no time for chunks of that size.
        """
        ready = self._ready
        devices = max((len(node.devices) for node in ready), default=1)
        work_s = max(work_s, self._cost_s * len(ready) / DRIVER_SHARE)
        return max(devices, min(4096, int(self._rate * work_s)))

    def is_helper(self) -> bool:
        """Return whether the caller is one of this session's own threads."""
        return threading.current_thread() in (self._thread, *(helper.thread for helper in self._helpers()))

    def stop(self, *, force: bool, wait: bool = True) -> None:
        """End the actors. Unless `force`, chunks in progress finish first, for at most `close_timeout` seconds."""
        self._stopping = True
        if self._thread.ident is None:
            return
        self._post(lambda: self._end(force))
        if not wait or self.is_helper():
            return
        limit = time.monotonic() + self._settings.close_timeout + CLOSE_S + STALL_S
        while self._thread.is_alive() and time.monotonic() < limit:
            self._thread.join(TICK_S)
        if self._thread.is_alive():
            _logger.error("the cluster session did not end in time; its actors end with this program")

    def _helpers(self) -> tuple[Helper, ...]:
        return self._head, self._ender, self._answers, self.calls

    def _is_connected(self) -> bool:
        """Return whether the program is still connected. If it is not, a call of Ray would start a new cluster."""
        return bool(ray.is_initialized() and ray.get_runtime_context().get_job_id() == self._job)

    def _over(self) -> BaseException:
        return self._broken or PoolClosed("the session is closed")

    def _post(self, event: Callable[[], None]) -> bool:
        """Call `event` in the thread. Return False if the thread has ended."""
        with self._gate:
            if not self._ended:
                self._events.put(event)
            return not self._ended

    def _why_not(self) -> str:
        held = [f"{node.name} {node.held}" for node in self.nodes() if node.held]
        errors = [str(node.error) for node in self.nodes() if node.error is not None]
        return "".join(f": {said}" for said in (held or errors)[:1])

    # ---- the thread ----

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._take_events()
                self._expire()
                self._look()
                self._place()
        except BaseException as error:  # a defect in this file: no caller may wait without end
            _logger.exception("the cluster session failed")
            self._broken = error
        finally:
            self._wind_up()

    def _goes_on(self) -> bool:
        self.beat += 1
        return not self._stopping or (bool(self._open) and not self._force and time.monotonic() < (self._end_by or 1e18))

    def _end(self, force: bool) -> None:
        self._force = self._force or force
        self._end_by = self._end_by or time.monotonic() + self._settings.close_timeout

    def _wind_up(self) -> None:
        """Finish everything for which a caller could wait: events, chunks, actors."""
        self._stopping = True
        with self._gate:
            self._ended = True
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                with contextlib.suppress(Exception):
                    event()
        self._fail_all(self._broken or PoolClosed("the session was closed"))
        self._settled.set()
        with contextlib.suppress(Exception):
            self._end_sessions()
        for node in self.nodes():
            self._end_actor(node)
        for helper in self._helpers():  # the actors end, and futures are resolved
            helper.end(CLOSE_S if helper is not self.calls else 0)
        _drivers.discard(self)

    def _end_sessions(self) -> None:
        """Let the sessions end in order, so that workers release their devices and write their profiles."""
        actors = [node.actor for node in self.nodes() if node.state in (NodeState.READY, NodeState.LEAVING)]
        if actors and not self._force and self._is_connected():
            ray.wait([actor.close.remote(False) for actor in actors], num_returns=len(actors), timeout=CLOSE_S)

    def _take_events(self) -> None:
        # The scheduler may need a new decision although nothing happens.
        pause = min(TICK_S, (self._scheduler.look_again_ns - time.monotonic_ns()) / 1e9)
        if self._deadlines:
            pause = min(pause, self._deadlines[0][0] - time.monotonic())
        try:
            event = self._events.get(timeout=max(SHORTEST_S, pause))
        except queue.Empty:
            return
        began, done = time.thread_time(), self._done
        with contextlib.suppress(queue.Empty):
            while True:
                event()
                if self._done - done >= MOST_ANSWERS:  # other chunks must be sent meanwhile
                    break
                event = self._events.get_nowait()
        if self._done > done:
            cost = (time.thread_time() - began) / (self._done - done)
            self._cost_s += (cost - self._cost_s) / 16

    def _accept(self, chunk: Chunk, until: tuple[float, int, Chunk, float] | None) -> None:
        if not chunk.wanted:
            return
        self._open.add(chunk)
        if until is not None:
            heapq.heappush(self._deadlines, until)
            if len(self._deadlines) > 2 * len(self._open) + 64:
                self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
                heapq.heapify(self._deadlines)
        self._queue(chunk)
        self._fail_what_cannot_run()

    def _expire(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _until, _id, chunk, timeout = heapq.heappop(self._deadlines)
            if not chunk.done:
                self._unqueue(chunk)
                self._finish(chunk, None, TaskTimeout(f"the task was not done within {timeout:g} seconds"), None)

    def _queue(self, chunk: Chunk) -> None:
        task = self._tasks[chunk] = _native.ScheduledTask(chunk)
        kind = chunk.count.bit_length()
        device = -1 if chunk.node is None else chunk.node
        self._scheduler.add(task, kind=kind, device=device)

    def _unqueue(self, chunk: Chunk) -> None:
        """Remove a chunk whose answer is not needed any more. A node that has it keeps it until it answers."""
        task = self._tasks.get(chunk)
        if task is not None:
            self._scheduler.drop(task)
            if not any(chunk in node.in_hand for node in self.nodes()):
                del self._tasks[chunk]

    def _place(self) -> None:
        while (placed := self._scheduler.next(time.monotonic_ns())) is not None:
            task, worker = placed
            self._send(self._at[worker], task.value)

    def _send(self, node: Node, chunk: Chunk) -> None:
        chunk.sent_ns = time.monotonic_ns()
        call = node.in_hand[chunk] = object()
        self._call(
            lambda: node.actor.run.remote(list(chunk.bundles), chunk.order),
            lambda value, error: self._answered(node, chunk, call, value, error),
        )

    def _call(self, call: Callable[[], Any], then: Callable[[Any, BaseException | None], None]) -> None:
        """Call an actor's method. `then(value, error)` is called in this thread once Ray has the answer."""

        def told(future: Future[Any]) -> None:
            error = future.exception()
            value = None if error is not None else future.result()
            self._post(lambda: then(value, error))

        try:
            if self._job is not None and not ray.is_initialized():
                raise _left()
            call().future().add_done_callback(told)
        except Exception as error:  # Ray refuses the call: its store is full, or the program has left the cluster
            refused = error
            self._post(lambda: then(None, refused))

    # ---- answers ----

    def _answered(self, node: Node, chunk: Chunk, call: object, value: Any, error: BaseException | None) -> None:
        current = node.in_hand.get(chunk) is call
        cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
        lost = next((one for one in (error, cause) if isinstance(one, (*LOST, GetTimeoutError))), None)
        if lost is None and isinstance(cause, (PoolBroken, PoolClosed, SessionClosed)):  # none of its devices works any more
            lost = cause
        if lost is not None:
            if current:
                self._suspect(node, lost, dead=not isinstance(lost, MAY_LIVE), begun=not isinstance(lost, UNBEGUN), of=chunk)
            return
        if current:
            del node.in_hand[chunk]
            node.failures, node.blamed_on_chunks, node.heard_at = 0, 0, time.monotonic()
            self._scheduler.answered(self._tasks.pop(chunk), chunk.sent_ns, time.monotonic_ns())
            self._let_go(node)
        if chunk.done:
            return
        if not current:  # a node that was given up was faster than its replacement
            self._unqueue(chunk)
        if error is not None:
            self._finish(chunk, None, cause or error, node)
            return
        outcomes, took_ns = value
        self._learn(len(outcomes), took_ns)
        self._finish(chunk, outcomes, None, node)

    def _learn(self, items: int, took_ns: int) -> None:
        # Chunks overlap in a node, so this is less than its rate, by at most a factor of its chunks in flight.
        rate = items * CHUNKS_A_NODE / max(1e-6, took_ns / 1e9)
        self._rate = rate if self._rate == 0 else self._rate + (rate - self._rate) / 4

    def _finish(self, chunk: Chunk, outcomes: Any, error: BaseException | None, node: Node | None) -> None:
        with chunk.waiting.changed:
            chunk.outcomes, chunk.error, chunk.done = outcomes, error, True
            chunk.where = "" if node is None else node.id
            chunk.bundles = ()
            chunk.waiting.changed.notify_all()
        self._done += 1
        self._open.discard(chunk)
        then, chunk.then = chunk.then, None
        if then is not None:  # it may call functions of the program
            self._answers.do(lambda: then(chunk))

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

    def _fail_what_cannot_run(self) -> None:
        """Fail the chunks that wait for a node that is not used any more."""
        out = self._out
        if not out:
            return
        if len(out) == len(self._nodes):
            errors = [node.error for node in out.values() if node.error is not None]
            broken = PoolBroken("no node of the cluster is left" + (f": {_first_line(errors[-1])}" if errors else ""))
            broken.__cause__ = errors[-1] if errors else None
            self._fail_all(broken)
            return
        for chunk in list(self._open):
            node = None if chunk.node is None else out.get(chunk.node)
            if node is not None:
                self._unqueue(chunk)
                error = PoolBroken(f"node {node.name}, which the device is on, is not in use any more")
                self._finish(chunk, None, error, None)

    # ---- nodes ----

    def _move(self, node: Node, state: NodeState) -> None:
        """Change a node's state."""
        node.state = state
        self._ready = [other for other in self.nodes() if other.state is NodeState.READY]
        self._out = {other.number: other for other in self.nodes() if other.state is NodeState.OUT}
        if state is NodeState.OUT:
            self._fail_what_cannot_run()
        self._end_first_wait()

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < TICK_S / 2:
            return
        self._looked_at = now
        if self._job is not None and not self._is_connected():
            self._broken, self._stopping, self._force = _left(), True, True
            return
        limit = self._settings.start_timeout + PROCESS_START_S
        for node in self.nodes():
            if node.state is NodeState.RESTING and now >= node.pause_until and (self._open or not self._stopping):
                self._start(node, now)
            elif node.state is NodeState.STARTING and now - node.started_at > limit:
                self._give_up(node, WorkerStartError(f"node {node.name} was not ready within {limit:g} seconds"))
            elif node.state is NodeState.SUSPECT and now - node.suspected_at > SUSPECT_S:
                self._give_up(node, TimeoutError(f"no answer for {SUSPECT_S:g} seconds"))
            elif node.state in (NodeState.READY, NodeState.SUSPECT, NodeState.LEAVING):
                self._ping(node, now)
        self._end_first_wait()

    def _find(self, found: Found) -> None:
        """Handle nodes that join and leave."""
        self._free = found.free
        usable = find_nodes(found.nodes, self._settings.nodes, self._kinds)
        for id, told in usable.items():
            node = self._nodes.get(id)
            if id in found.draining:
                if node is not None:
                    self._drain(node)
            elif node is None:
                host = told.get("NodeManagerHostname") or told.get("NodeManagerAddress") or ""
                self._nodes[id] = Node(self._numbers, id, host, dict(told["Resources"]))
                self._numbers += 1
            elif node.state is NodeState.OUT and node.error is None:
                node.failures, node.pause_until = 0, 0.0
                self._move(node, NodeState.RESTING)
        for id, node in list(self._nodes.items()):
            if id not in usable and node.state is not NodeState.OUT:
                if node.worker is not None:
                    self._suspect(node, PoolBroken("the node left the cluster"), dead=True, begun=True)
                self._end_actor(node)
                node.error = None
                self._move(node, NodeState.OUT)
        self._end_first_wait()

    def _start(self, node: Node, now: float) -> None:
        options, wants = reservation(node, self._settings)
        free = self._free.get(node.id)
        if free is not None and wants is not None and free.get(wants[0], 0) < wants[1]:
            self._hold(node, f"has {free.get(wants[0], 0):g} of {node.resources[wants[0]]:g} {wants[0]} free", wants[1], now)
            return
        options |= {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": CHUNKS_A_NODE + 3}
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        node.started_at, node.error, node.held = now, None, ""
        self._move(node, NodeState.STARTING)
        try:
            if self._job is not None and not ray.is_initialized():
                raise _left()
            node.actor = actor = ray.remote(NodeActor).options(**options).remote()
        except Exception as error:
            self._give_up(node, error)
            return
        self._call(
            lambda: actor.start.remote(self._model, self._settings.options),
            lambda value, error: self._started(node, actor, value, error),
        )

    def _hold(self, node: Node, free: str, wanted: float, now: float) -> None:
        """Wait for a node whose devices another job has reserved."""
        node.pause_until = now + TICK_S
        node.held_since = node.held_since or now
        if now - node.held_since > HELD_S and not node.held:
            node.held = (
                f"{free}, and this session wants {wanted:g}: another job or session has them; wait for it, or pass "
                "reserve=False to use them all the same"
            )
            _logger.warning("node %s %s", node.name, node.held)

    def _started(self, node: Node, actor: Any, value: Any, error: BaseException | None) -> None:
        if node.actor is not actor:
            return
        if error is None and value.get("version") == ais_bench.__version__:
            node.devices, node.model = value["devices"], value["model"]
            _logger.info("node %s is ready with devices %s", node.name, node.devices)
            self._join(node)
        elif error is None:
            there, here = value.get("version"), ais_bench.__version__
            said = f"node {node.name} has ais_bench {there}, and this program {here}: they must be equal"
            self._give_up(node, WorkerStartError(said), again=False)
        elif isinstance(error, RayTaskError):  # the session would raise the same error again
            self._give_up(node, getattr(error, "cause", None) or error, again=False)
        else:
            self._give_up(node, error)

    def _join(self, node: Node) -> None:
        node.asked_at, node.heard_at, node.held_since = 0.0, time.monotonic(), 0.0
        node.worker = self._scheduler.add_worker(node.number, float(max(1, len(node.devices))))
        self._at[node.worker] = node
        self._move(node, NodeState.READY)

    def _suspect(self, node: Node, error: BaseException, *, dead: bool, begun: bool, of: Chunk | None = None) -> None:
        """Send nothing more to this node, and run its chunks on other nodes.

        `begun`: the node had begun the chunk `of`, or, if it is dead, any chunk.
        """
        _logger.warning("node %s is suspected: %s", node.name, _first_line(error))
        chunks = list(node.in_hand)
        node.in_hand.clear()
        # A chunk is the reason if it was lost with a node before and was alone on this node.
        node.spared = dead and len(chunks) == 1 and bool(chunks[0].costs)
        worker, node.worker = node.worker, None
        if worker is not None:
            del self._at[worker]
            orphans = [task.value for task in self._scheduler.remove_worker(worker)]
            for chunk in reversed(orphans):
                its_own = chunk is of
                self._lost(
                    node,
                    chunk,
                    begun=begun and (dead or its_own),
                    certain=len(chunks) == 1 or (its_own and not dead),
                    why=error,
                )
        if dead:
            self._give_up(node, error)
        else:
            node.suspected_at = time.monotonic()
            self._move(node, NodeState.SUSPECT)

    def _lost(self, node: Node, chunk: Chunk, *, begun: bool, certain: bool, why: BaseException) -> None:
        chunk.tries += 1
        if chunk.tries > MOST_TRIES:
            begun = certain = True
        if begun:
            chunk.costs.append(node.name)
        if self._scheduler.lose(self._tasks[chunk], begun, certain):
            return
        del self._tasks[chunk]
        if chunk.done:
            return
        if chunk.count > 1:
            self._open.discard(chunk)
            with chunk.waiting.changed:
                parts = chunk.split()
            chunk.bundles = ()
            for part in parts:
                self._open.add(part)
                self._queue(part)
            return
        error = WorkerDied(f"{len(chunk.costs)} nodes were lost with this item: {', '.join(chunk.costs)}")
        error.__cause__ = why
        self._finish(chunk, None, error, node)

    def _give_up(self, node: Node, error: BaseException, *, again: bool = True) -> None:
        """Give up a node's actor, which is dead or unusable. `again`: whether a new actor may work."""
        self._end_actor(node)
        if node.worker is not None:  # otherwise the scheduler has already removed it
            self._suspect(node, error, dead=True, begun=False)
            return
        node.error = error
        node.rest()
        if again and node.failures <= self._settings.max_node_failures:
            self._move(node, NodeState.RESTING)
            return
        after = f" after {node.failures} failures in a row" if again else ""
        _logger.warning("node %s is out%s: %s", node.name, after, _first_line(error))
        self._move(node, NodeState.OUT)

    def _drain(self, node: Node) -> None:
        """Drain a node: send it nothing more, and remove it when it has finished its chunks."""
        if node.state is NodeState.READY:
            _logger.info("node %s leaves", node.name)
            self._scheduler.close_worker(node.worker)
            self._move(node, NodeState.LEAVING)
            self._let_go(node)
        elif node.state in (NodeState.STARTING, NodeState.RESTING):
            self._end_actor(node)
            node.error = None
            self._move(node, NodeState.OUT)

    def _let_go(self, node: Node) -> None:
        """End a leaving node once it has no chunks."""
        if node.state is not NodeState.LEAVING or node.in_hand:
            return
        self._scheduler.remove_worker(node.worker)
        del self._at[node.worker]
        node.worker = None
        self._end_actor(node)
        node.error = None
        self._move(node, NodeState.OUT)

    def _end_actor(self, node: Node) -> None:
        actor, node.actor = node.actor, None
        if actor is not None:
            self._ender.kill(actor)

    def _ping(self, node: Node, now: float) -> None:
        if node.asked_at:
            if now - node.asked_at > SILENT_S and node.state is not NodeState.SUSPECT:
                self._suspect(node, TimeoutError(f"no answer for {SILENT_S:g} seconds"), dead=False, begun=False)
            return
        if node.state is not NodeState.SUSPECT and (not node.in_hand or now - node.heard_at < PING_EVERY_S):
            return
        node.asked_at, actor = now, node.actor
        self._call(actor.ping.remote, lambda value, error: self._ponged(node, actor, error))

    def _ponged(self, node: Node, actor: Any, error: BaseException | None) -> None:
        if node.actor is not actor:
            return
        node.asked_at = 0.0
        if error is None:
            node.heard_at = time.monotonic()
            if node.state is NodeState.SUSPECT:
                _logger.warning("node %s is back", node.name)
                self._join(node)
        elif not isinstance(error, MAY_LIVE):
            self._suspect(node, error, dead=True, begun=True)
        elif node.state is not NodeState.SUSPECT:
            self._suspect(node, error, dead=False, begun=False)

    def _end_first_wait(self) -> None:
        """End the wait for the first nodes if each of them is ready or has failed."""
        if self._settled.is_set() or not self._nodes:
            return
        waited_for = [node for node in self.nodes() if node.state in (NodeState.STARTING, NodeState.RESTING)]
        if self._ready:
            waited_for = [node for node in waited_for if not node.held]
        if waited_for:
            return
        if not self._ready:
            errors = [node.error for node in self.nodes() if node.error is not None]
            self._broken = WorkerStartError("no node got ready" + (f": {errors[0]}" if errors else ""))
            self._broken.__cause__ = errors[0] if errors else None
        self._settled.set()


class DriverWatch:
    """Checks, for a caller that waits for a driver, whether the driver still works. Call `check` after each wait in vain."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._seen = -1
        self._waits = 0

    def check(self) -> None:
        """Raise PoolClosed if the thread has ended, PoolBroken if it has not moved for STALL_S."""
        driver = self._driver
        if driver._ended and not driver._thread.is_alive():
            raise driver._over()
        if driver.beat != self._seen:
            self._seen, self._waits = driver.beat, 0
            return
        self._waits += 1  # counted in waits, because a stopped program does not wait
        if self._waits * TICK_S > STALL_S:
            raise PoolBroken(f"the cluster session has not moved for {STALL_S:g} seconds: Ray does not answer")


def _end_all() -> None:
    """Close the open sessions at the end of the program, before Ray ends. Futures are finished first."""
    for driver in list(_drivers):
        driver.stop(force=not any(chunk.then is not None for chunk in list(driver._open)))


atexit.register(_end_all)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _left() -> PoolBroken:
    return PoolBroken("the program has left the Ray cluster: ray.shutdown() was called while the session was open")
