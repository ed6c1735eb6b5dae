"""The placement of tasks, and tasks that are taken back, on real workers. Tests assert decisions, not speed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import ConfigError, TaskTimeout
from ais_bench.pool import DevicePool, PoolSettings, Task
from support.handlers import Marking, Obedient, order
from support.pool import by_policy
from support.scripts import run_python
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def on(task: Task) -> int:
    assert task.ran_on is not None
    return task.ran_on


def make(item: Any, index: int) -> Task:
    return Task(item, index=index)


def executed(pool: DevicePool) -> int:
    return sum(info.stats.tasks for info in pool.device_infos())


@by_policy
def test_a_slow_device_gets_no_task_that_the_others_would_finish_before(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0, 1, 2]) as pool:
        pool.start()
        for device in range(3):  # makes the devices' times known
            pool.submit(order(Obedient.SLOW_ON_0, 400), device=device).result(20)
        for number in range(2):
            tasks = []
            for task in pool.unordered([order(Obedient.WAIT_ON_0, number)] * 100, make):
                tasks.append(task)
                if len(tasks) == 99:  # a second task for device 0 would have to be there before
                    marks.go(number)
            assert [task.error for task in tasks] == [None] * 100
            assert sum(on(task) == 0 for task in tasks) <= 1


@by_policy
def test_quick_tasks_do_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0, 1]) as pool:
        for _ in range(20):
            pool.submit(order(Obedient.ECHO)).result(20)  # known to be quick
        long = pool.submit(order(Obedient.WAIT))
        quick = [pool.submit(order(Obedient.ECHO, n)) for n in range(20)]
        assert [int(future.result(20)[0][1]) for future in quick] == list(range(20))
        assert not long.done()
        assert pool.counts()["outstanding"] == 1
        marks.go()


@by_policy
def test_what_lies_behind_a_task_that_takes_longer_than_expected_is_taken_back(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    settings = PoolSettings(tasks_in_flight=8)  # so that tasks queue up in the workers
    with DevicePool(marks, [0, 1], settings) as pool:
        for _ in range(10):
            pool.submit(order(Obedient.ECHO)).result(20)
        futures = [pool.submit(order(Obedient.WAIT))]
        futures += [pool.submit(order(Obedient.ECHO, n)) for n in range(14)]
        for future in futures[1:]:
            future.result(20)
        assert not futures[0].done()
        marks.go()


def test_a_cancelled_task_that_was_not_begun_is_not_run_and_its_place_is_free_at_once(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0, 1], PoolSettings(tasks_in_flight=4)) as pool:
        pool.start()
        futures = [pool.submit(order(Obedient.WAIT)) for _ in range(8)]
        time.sleep(0.1)  # so that some have begun; it holds as well if none has
        assert all(future.cancel() for future in futures)
        last = pool.submit(order(Obedient.ECHO, 3))
        marks.go()
        assert last.result(20)[0][1] == 3
        exchange = pool._core.exchange
        wait_until(lambda: exchange.progress() >= 0 and exchange.at_rest)
        assert executed(pool) <= 3  # the two begun tasks are not counted for any device
        assert pool.counts()["cancelled"] == 8
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)


def test_a_stream_that_is_left_takes_back_what_was_not_begun(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0], PoolSettings(tasks_in_flight=8)) as pool:
        stream = pool.ordered(iter([order(Obedient.ECHO), *[order(Obedient.WAIT)] * 49]), make)
        next(stream)
        stream.close()
        marks.go()
        assert pool.run(Task(order(Obedient.ECHO, 2))).result()[0][1] == 2
        assert pool._core.exchange.unfinished == 0
        assert executed(pool) == 2  # one may have begun, which is not counted for the device


def test_a_task_past_its_own_time_that_was_not_begun_costs_no_worker(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0], PoolSettings(tasks_in_flight=4)) as pool:
        before = pool.run(Task(order(Obedient.WHO))).result()[0][0]
        busy = pool.submit(order(Obedient.WAIT))
        with pytest.raises(TaskTimeout):
            pool.submit(order(Obedient.ECHO), timeout=0.1).result(20)
        marks.go()
        assert busy.result(20)
        assert pool.run(Task(order(Obedient.WHO))).result()[0][0] == before
        assert pool.counts()["timed_out"] == 1


def test_close_does_not_wait_for_a_worker_that_stands_still_with_nothing_to_do() -> None:
    pool = DevicePool(Obedient, [0, 1])
    pool.start()
    pid = pool.workers()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(25)
    assert not closing.is_alive()
    assert [worker.pid for worker in pool.workers()] == [None, None]


def test_every_accepted_task_ends_in_one_count() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(tasks_in_flight=1)) as pool:
        pool.start()
        futures = [pool.submit(order(Obedient.SLEEP_MS, 200)) for _ in range(6)]
        futures.append(pool.submit(order(Obedient.RAISE, 1)))
        futures[4].cancel()
        with pytest.raises(TaskTimeout):
            pool.submit(order(Obedient.SLEEP_MS, 5000), timeout=0.4).result(20)
        dying = pool.submit(order(Obedient.KILL_SELF))
        for task in pool.ordered(iter([order(Obedient.ECHO)] * 20), make):
            if task.index == 4:
                break
        dying.exception(30)
        wait_until(lambda: pool.counts()["outstanding"] == 0)
        counts = pool.counts()
        assert counts["accepted"] == sum(counts[name] for name in ("done", "failed", "cancelled", "timed_out", "refused"))
        assert counts["timed_out"] == 1
        assert counts["failed"] == 2
        assert counts["cancelled"] >= 1


def test_a_light_device_gets_less() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(weights={0: 0.1}, tasks_in_flight=1)) as pool:
        pool.start()
        for _ in range(10):
            pool.run(Task(order(Obedient.SLEEP_MS, 20), device=0))
            pool.run(Task(order(Obedient.SLEEP_MS, 20), device=1))
        tasks = [pool.run(Task(order(Obedient.SLEEP_MS, 20))) for _ in range(20)]
        assert sum(on(task) == 0 for task in tasks) < 10
    with pytest.raises(ConfigError, match="weights"):
        PoolSettings(weights={0: 0})


def test_the_library_face_needs_no_tasks() -> None:
    with DevicePool(Obedient, [0, 1]) as pool:
        assert [int(outputs[0][1]) for outputs in pool.map(order(0, n) for n in range(50))] == list(range(50))
        assert sorted(int(outputs[0][1]) for outputs in pool.map([order(0, n) for n in range(9)], ordered=False)) == list(
            range(9)
        )
        assert pool.submit(order(Obedient.WHO), device=1).result(20)[0][1] == 1


# ---- streams ----


def test_a_live_source_gets_each_result_when_it_is_done() -> None:
    def camera(between: float) -> Any:
        for n in range(30):
            time.sleep(between)
            yield order(Obedient.ECHO, n)
            drawn.append(n)

    def ahead(between: float) -> list[int]:
        drawn.clear()
        return [len(drawn) - n for n, _ in enumerate(pool.map(camera(between)))]

    drawn: list[int] = []
    with DevicePool(Obedient, [0, 1]) as pool:
        assert len(list(pool.map([order(Obedient.ECHO, n) for n in range(500)]))) == 500  # whatever was before
        # Mostly a result comes before the next item is drawn, if it takes less than a part of the time between two items. On a
        # busy machine it may take longer.
        assert any(sorted(ahead(between))[15] == 0 for between in (0.02, 0.05, 0.1, 0.2, 0.5))


def test_what_is_ready_is_yielded_while_a_slow_source_has_more() -> None:
    gate = threading.Event()

    def items() -> Any:
        for n in itertools.count():
            if n > 1:
                time.sleep(0.005)  # slow
            if gate.is_set():
                return
            assert n < 4000, "it waits for the end of the source"
            yield order(Obedient.ECHO, n)

    with DevicePool(Obedient, [0, 1]) as pool:
        pool.start()
        results = pool.map(items())
        seen = [int(next(results)[0][1]) for _ in range(2)]  # while the source still has more
        gate.set()
        seen += [int(outputs[0][1]) for outputs in results]
        assert seen == list(range(len(seen)))


def test_read_ahead_stays_within_the_bytes_of_the_window() -> None:
    drawn = 0

    def items() -> Any:
        nonlocal drawn
        for _ in range(30):
            drawn += 1
            yield [np.array([Obedient.SLEEP_MS, 5], np.int64), np.zeros(1 << 20, np.uint8)]

    with DevicePool(Obedient, [0, 1], PoolSettings(window=3 << 20, tasks_in_flight=8)) as pool:
        for done, _ in enumerate(pool.map(items()), 1):
            assert drawn - done <= 3
        assert drawn == 30


def test_a_window_of_items_bounds_what_is_behind_a_straggler() -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for n in range(300):
            taken += 1
            yield order(Obedient.SLEEP_MS, 400 if n == 0 else 0)

    with DevicePool(Obedient, [0, 1], PoolSettings(window_items=50)) as pool:
        results = pool.map(items())
        next(results)
        assert taken <= 50
        assert len(list(results)) == 299


# ---- random decisions ----

RANDOM = """
import itertools, sys, threading
import numpy as np
from ais_bench.pool import DevicePool, PoolSettings, Task
from support.handlers import Marking, Obedient, order

