"""Workers that die, hang, stop and refuse. Every test first proves that the fault occurred."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from ais_bench.errors import PoolBroken, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.pool import DevicePool, PoolSettings, Task, seats
from ais_bench.pool.cores import CoreShare
from ais_bench.pool.seats import DeviceRecord, Seat, SeatState
from ais_bench.tuning import TASK_DEATHS_IN_A_ROW
from support.handlers import Marking, Obedient, Unwilling, order
from support.pool import one, submit
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")
PATIENT = PoolSettings(max_restarts=1000, restart_backoff=0, task_timeout=30)


def restarts(pool: DevicePool) -> int:
    return sum(info.restarts for info in pool.device_infos())


@pytest.fixture
def pool() -> Iterator[DevicePool]:
    with DevicePool(Obedient, [0, 1], PATIENT) as made:
        made.start()
        yield made


@pytest.mark.parametrize(
    ("what", "argument", "ended"),
    [
        (Obedient.KILL_SELF, 0, {"signal": signal.SIGKILL, "exit_code": None}),
        (Obedient.SEGFAULT, 0, {"signal": signal.SIGSEGV, "exit_code": None}),
        (Obedient.EXIT, 3, {"signal": None, "exit_code": 3}),
        (Obedient.EXIT, 0, {"signal": None, "exit_code": 0}),
    ],
)
def test_a_task_that_kills_two_workers_is_named(pool: DevicePool, what: int, argument: int, ended: dict[str, Any]) -> None:
    before = {worker.pid for worker in pool.workers()}
    with pytest.raises(WorkerDied) as caught:
        pool.run(Task(order(what, argument), index=17)).result()
    error = caught.value
    assert {"signal": error.signal, "exit_code": error.exit_code} == ended
    assert (error.index, error.device_id in (0, 1), error.pid is not None) == (17, True, True)
    assert "index 17" in str(error)
    assert f"pid {error.pid}" in str(error)
    wait_until(lambda: restarts(pool) == 2 and all(worker.state == "ready" for worker in pool.workers()))
    assert not before & {worker.pid for worker in pool.workers()}
    assert one(pool, 0, 5)[0][1] == 5


@pytest.mark.parametrize("devices", [[0], [0, 1]])
def test_tasks_that_kill_workers_in_turn_do_not_cost_the_devices(devices: list[int]) -> None:
    settings = PoolSettings(max_restarts=3, restart_backoff=0)
    with DevicePool(Obedient, devices, settings) as pool:
        what = [0] * 3 + [Obedient.KILL_SELF] * 6 + [0] * 3
        tasks = list(pool.ordered(what, lambda item, index: Task(order(item, 1), index=index)))
        assert [type(task.error) for task in tasks] == [WorkerDied if item else type(None) for item in what]
        assert [task.error.index for task in tasks if isinstance(task.error, WorkerDied)] == list(range(3, 9))
        assert restarts(pool) >= 2 * 6 - 2  # the last restart of each may not have ended


def test_futures_past_their_time_do_not_cost_the_device() -> None:
    with DevicePool(Obedient, [0], PoolSettings(max_restarts=1, restart_backoff=0)) as pool:
        for count in range(1, 4):
            with pytest.raises(TaskTimeout):
                submit(pool, Obedient.HANG, timeout=1.0).result(20)  # time enough for the worker to begin it
            wait_until(lambda count=count: restarts(pool) == count and pool.workers()[0].state == "ready")
        assert one(pool, 0, 5)[0][1] == 5


@pytest.mark.parametrize("devices", [[0], [0, 1]])
def test_devices_on_which_every_task_dies_are_quarantined_in_the_end(
    devices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "TASK_DEATHS_IN_A_ROW", 3)
    with DevicePool(Obedient, devices, PoolSettings(max_restarts=3, restart_backoff=0)) as pool:
        with pytest.raises(PoolBroken, match="SIGKILL"):
            list(pool.ordered([Obedient.KILL_SELF] * 40, lambda item, index: Task(order(item))))
        assert {worker.state for worker in pool.workers()} == {"quarantined"}
        assert restarts(pool) >= 2 * 3  # after many deaths


def test_a_device_on_which_every_task_kills_its_worker_is_quarantined() -> None:
    seat = Seat(DeviceRecord(0), CoreShare((), 1))
    settings = PoolSettings(max_restarts=2)
    rounds = 0
    while seat.state is not SeatState.QUARANTINED:
        seat.after_death(settings, 0.0, PoolBroken("died"), answered=0, final=False, blamed_on_task=True)
        rounds += 1
    assert rounds == TASK_DEATHS_IN_A_ROW + settings.max_restarts + 1


def test_the_last_lines_of_a_worker_are_in_the_error(pool: DevicePool) -> None:
    with pytest.raises(WorkerDied, match="Segmentation fault"):
        one(pool, Obedient.SEGFAULT)


def test_a_task_whose_worker_is_killed_runs_elsewhere(tmp_path: Path) -> None:
    with DevicePool(Marking(str(tmp_path)), [0, 1], PATIENT) as pool:
        assert one(pool, Obedient.ONCE, 44)[0][1] == 44
        assert (tmp_path / "once-44").exists()  # so a worker died of it
        wait_until(lambda: restarts(pool) == 1)
        assert sum(info.retries for info in pool.device_infos()) == 1


def test_only_the_task_that_a_worker_was_at_is_blamed(tmp_path: Path) -> None:
    settings = PoolSettings(max_restarts=1000, restart_backoff=0, tasks_in_flight=8)
    with DevicePool(Marking(str(tmp_path)), [0], settings) as pool:
        pool.start()
        busy = submit(pool, Obedient.SLEEP_MS, 100)
        poison = submit(pool, Obedient.KILL_SELF)
        behind = [submit(pool, 0, n) for n in range(20)]
        assert busy.result(20)
        with pytest.raises(WorkerDied):
            poison.result(20)
        assert [int(future.result(20)[0][1]) for future in behind] == list(range(20))


def test_a_task_with_a_crash_runs_alone_so_that_no_other_task_is_blamed(pool: DevicePool) -> None:
    futures = [submit(pool, Obedient.KILL_SELF if n % 25 == 10 else 0, n) for n in range(200)]
    wait(futures, timeout=60)
    blamed = [n for n, future in enumerate(futures) if future.exception() is not None]
    assert blamed == [n for n in range(200) if n % 25 == 10]


def test_a_task_past_its_deadline_has_its_worker_killed(caplog: pytest.LogCaptureFixture) -> None:
    settings = PoolSettings(task_timeout=1.0, max_restarts=100, restart_backoff=0)
    with DevicePool(Obedient, [0, 1], settings) as pool:
        pool.start()
        before = {worker.pid for worker in pool.workers()}
        with pytest.raises(TaskTimeout, match=r"task_timeout allows 1 s \(feeds with index 3, device [01]\)") as caught:
            pool.run(Task(order(Obedient.HANG), index=3)).result()
        assert caught.value.device_id in (0, 1)
        wait_until(lambda: restarts(pool) == 2)  # it was tried on two workers
        killed = re.findall(r"SIGKILL, because the task took (\S+) s, and task_timeout allows 1 s .*it is started", caplog.text)
        assert len(killed) == 2
        assert all(1 <= float(took) < 60 for took in killed)
        assert one(pool, 0, 1)
        wait_until(lambda: all(worker.state == "ready" for worker in pool.workers()))
        assert not before & {worker.pid for worker in pool.workers()}


def test_waiting_behind_slow_tasks_does_not_count_against_the_deadline() -> None:
    with DevicePool(Obedient, [0], PoolSettings(task_timeout=4.0, tasks_in_flight=8)) as pool:
        pool.start()
        futures = [submit(pool, Obedient.SLEEP_MS, 550) for _ in range(8)]  # 4.4 s for the last of them
        assert all(future.result(20) for future in futures)
        assert restarts(pool) == 0


def test_a_stopped_worker_is_found_by_the_deadline() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(task_timeout=1.0, max_attempts=5)) as pool:
        pool.start()
        victim = pool.workers()[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(victim).status() == psutil.STATUS_STOPPED)
        # One task is for this device. The others need not go to a worker on the caller's processor.
        futures = [submit(pool, 0, n, device=0 if n == 0 else None) for n in range(20)]
        assert [int(future.result(20)[0][1]) for future in futures] == list(range(20))
        wait_until(lambda: pool.workers()[0].pid not in (victim, None))


def test_a_lost_device_counts_as_a_death(pool: DevicePool) -> None:
    before = {worker.pid for worker in pool.workers()}
    with pytest.raises(WorkerDied, match="the driver gave up on device"):
        one(pool, Obedient.LOSE_DEVICE)
    wait_until(lambda: restarts(pool) == 2 and all(worker.state == "ready" for worker in pool.workers()))
    assert not before & {worker.pid for worker in pool.workers()}


def test_an_idle_worker_that_dies_is_replaced(pool: DevicePool) -> None:
    victim = pool.workers()[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: pool.workers()[1].state == "ready" and pool.workers()[1].pid != victim)
    assert one(pool, 0, 1, device=1)[0][1] == 1


def test_a_device_that_fails_everything_is_quarantined_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    settings = PoolSettings(max_restarts=1, restart_backoff=0, max_attempts=1, retry_device_after=4.0)
    with DevicePool(Obedient, [0, 1], settings) as pool:
        pool.start()
        for _ in range(3):
            with pytest.raises((WorkerDied, PoolBroken)):
                one(pool, Obedient.KILL_SELF, device=1)
            if any(worker.state == "quarantined" for worker in pool.workers()):
                break
        assert [worker.state for worker in pool.workers()] == ["ready", "quarantined"]
        wait_until(lambda: any("device 1 is quarantined" in record.getMessage() for record in caplog.records))
        with pytest.raises(PoolBroken, match="device 1") as caught:
            one(pool, 0, 1, device=1)
        assert isinstance(caught.value.__cause__, WorkerDied)
        assert [int(one(pool, 0, n)[0][1]) for n in range(50)] == list(range(50))
        wait_until(lambda: pool.workers()[1].state == "ready")
        assert one(pool, 0, 2, device=1)[0][1] == 2


def test_with_all_devices_beyond_their_restarts_the_pool_is_broken_and_says_why() -> None:
    settings = PoolSettings(max_restarts=1, restart_backoff=0, max_attempts=100)
    with DevicePool(Obedient, [0, 1], settings) as pool:
        pool.start()
        others = [submit(pool, Obedient.SLEEP_MS, 1) for _ in range(3)]
        with pytest.raises(PoolBroken, match="SIGKILL") as caught:
            one(pool, Obedient.KILL_SELF)
        assert isinstance(caught.value.__cause__, WorkerDied)
        wait(others, timeout=10)
        with pytest.raises(PoolBroken):
            one(pool, 0, 1)


# ---- starts ----


def test_all_workers_that_refuse_are_one_error_with_the_reason() -> None:
    began = time.monotonic()
    pool = DevicePool(Unwilling((0, 1)), [0, 1])
    with pytest.raises(WorkerStartError, match="no device") as caught:
        pool.start()
    assert caught.value.device_id in (0, 1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert time.monotonic() - began < 20  # not start_timeout


def test_one_device_that_refuses_is_named() -> None:
    with pytest.raises(WorkerStartError, match="device 1") as caught:
        DevicePool(Unwilling((1,)), [0, 1, 2]).start()
    assert caught.value.device_id == 1


def test_the_others_go_on_if_min_devices_allows() -> None:
    with DevicePool(Unwilling((1,)), [0, 1], PoolSettings(min_devices=1)) as pool:
        assert one(pool, Obedient.WHO)[0][1] == 0
        assert [worker.state for worker in pool.workers()] == ["ready", "quarantined"]
        with pytest.raises(PoolBroken, match="no device 1"):
            one(pool, 0, 1, device=1)


def test_a_worker_that_exits_while_it_starts_shows_its_last_lines() -> None:
    settings = PoolSettings(max_restarts=1, restart_backoff=0)
    with pytest.raises(WorkerStartError, match=r"exited with code 3 while it started.*\n *leaving already"):
        DevicePool(Unwilling((0,), "exit"), [0], settings).start()


def test_a_worker_that_does_not_get_ready_in_time_is_killed() -> None:
    settings = PoolSettings(start_timeout=1.0, max_restarts=0)
    with pytest.raises(WorkerStartError, match=r"start_timeout \(1 s\)"):
        DevicePool(Unwilling((0,), "hang"), [0], settings).start()


# ---- every item is answered once ----


class Tormentor(threading.Thread):
    """Kills and stops random workers until told to stop, and counts them."""

    def __init__(self, pool: DevicePool, seed: int) -> None:
        super().__init__(name="tormentor", daemon=True)
        self.pool, self.random, self.over, self.done = pool, random.Random(seed), threading.Event(), {"kill": 0, "stop": 0}

    def run(self) -> None:
        while not self.over.wait(self.random.uniform(0.02, 0.15)):
            ready = [worker.pid for worker in self.pool.workers() if worker.state == "ready" and worker.pid]
            if not ready:
                continue
            what = "stop" if self.random.random() < 0.2 else "kill"
            try:
                os.kill(self.random.choice(ready), signal.SIGSTOP if what == "stop" else signal.SIGKILL)
                self.done[what] += 1
            except ProcessLookupError:
                continue


def test_the_ledger_balances_under_random_deaths() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    count, chance = 10_000, random.Random(seed)
    poison = {n: chance.choice([Obedient.KILL_SELF, Obedient.SEGFAULT, Obedient.HANG]) for n in chance.sample(range(count), 6)}
    settings = PoolSettings(max_attempts=4, max_restarts=10_000, restart_backoff=0, task_timeout=0.4, tasks_in_flight=16)
    with DevicePool(Obedient, [0, 1], settings) as pool:
        pool.start()
        tormentor = Tormentor(pool, seed)
        tormentor.start()
        tasks = pool.ordered(range(count), lambda n, index: Task(order(poison.get(n, 0), n, n * n), index=index))
        delivered, failed = [], []
        for task in tasks:
            if task.error is None:
                delivered.append(tuple(int(value) for value in task.result()[0][1:]))
            else:
                failed.append((task.index, type(task.error)))
        tormentor.over.set()
        tormentor.join()
        assert tormentor.done["kill"] >= 3, tormentor.done
        assert restarts(pool) > tormentor.done["kill"] // 2
    assert [index for index, _kind in failed] == sorted(poison)
    assert {kind for _index, kind in failed} <= {WorkerDied, TaskTimeout}
    assert delivered == [(n, n * n) for n in range(count) if n not in poison]


def test_a_task_is_not_blamed_for_workers_that_died_before_they_took_it() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(max_restarts=1000, restart_backoff=0)) as pool:
        pool.start()
        for number in range(10):
            before = [worker.pid for worker in pool.workers()]
            for pid in before:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            task = pool.run(Task(order(Obedient.ECHO, number)))
            assert task.result()[0].ravel()[1] == number
            wait_until(lambda old=before: all(worker.state == "ready" and worker.pid not in old for worker in pool.workers()))
