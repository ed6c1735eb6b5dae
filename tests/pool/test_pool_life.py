"""The end of a pool: close in every situation, forks, and every kind of death of the parent."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

from ais_bench.errors import PoolClosed, PoolError, SessionClosed
from ais_bench.pool import DevicePool, PoolSettings
from ais_bench.pool.pool_core import PoolCore
from support.handlers import Marking, Obedient
from support.pool import one, submit
from support.scripts import environment
from support.waiting import gone, wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# ---- close ----


def test_close_lets_accepted_work_finish(tmp_path: Path) -> None:
    pool = DevicePool(Marking(str(tmp_path)), [0, 1])
    futures = [submit(pool, Obedient.SLEEP_MS, 30) for _ in range(10)]
    pool.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert len(list(tmp_path.glob("closed-*"))) == 2  # the handlers were closed in order


def test_forced_close_does_not_wait() -> None:
    pool = DevicePool(Obedient, [0, 1])
    pool.start()
    futures = [submit(pool, Obedient.HANG) for _ in range(4)]
    began = time.monotonic()
    pool.close(force=True)
    assert time.monotonic() - began < 20  # not close_timeout
    for future in futures:
        with pytest.raises(PoolError):
            future.result(0)


def test_close_gives_up_on_hanging_tasks_after_its_timeout() -> None:
    pool = DevicePool(Obedient, [0], PoolSettings(close_timeout=0.3))
    future = submit(pool, Obedient.HANG)
    pool.close()
    with pytest.raises(PoolError):
        future.result(0)


def test_leaving_the_block_by_an_exception_ends_at_once() -> None:
    began = time.monotonic()

    def use() -> None:
        with DevicePool(Obedient, [0]) as pool:
            pool.start()
            submit(pool, Obedient.HANG)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert time.monotonic() - began < 20  # not close_timeout


def test_close_while_others_use_it_gives_typed_errors() -> None:
    for _ in range(5):
        pool = DevicePool(Obedient, [0, 1])
        pool.start()
        seen: list[BaseException] = []
        rounds = [0]

        def use(pool: DevicePool = pool, seen: list[BaseException] = seen, rounds: list[int] = rounds) -> None:
            try:
                while True:
                    assert one(pool, 0, 3)[0][1] == 3
                    rounds[0] += 1
            except PoolClosed as closed:
                seen.append(closed)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda rounds=rounds: rounds[0] > 20)
        began = time.monotonic()
        pool.close()
        assert time.monotonic() - began < 20  # less than close_timeout, because the tasks in hand finish at once
        for thread in threads:
            thread.join(20)
        assert [type(error) for error in seen] == [PoolClosed] * 4


def test_close_while_workers_load() -> None:
    pool = DevicePool(Obedient, [0, 1])
    errors: list[BaseException] = []

    def start() -> None:
        try:
            pool.start()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: any(worker.state in ("loading", "ready") for worker in pool.workers()))
    pool.close()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in errors] in ([], [PoolClosed])


def test_close_from_a_callback() -> None:
    for _ in range(3):
        pool = DevicePool(Obedient, [0])
        pool.start()
        closed = threading.Event()
        others = [submit(pool, Obedient.SLEEP_MS, 5) for _ in range(5)]
        submit(pool, 0, 1).add_done_callback(lambda _future, pool=pool, closed=closed: (pool.close(), closed.set()))
        assert closed.wait(20)
        assert all(future.result(10) for future in others)


def test_concurrent_submits_and_cancels_never_deadlock() -> None:
    with DevicePool(Obedient, [0, 1]) as pool:
        pool.start()
        outcomes: list[int] = []

        def work(seed: int) -> None:
            done = 0
            for n in range(625):  # 16 threads: 10,000 rounds
                future = submit(pool, 0, n)
                if (n + seed) % 3 == 0 and future.cancel():
                    with pytest.raises(CancelledError):
                        future.result(30)
                else:
                    assert future.result(30)[0][1] == n
                done += 1
            outcomes.append(done)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert outcomes == [625] * 16


def test_a_pool_that_is_dropped_ends_by_itself() -> None:
    pool = DevicePool(Obedient, [0])
    pool.start()
    pid = pool.workers()[0].pid
    future = submit(pool, Obedient.SLEEP_MS, 100)
    del pool
    gc.collect()
    assert future.result(20)  # what was accepted is finished
    wait_until(lambda: gone(pid or 0))


def test_an_idle_pool_of_eight_workers_uses_next_to_nothing() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(workers_per_device=4)) as pool:
        pool.start()
        one(pool, 0, 1)
        processes = [psutil.Process(worker.pid) for worker in pool.workers()]
        used = []
        for _ in range(5):  # on a busy machine a worker may finish its start after it was ready
            before = sum(sum(process.cpu_times()[:2]) for process in processes)
            time.sleep(2.0)  # the time that is measured
            used.append(sum(sum(process.cpu_times()[:2]) for process in processes) - before)
            if used[-1] <= 0.02:  # two ticks of the clock that cpu_times counts in
                break
        assert min(used) <= 0.02, used


# ---- fork ----


def test_a_forked_child_neither_uses_nor_ends_the_pool() -> None:
    with DevicePool(Obedient, [0]) as pool:
        pool.start()
        pid = pool.workers()[0].pid
        child = os.fork()
        if child == 0:
            code = 1
            try:
                one(pool, 0, 1)
            except SessionClosed:
                pool.close()
                code = 7
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert one(pool, 0, 6)[0][1] == 6
        assert pool.workers()[0].pid == pid


def test_a_child_that_outlives_the_parent_does_not_keep_the_workers_alive() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", parent("os.fork() or sys.stdin.read(); os._exit(0)", LONG_MS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:  # the child lives until its input ends
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.wait(20)
        wait_until(lambda: all(gone(pid) for pid in pids), what="the workers to end")


# ---- the parent dies ----

PARENT = """
import os, signal, sys, threading, time
from ais_bench.pool import DevicePool, Task
from support.handlers import Obedient, Unwilling, order
pool = DevicePool(Obedient, [0, 1])
pool.start()
futures = [pool.submit(Task(order(Obedient.SLEEP_MS, TASK_MS))) for _ in range(40)]
print(*[worker.pid for worker in pool.workers()], flush=True)
HOW
"""
WAYS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "exception": "raise ValueError('the end')",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(4)",
    "falls off the end": "",
    "falls off the end with its reference dropped": "del pool",
    "sys.exit in a with block": "\nwith pool: sys.exit(3)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "replaced by exec": "os.execv('/bin/true', ['true'])",
}
# A parent that ends in these ways finishes nothing, so its workers must end in the middle of a long task.
ABRUPT = ("killed", "os._exit", "sys.exit in a with block", "SIGTERM", "replaced by exec")
LONG_MS = 300_000


def parent(how: str, task_ms: int) -> str:
    return PARENT.replace("HOW", how).replace("TASK_MS", str(task_ms))


@pytest.mark.parametrize("way", WAYS)
def test_no_worker_survives_its_parent(way: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", parent(WAYS[way], LONG_MS if way in ABRUPT else 50)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    _output, errors = process.communicate(timeout=60)
    wait_until(lambda: all(gone(pid) for pid in pids), what="the workers to end")
    if way != "exception":
        assert "Traceback" not in errors, errors
    else:
        assert errors.count("Traceback") == 1, errors


INTERRUPTED = """
import os, sys, time
from ais_bench.pool import DevicePool, Task
from support.handlers import Obedient, Unwilling, order
try:
    with DevicePool(FACTORY, [0, 1]) as pool:
        print("here", flush=True)
        USE
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
USES = {
    "load": ("Unwilling((0, 1), 'hang')", "pool.start()"),
    "run": ("Obedient", "pool.run(Task(order(Obedient.HANG)))"),
    "gather": (
        "Obedient",
        "[t for t in pool.ordered(range(10**9), lambda n, i: Task(order(Obedient.SLEEP_MS, 1)))]",
    ),
    "future": ("Obedient", "pool.submit(Task(order(Obedient.HANG))).result()"),
    "idle": ("Obedient", "pool.start(); time.sleep(60)"),
}