with DevicePool(Marking(sys.argv[1]), [0, 1, 2], PoolSettings(max_attempts=3)) as pool:
    def callers():
        for n in range(60):
            assert pool.run(Task(order(Obedient.ECHO, n))).result()[0][1] == n
    threads = [threading.Thread(target=callers) for _ in range(3)]
    for thread in threads: thread.start()
    items = [order(Obedient.ONCE if n in (50, 90) else Obedient.ECHO, n) for n in range(400)]
    assert [int(outputs[0][1]) for outputs in pool.map(items)] == list(range(400))
    futures = [pool.submit(order(Obedient.ECHO, n)) for n in range(100)]
    for future in futures[::7]: future.cancel()
    assert [int(future.result(30)[0][1]) for n, future in enumerate(futures) if n % 7] == [n for n in range(100) if n % 7]
    for thread in threads: thread.join()
    exchange = pool._core.exchange
    assert exchange.check() == "", exchange.check()
    counts = pool.counts()
    assert counts["accepted"] == counts["done"] + counts["cancelled"], counts
print("right")
"""


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_answers_do_not_depend_on_who_runs_what(tmp_path: Path, seed: str) -> None:
    done = run_python("-c", f"import os; os.environ['AIS_BENCH_POOL_RANDOM'] = {seed!r}\n" + RANDOM, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def slow_once(count: int, at: int) -> list[list[Any]]:
    """Return orders, one of which stops its worker at the first attempt."""
    return [order(Obedient.STOP_ONCE if n == at else Obedient.SLEEP_MS, 5) for n in range(count)]


@by_policy
def test_with_hedge_a_stream_goes_on_past_a_task_that_stands_still(tmp_path: Path) -> None:
    with DevicePool(Marking(str(tmp_path)), [0, 1, 2], PoolSettings(hedge=2.0, close_timeout=5)) as pool:
        pool.start()
        for device in range(3):  # makes the devices' times known
            pool.submit(order(Obedient.SLEEP_MS, 5), device=device).result(20)
        tasks = list(pool.ordered(iter(slow_once(60, 20)), make))
        assert [task.index for task in tasks] == list(range(60))
        assert all(task.error is None for task in tasks)
        counts = pool.counts()
        assert counts["hedged"] >= 1
        assert counts["hedges_won"] >= 1
        assert counts["done"] == counts["accepted"] == 63
        assert executed(pool) == 63  # each answer is one device's, once
        stopped = {worker.pid for worker in pool.workers()} & {
            int(mark.name.split("-")[1]) for mark in tmp_path.glob("stopped-*")
        }
        for pid in stopped:
            os.kill(pid or 0, signal.SIGCONT)
        exchange = pool._core.exchange
        wait_until(lambda: exchange.progress() >= 0 and exchange.at_rest)
        assert exchange.check() == ""
        assert pool.counts()["done"] == 63  # the late answer was dropped
        assert executed(pool) == 63


def test_with_hedge_a_stream_may_be_left_while_a_task_runs_twice(tmp_path: Path) -> None:
    with DevicePool(Marking(str(tmp_path)), [0, 1], PoolSettings(hedge=1.0, close_timeout=5)) as pool:
        for device in range(2):
            pool.submit(order(Obedient.SLEEP_MS, 5), device=device).result(20)
        for _ in range(5):  # both runs take as long
            items = iter(
                [order(Obedient.SLEEP_MS, 5)] * 4 + [order(Obedient.SLEEP_MS, 300)] + [order(Obedient.SLEEP_MS, 5)] * 4
            )
            stream = pool.ordered(items, make)
            for _ in range(4):
                next(stream)
            stream.close()
        for task in pool.ordered([order(Obedient.SLEEP_MS, 5)] * 4 + [order(Obedient.SLEEP_MS, 300)], make):
            assert task.error is None
        counts = pool.counts()
        exchange = pool._core.exchange
        wait_until(lambda: exchange.progress() >= 0 and exchange.at_rest)
        assert exchange.check() == ""
        assert counts["accepted"] == sum(counts[name] for name in ("done", "cancelled"))


@by_policy
def test_with_hedge_the_death_of_the_second_worker_costs_nothing() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(hedge=1.0, restart_backoff=0)) as pool:
        for device in range(2):
            pool.submit(order(Obedient.SLEEP_MS, 5), device=device).result(20)

        made: list[Task] = []

        def remember(item: Any, index: int) -> Task:
            made.append(Task(item, index=index))
            return made[-1]

        def kill_the_second() -> None:
            # The last task is the only one left, and runs twice. On a busy machine an earlier one may have been run twice, too.
            wait_until(lambda: pool.counts()["done"] == 8 and pool.counts()["hedged"] and all(r.in_hand for r in readies))
            won.append(pool.counts()["hedges_won"])
            (pid,) = (seat.pid for seat in pool._core.supervisor.seats if seat.device.id != made[-1].at_device)
            os.kill(pid or 0, signal.SIGKILL)
            killed.append(pid)

        killed: list[int | None] = []
        won: list[int] = []
        readies = [seat.worker.ready for seat in pool._core.supervisor.seats]  # type: ignore[union-attr]
        items = [order(Obedient.SLEEP_MS, 5)] * 6 + [order(Obedient.SLEEP_MS, 3000)]  # known to be quick, mostly
        killer = threading.Thread(target=kill_the_second)
        killer.start()
        tasks = list(pool.ordered(items, remember))
        killer.join(20)
        assert len(killed) == 1
        assert [task.error for task in tasks] == [None] * 7
        assert pool.counts()["done"] == 9
        assert [pool.counts()["hedges_won"]] == won


def test_hedge_must_be_a_number_of_at_least_one() -> None:
    for wrong in (0, 0.5, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="hedge must be at least 1"):
            PoolSettings(hedge=wrong)
    for kind in (True, "2"):
        with pytest.raises(TypeError, match="hedge must be a number"):
            PoolSettings(hedge=kind)  # type: ignore[arg-type]
