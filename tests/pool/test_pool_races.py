"""Events in the middle of a call of the exchange, caused by array-like feeds that run code while they are sent."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import TaskTimeout
from ais_bench.pool import DevicePool, PoolSettings, Task
from ais_bench.pool.resolver import Resolver
from support.handlers import Obedient, order
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Feed:
    """An order for Obedient that runs code once, when its memory is requested while its task is sent."""

    def __init__(self, action: Callable[[], object], *what: int) -> None:
        self._action: Callable[[], object] | None = action
        self._what = what

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **_options: Any) -> Any:
        action, self._action = self._action, None
        if action is not None:
            action()
        return np.array([*self._what, 0, 0], np.int64).__dlpack__()


@pytest.fixture
def pool() -> Iterator[DevicePool]:
    with DevicePool(Obedient, [0], PoolSettings(tasks_in_flight=1, task_timeout=30)) as pool:
        pool.start()
        yield pool
        rests(pool)


def rests(pool: DevicePool) -> None:
    """Check that no task is in progress, no place is taken, and every accepted task was counted once."""
    exchange = pool._core.exchange
    wait_until(lambda: exchange.progress() >= 0 and exchange.at_rest)
    assert exchange.check() == ""
    counts = exchange.counts()
    ends = sum(counts[name] for name in ("done", "failed", "cancelled", "timed_out", "refused"))
    assert counts["accepted"] == ends, counts


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_while_feeds_are_sent_frees_the_place(pool: DevicePool) -> None:
    with pytest.raises(KeyboardInterrupt):
        pool.run(Task([Feed(interrupt, Obedient.ECHO)]))
    rests(pool)
    assert pool.run(Task(order(Obedient.ECHO, 5))).result()[0][1] == 5


def test_an_interrupt_while_feeds_are_sent_does_not_leave_deadlines_unwatched() -> None:
    with DevicePool(Obedient, [0], PoolSettings(task_timeout=0.3)) as pool:
        pool.start()
        with pytest.raises(KeyboardInterrupt):
            pool.run(Task([Feed(interrupt, Obedient.ECHO)]))
        hanging = pool.run(Task(order(Obedient.SLEEP_MS, 10_000)))
        assert isinstance(hanging.error, TaskTimeout) or hanging.crashes > 0, hanging.error


def test_a_worker_that_dies_while_a_task_is_sent_to_it_leaves_it_to_its_successor(pool: DevicePool) -> None:
    first = pool.workers()[0].pid

    def die() -> None:
        pool._core.supervisor.seats[0].worker.process.kill()  # type: ignore[union-attr]
        wait_until(lambda: pool.workers()[0].pid not in (first, None))

    task = pool.run(Task([Feed(die, Obedient.WHO)]))
    assert task.error is None
    assert task.result()[0][0] != first
    assert task.crashes == 0


def test_a_task_that_is_cancelled_while_it_is_sent_does_not_run(pool: DevicePool) -> None:
    future: list[Any] = []
    feed = Feed(lambda: task.future.cancel(), Obedient.RAISE, 1)
    task = Task([feed])
    future.append(pool.submit(task))
    assert future[0].cancelled()
    rests(pool)
    assert pool.device_infos()[0].stats.failures == 0


def test_the_pool_may_be_used_and_closed_while_a_task_is_sent() -> None:
    pool = DevicePool(Obedient, [0, 1], PoolSettings(close_timeout=0.2))
    pool.start()
    seen: list[int] = []

    def use() -> None:
        seen.append(int(pool.run(Task(order(Obedient.ECHO, 4))).result()[0][1]))
        pool.close()

    task = Task([Feed(use, Obedient.ECHO, 5)])
    pool.run(task)
    assert seen == [4]
    assert type(task.error).__name__ == "PoolClosed"


def test_feeds_may_use_the_pool_of_one_place_while_they_are_made_arrays(pool: DevicePool) -> None:
    """`pool` has one device with room for one task. The task that is being made must not hold this place."""
    inner = order(Obedient.ECHO, 4)
    uses: dict[str, Callable[[], Any]] = {
        "run": lambda: pool.run(Task(inner)).result(),
        "submit": lambda: pool.submit(inner).result(20),
        "map": lambda: next(pool.map([inner])),
        "another one": lambda: pool.run(Task([Feed(lambda: pool.run(Task(inner)), Obedient.ECHO, 4)])).result(),
    }
    for name, use in uses.items():
        for outer in (
            lambda feed: pool.run(Task([feed])).result(),
            lambda feed: pool.submit([feed]).result(20),
            lambda feed: next(pool.map(iter([[feed]]))),
            lambda feed: pool.run_all([Task([feed])])[0].result(),
        ):
            seen: list[Any] = []
            feed = Feed(lambda use=use, seen=seen: seen.append(use()), Obedient.ECHO, 5)  # type: ignore[misc]
            assert outer(feed)[0][1] == 5, name
            assert seen[0][0][1] == 4, name
    rests(pool)


def test_feeds_that_close_their_own_stream_while_they_are_made_arrays_end_it(pool: DevicePool) -> None:
    def feeds() -> Iterator[list[Any]]:
        yield order(Obedient.ECHO, 1)
        yield [Feed(lambda: stream.close(), Obedient.ECHO, 2)]
        raise AssertionError("a stream that was closed asked for more")

    stream = pool.ordered(feeds(), lambda item, index: Task(item, index=index))
    assert len(list(stream)) <= 1
    rests(pool)


def test_feeds_that_cannot_be_made_arrays_are_their_tasks_failure(pool: DevicePool) -> None:
    def refuse() -> None:
        raise ValueError("no array today")

    task = pool.run(Task([Feed(refuse)]))
    assert "no array today" in str(task.error)
    assert task.outcome == "failed"
    assert "no array today" in str(pool.submit([Feed(refuse)]).exception(20))


def test_a_stream_that_is_dropped_by_a_finalizer_while_another_is_drained_is_forgotten(pool: DevicePool) -> None:
    class Cycle:
        """A cycle that the garbage collector frees, together with a stream."""

        def __init__(self, stream: Any) -> None:
            self.me, self.stream = self, stream

    for _ in range(20):
        stream = pool.ordered(iter([order(Obedient.ECHO)] * 50), lambda item, index: Task(item, index=index))
        next(stream)
        Cycle(stream)
        del stream
        for task in pool.ordered([order(Obedient.ECHO, n) for n in range(50)], lambda item, index: Task(item, index=index)):
            assert task.result()[0][1] == task.index
    gc.collect()
    rests(pool)


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
        pool.submit(order(Obedient.ECHO))
    assert pool.submit(order(Obedient.ECHO, 3)).result(20)[0][1] == 3
    assert pool._core._resolver is started[0]
    assert len(started) == 1


def test_threads_that_come_and_go_always_leave_a_leader(pool: DevicePool) -> None:
    """Short and long calls, futures and time-outs run at once. If the lead were lost, a thread would wait forever."""

    def calls(number: int) -> None:
        for n in range(100):
            assert pool.run(Task(order(Obedient.ECHO, number * 1000 + n))).result()[0][1] == number * 1000 + n

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for n in range(100):
        assert pool.submit(order(Obedient.ECHO, n)).result(30)[0][1] == n
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
