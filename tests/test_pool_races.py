"""What happens in the few instructions between two steps of the dispatcher, made to happen there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pool_handlers import Obedient, order
from pool_support import wait_until

from ais_bench.errors import TaskTimeout
from ais_bench.pool import DevicePool, PoolSettings, Task, Waiter
from ais_bench.pool.dispatch import Dispatcher
from ais_bench.pool.resolver import Resolver


class Lane:
    """A worker's lane that has something done before or after its next `send`."""

    def __init__(self, lane: Any, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
        self._lane, self._before, self._after = lane, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lane, name)

    def send(self, *arguments: Any) -> bool:
        before, self._before = self._before, None
        if before is not None:
            before()
        sent: bool = self._lane.send(*arguments)
        after, self._after = self._after, None
        if after is not None:
            after()
        return sent


@pytest.fixture
def pool() -> Iterator[DevicePool]:
    with DevicePool(Obedient, [0], PoolSettings(tasks_in_flight=1, task_timeout=30)) as pool:
        pool.start()
        yield pool


def dispatcher_of(pool: DevicePool) -> Dispatcher:
    return pool._engine.dispatcher


def task_of(*what: int) -> Task:
    return Task(order(*what), Waiter())


def in_thread(pool: DevicePool, task: Task) -> threading.Thread:
    thread = threading.Thread(target=pool.run, args=(task,))
    thread.start()
    return thread


def rests(pool: DevicePool) -> bool:
    """Nothing is under way, and no place is taken."""
    dispatcher = dispatcher_of(pool)
    dispatcher.drain()
    workers = dispatcher.crew.workers
    return dispatcher.unfinished() == 0 and all((worker.load, worker.busy) == (0, False) for worker in workers)


def test_a_future_that_comes_while_the_background_falls_asleep_is_collected(pool: DevicePool) -> None:
    dispatcher = dispatcher_of(pool)
    background = dispatcher.collector.background
    pool.submit(lambda waiter, future: Task(order(Obedient.ECHO), waiter, future=future)).result(20)
    wait_until(lambda: background.asleep and dispatcher._background_idle)
    with dispatcher._lock:
        background.wake()  # it looks for something to do, and has to wait for the lock that this thread has
        resolver = pool._engine._resolver
        assert resolver is not None
        assert resolver.ident is not None
        ident = resolver.ident
        wait_until(lambda: sys._current_frames()[ident].f_code.co_name == "background_progress" and not background.asleep)
        future = future_task(pool)
        dispatcher.account.accept(future)
    wait_until(lambda: dispatcher.collector._leader is background, what="the background collects")
    dispatcher.drop((future,))
    dispatcher.dispatch()
    assert rests(pool)


def future_task(pool: DevicePool) -> Task:
    return Task(order(Obedient.ECHO), dispatcher_of(pool).collector.background, future=pool._engine.future())


def test_an_interrupt_while_feeds_are_sent_does_not_leave_deadlines_unwatched() -> None:
    with DevicePool(Obedient, [0], PoolSettings(task_timeout=0.3)) as pool:
        pool.start()
        (worker,) = dispatcher_of(pool).crew.workers

        def interrupt() -> None:
            raise KeyboardInterrupt

        worker.lane = Lane(worker.lane, after=interrupt)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            pool.run(task_of(Obedient.ECHO))
        hanging = pool.run(task_of(Obedient.SLEEP_MS, 10_000))
        assert isinstance(hanging.error, TaskTimeout) or hanging.strikes > 0, hanging.error


def test_a_worker_that_dies_just_after_a_task_was_sent_does_not_put_it_into_the_queue_twice(pool: DevicePool) -> None:
    dispatcher = dispatcher_of(pool)
    (worker,) = dispatcher.crew.workers
    queued: list[int] = []

    def die() -> None:
        worker.kill()
        wait_until(lambda: worker not in dispatcher.crew.workers)
        queued.append(dispatcher._queues.shared.count(task))

    worker.lane = Lane(worker.lane, after=die)  # type: ignore[assignment]
    task = task_of(Obedient.SLEEP_MS, 50)
    dispatcher.start(task)
    assert queued == [1]  # its worker had it
    assert dispatcher._queues.shared.count(task) <= 1  # none: another worker has it already
    wait_until(lambda: dispatcher.drain() >= 0 and task.done)
    assert task.error is None
    wait_until(lambda: rests(pool))