@pytest.mark.parametrize("use", USES)
def test_ctrl_c_ends_promptly_and_leaves_nothing(use: str) -> None:
    factory, statement = USES[use]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("FACTORY", factory).replace("USE", statement)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    children = wait_until(lambda: c if len(c := psutil.Process(process.pid).children()) == 2 else None)
    if use != "load":
        wait_until(lambda: all(len(child.threads()) >= 2 for child in children))
    time.sleep(0.3)  # in the middle of its work
    os.killpg(process.pid, signal.SIGINT)  # like a terminal
    output, errors = process.communicate(timeout=25)  # not close_timeout
    assert output == "interrupted\n"
    assert "Traceback" not in errors, errors
    wait_until(lambda: all(gone(child.pid) for child in children), what="the workers to end")


def test_threads_that_start_a_pool_at_once_all_find_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    add, errors, others = PoolCore.add, [], []

    def start(pool: DevicePool) -> None:
        try:
            pool.start()
        except Exception as error:
            errors.append(error)

    def add_while_another_starts(core: PoolCore, device: int) -> None:
        add(core, device)
        if not others:  # between the first device and the second
            others.append(threading.Thread(target=start, args=(pool,)))
            others[0].start()
            others[0].join(0.2)  # as long as it may not look, it does not end

    monkeypatch.setattr(PoolCore, "add", add_while_another_starts)
    with DevicePool(Obedient, [0, 1], PoolSettings()) as pool:
        pool.start()
        others[0].join(30)
        assert not errors
        assert one(pool, 0, 5)[0][1] == 5
