"""Threads that wait for results of the same pool: one of them collects for all, and hands this over."""

from __future__ import annotations

from typing import Any

import pytest

from support.scripts import run_python

SCRIPT = """
import faulthandler, sys, threading, time
from ais_bench.pool import DevicePool, PoolSettings, Task
from support.handlers import Obedient, order

faulthandler.dump_traceback_later(40, exit=True)
pool = DevicePool(Obedient, [0, 1, 2], PoolSettings(close_timeout=5))
pool.start()
went_on = []

def run(milliseconds):
    pool.run(Task(order(Obedient.SLEEP_MS, milliseconds)))

def run_all(milliseconds):
    pool.run_all([Task(order(Obedient.SLEEP_MS, milliseconds))])

def stream(milliseconds):
    list(pool.ordered([milliseconds], lambda item, index: Task(order(Obedient.SLEEP_MS, item))))

def streams_out_of_order(milliseconds):
    list(pool.unordered([milliseconds], lambda item, index: Task(order(Obedient.SLEEP_MS, item))))

def lead():
    run(600)
    # No other thread may run until the woken thread has its answer.
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        pass
    went_on.append("leader")

def wait_then(wait, milliseconds, name):
    wait(milliseconds)
    went_on.append(name)

def start(number, function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    until = time.monotonic() + 30
    while pool.counts()["outstanding"] < number:
        assert time.monotonic() < until
        time.sleep(0.001)
    return thread

sys.setswitchinterval(10)
threads = [start(1, lead), start(2, wait_then, globals()[sys.argv[2]], 900, "next"),
           start(3, wait_then, globals()[sys.argv[1]], 2000, "last")]
for thread in threads:
    thread.join()
print(*went_on)
pool.close()
"""
WAYS = ["run", "run_all", "stream", "streams_out_of_order"]


@pytest.mark.parametrize("next_one", WAYS)
@pytest.mark.parametrize("last", ["run", pytest.param("stream", marks=pytest.mark.long)])
def test_one_that_is_woken_to_collect_and_finds_its_own_answer_passes_that_on(last: str, next_one: str) -> None:
    done: Any = run_python("-c", SCRIPT, last, next_one)
    # No thread waits forever. On a busy machine the leader may also collect the next one's answer, which then goes on first.
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(done.stdout.split()) == ["last", "leader", "next"]
