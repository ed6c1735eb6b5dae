"""The results of a stream: the iterator that `map` returns."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ais_bench._native import Results
from ais_bench.pool import DevicePool, Task
from support.handlers import Obedient, order
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def stream(pool: DevicePool, items: Any, **how: Any) -> Any:
    return pool.ordered(items, lambda item, index: Task(item, index=index), lists=0, **how)


def test_times_replace_those_of_the_last_call(pool: DevicePool) -> None:
    times: dict[int, list[float]] = {5: [1.0]}
    results = Results(stream(pool, [order(0, number) for number in range(40)]), Task.result, times=times, kept=100)
    assert times == {5: [1.0]}  # until the first result
    assert [int(outputs[0][1]) for outputs in results] == list(range(40))
    assert sum(len(of_one) for of_one in times.values()) == 40
    assert set(times) <= {0, 1}
    assert all(0 < time < 60_000 for of_one in times.values() for time in of_one)


def test_of_each_device_the_newest_times_are_kept() -> None:
    times: dict[int, list[float]] = {}
    with DevicePool(Obedient, [3]) as pool:
        results = Results(stream(pool, [order(0, 0)] * 25), Task.result, times=times, kept=5)
        lengths = [len(times[3]) for _ in results]
    assert lengths[:10] == list(range(1, 11))
    assert lengths[10:] == [6, 7, 8, 9, 10] * 3


def test_with_the_index(pool: DevicePool) -> None:
    tasks = pool.unordered([order(0, number) for number in range(50)], lambda item, index: Task(item, index=index), lists=0)
    pairs = [(index, int(outputs[0][1])) for index, outputs in Results(tasks, Task.result, indexed=True)]
    assert sorted(pairs) == [(number, number) for number in range(50)]


def test_the_answer_of_a_failed_task_takes_its_place(pool: DevicePool) -> None:
    items = [order(0, 1), order(Obedient.RAISE, 2), order(0, 3)]
    answers = list(Results(stream(pool, items), lambda task: f"{task.index} failed"))
    assert answers[1] == "1 failed"
    assert [int(answers[at][0][1]) for at in (0, 2)] == [1, 3]


def test_an_error_ends_the_iteration_and_its_tasks(pool: DevicePool) -> None:
    results = pool.map(itertools.chain([order(0, 1), order(Obedient.RAISE, 2)], itertools.repeat(order(0, 3))))
    assert int(next(results)[0][1]) == 1
    with pytest.raises(LookupError, match="order 2"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    wait_until(lambda: pool.counts()["outstanding"] == 0)


def test_close_cancels_what_is_under_way(pool: DevicePool) -> None:
    results: Any = pool.map(itertools.repeat(order(0, 3)))
    next(results)
    results.close()
    results.close()
    assert list(results) == []
    assert pool.counts()["outstanding"] == 0


def test_one_thread_iterates(pool: DevicePool) -> None:
    entered, gate = threading.Event(), threading.Event()

    def items() -> Iterator[list[Any]]:
        entered.set()
        assert gate.wait(60)
        yield order(0, 4)

    results: Any = pool.map(items())
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.extend(results))
    first.start()
    assert entered.wait(60)
    for call in (results.close, results.__next__, lambda: next(results)):
        with pytest.raises(ValueError, match="one thread"):
            call()
    gate.set()
    first.join()
    assert [int(outputs[0][1]) for outputs in got] == [4]


def test_a_dropped_iterator_cancels_what_is_under_way(pool: DevicePool) -> None:
    results = pool.map(itertools.repeat(order(0, 3)))
    next(results)
    del results
    assert pool.counts()["outstanding"] == 0