def test_a_task_that_is_dropped_while_another_thread_sends_it_keeps_its_place_until_it_is_answered(pool: DevicePool) -> None:
    dispatcher = dispatcher_of(pool)
    (worker,) = dispatcher.crew.workers
    entered, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        entered.set()
        assert go_on.wait(20)

    worker.limit = 0  # so that tasks are queued
    dropped = task_of(Obedient.SLEEP_MS, 2000)
    dispatcher.start(dropped)
    worker.limit = 1
    worker.lane = Lane(worker.lane, before=pause)  # type: ignore[assignment]
    thread = threading.Thread(target=dispatcher.dispatch)
    thread.start()
    assert entered.wait(20)
    dispatcher.drop((dropped,))
    dispatcher.dispatch()
    assert dropped.done
    assert worker.load == 1
    go_on.set()
    thread.join()
    wait_until(lambda: dropped.sent)  # it may be the supervisor's thread that sends it, which also looks for room
    assert (worker.load, worker.lane.in_flight) == (1, 1)
    wait_until(lambda: rests(pool))


@pytest.mark.parametrize("way", ["at once", "from the queue"])
def test_a_signal_handler_that_comes_while_a_task_is_sent_closes_without_waiting_for_it(way: str) -> None:
    pool = DevicePool(Obedient, [0], PoolSettings(close_timeout=10))
    pool.start()
    dispatcher = dispatcher_of(pool)
    (worker,) = dispatcher.crew.workers
    task = task_of(Obedient.ECHO, 5)
    closed: list[bool] = []
    worker.lane = Lane(worker.lane, before=lambda: (pool.close(), closed.append(task.done)))  # type: ignore[assignment, func-returns-value]
    if way == "from the queue":
        worker.limit = 0
        dispatcher.start(task)
        worker.limit = 1
        dispatcher.dispatch()
    else:
        dispatcher.start(task)
    assert closed == [False]  # it did not wait: the task goes on when it returns, and is one of those that finish
    wait_until(lambda: pool.workers()[0].state == "empty")
    assert task.done
    assert task.error is None


def test_an_interrupt_between_queue_and_worker_leaves_the_task_to_other_threads(
    pool: DevicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = dispatcher_of(pool)
    (worker,) = dispatcher.crew.workers
    worker.limit = 0  # so that tasks are queued
    task = task_of(Obedient.ECHO)
    thread = in_thread(pool, task)
    wait_until(lambda: dispatcher._queues.shared and dispatcher.collector._leader is task.waiter)
    worker.limit = 1
    push = dispatcher.push

    def interrupted(task: Task, worker: Any) -> bool:
        monkeypatch.setattr(dispatcher, "push", push)
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatcher, "push", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.dispatch()
    thread.join(20)
    assert task.done
    assert task.error is None
    assert rests(pool)


def test_an_interrupt_while_the_thread_of_the_futures_starts_leaves_no_second_one(
    pool: DevicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Resolver.start

    def interrupted(resolver: Resolver) -> None:
        monkeypatch.setattr(Resolver, "start", start)
        start(resolver)
        started.append(resolver)
        raise KeyboardInterrupt

    started: list[Resolver] = []
    monkeypatch.setattr(Resolver, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        future_task(pool)
    started[0].join(20)
    assert not started[0].is_alive()
    pool.submit(lambda waiter, future: Task(order(Obedient.ECHO), waiter, future=future)).result(20)


def test_an_interrupt_while_the_lead_is_passed_on_does_not_lose_it(pool: DevicePool, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = dispatcher_of(pool).collector
    resign = collector.resign

    def interrupted(*_arguments: Any) -> None:
        monkeypatch.setattr(collector, "resign", resign)
        raise KeyboardInterrupt

    def run_until_it_leads() -> None:
        for _ in range(1000):  # the supervisor's thread, which looks at new workers, may take a reply before that
            pool.run(task_of(Obedient.ECHO))

    monkeypatch.setattr(collector, "resign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_until_it_leads()
    assert collector._leader is None
    task = task_of(Obedient.ECHO)
    thread = in_thread(pool, task)  # it cannot take over a lead that this thread still seems to have
    thread.join(20)
    assert task.done


@pytest.mark.parametrize("point", range(4))  # before and after either call that waking takes
def test_an_interrupt_while_a_thread_is_woken_does_not_lose_the_wake_up(point: int) -> None:
    waiter = Waiter()
    waiter.prepare()
    seen: list[str] = []

    def interrupt(frame: Any, event: str, _argument: Any) -> None:
        if frame.f_code is Waiter.wake.__code__ and event.startswith("c_"):
            seen.append(event)
            if len(seen) == point + 1:
                raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            waiter.wake()
    finally:
        sys.setprofile(None)
    assert len(seen) == point + 1
    if waiter.asleep:  # whoever looks next: the thread that was interrupted leaves, or another reply comes
        waiter.wake()
    assert waiter._gate is not None
    assert not waiter._gate.locked()
    assert not waiter.asleep
