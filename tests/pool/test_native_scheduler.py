"""The scheduler for Python code: `_native.Scheduler`, with simulated time."""

from __future__ import annotations

import pytest

from ais_bench import _native
from ais_bench.errors import AisBenchError

MS = 1_000_000


def test_tasks_go_to_workers_with_room_and_come_back_from_those_that_are_lost() -> None:
    scheduler = _native.Scheduler(in_flight=2)
    workers = [scheduler.add_worker(number) for number in range(2)]
    tasks = [_native.ScheduledTask(number) for number in range(5)]
    for task in tasks:
        scheduler.add(task)
    placed = []
    while (found := scheduler.next(0)) is not None:
        placed.append(found)
    assert [worker.in_hand for worker in workers] == [2, 2]
    assert scheduler.waiting == 1
    lost, kept = workers
    orphans = scheduler.remove_worker(lost)
    assert {id(task) for task in orphans} == {id(task) for task, worker in placed if worker is lost}
    assert [scheduler.lose(task, True, False) for task in orphans] == [True, True]
    done = []
    for task in [task for task, worker in placed if worker is kept]:
        scheduler.answered(task, 0, MS)
        done.append(task.value)
    now = MS
    while (found := scheduler.next(now)) is not None:
        task, worker = found
        assert worker is kept
        now += MS
        scheduler.answered(task, now - MS, now)
        done.append(task.value)
    assert sorted(done) == list(range(5))
    assert scheduler.check() == ""


def test_a_task_that_costs_two_workers_for_certain_is_out() -> None:
    scheduler = _native.Scheduler(in_flight=4, max_attempts=2)
    task = _native.ScheduledTask("poison")
    scheduler.add(task)
    for attempt in range(2):
        worker = scheduler.add_worker(attempt)
        found = scheduler.next(attempt)
        assert found is not None
        assert found[0] is task
        assert scheduler.remove_worker(worker) == [task]
        assert scheduler.lose(task, True, True) is (attempt == 0)
    assert task.crashes == 2
    assert scheduler.waiting == 0
    assert scheduler.check() == ""


def test_a_task_for_one_worker_waits_for_it() -> None:
    scheduler = _native.Scheduler()
    scheduler.add_worker(0)
    task = _native.ScheduledTask(None)
    scheduler.add(task, device=7)
    assert scheduler.next(0) is None
    seven = scheduler.add_worker(7)
    assert scheduler.next(0) == (task, seven)


def test_a_dropped_task_leaves_the_queue_at_once_and_a_worker_with_its_answer() -> None:
    scheduler = _native.Scheduler(in_flight=1)
    worker = scheduler.add_worker(0)
    first, second = (_native.ScheduledTask(number) for number in range(2))
    scheduler.add(first)
    scheduler.add(second)
    assert scheduler.next(0) == (first, worker)
    scheduler.drop(first)
    scheduler.drop(second)
    assert scheduler.next(0) is None
    assert worker.in_hand == 1
    scheduler.answered(first, 0, MS)
    assert (worker.in_hand, scheduler.waiting, scheduler.check()) == (0, 0, "")


def test_calls_in_the_wrong_order_are_refused() -> None:
    scheduler = _native.Scheduler()
    task = _native.ScheduledTask(None)
    with pytest.raises(AisBenchError, match="no worker has this task"):
        scheduler.answered(task, 0, 0)
    with pytest.raises(AisBenchError, match="was not lost"):
        scheduler.lose(task, True, True)
    scheduler.add(task)
    with pytest.raises(AisBenchError, match="added before"):
        scheduler.add(task)


def test_a_seed_draws_the_workers_by_lot() -> None:
    def placed(random: int) -> list[int]:
        scheduler = _native.Scheduler(in_flight=2, random=random)
        for number in range(4):
            scheduler.add_worker(number)
        for number in range(8):
            scheduler.add(_native.ScheduledTask(number))
        devices = []
        while scheduler.waiting:
            if (found := scheduler.next(0)) is not None:  # a random choice may be none, too
                devices.append(found[1].device)
        assert scheduler.check() == ""
        return devices

    assert placed(0) == [0, 1, 2, 3] * 2
    assert placed(7) == placed(7)
    assert len({tuple(placed(seed)) for seed in range(1, 9)}) > 1
