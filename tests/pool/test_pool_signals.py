"""Signal handlers that use the pool that they interrupt."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scripts import run_python

SCRIPT = """
import faulthandler, signal, sys, threading, time
import numpy as np
from ais_bench.errors import PoolClosed, PoolError
from ais_bench.pool import DevicePool, PoolSettings, Task
from support.handlers import Marking, Obedient, order

marks, close_timeout = Marking(sys.argv[1]), float(sys.argv[2])
pool = DevicePool(marks, [0, 1], PoolSettings(close_timeout=close_timeout))
pool.start()
seen = []

def handler(_number, _frame):
    seen.append(pool.counts()["outstanding"])
    try:
        pool.run(Task(order(Obedient.ECHO)))
        print("ran")
    except PoolError as error:
        print(error)
    marks.go()
    began = time.monotonic()
    pool.close()
    print("closed in time" if time.monotonic() - began < close_timeout else "close took long")

def signal_with(outstanding):
    # Sends the signal when this many tasks are in progress. The main thread sleeps by then; if not, it gets the signal sooner.
    while pool.counts()["outstanding"] < outstanding:
        time.sleep(0.001)
    time.sleep(0.2)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

signal.signal(signal.SIGALRM, handler)
"""
SENDING = """
class Feed:
    # An array-like object, whose code runs while its task is sent.
    def __dlpack_device__(self):
        return 1, 0
    def __dlpack__(self, **_options):
        if not seen:
            signal.raise_signal(signal.SIGALRM)
            time.sleep(0)  # the handler has run by now
        return np.array([Obedient.ECHO, 7], np.int64).__dlpack__()

try:
    print(pool.run(Task([Feed()])).result()[0][1])
except PoolError as error:
    print(type(error).__name__)
assert len(seen) == 1, seen
"""
WAITING = """
threading.Thread(target=signal_with, args=(1,)).start()
try:
    pool.run(Task(order(Obedient.WAIT)))
    print("finished")
except PoolClosed:
    print("closed")
assert seen == [1], seen
"""
STREAMING = """
count = 0
try:
    for _ in pool.ordered(range(10**9), lambda n, i: Task(order(Obedient.ECHO))):
        count += 1
        if count == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
except PoolClosed:
    print("closed")
assert count > 0 and len(seen) == 1, (count, seen)
"""
AFTER = """
try:
    pool.run(Task(order(Obedient.ECHO)))
except PoolClosed:
    print("the pool is closed")
"""


def output_of(statements: str, marks: Path, close_timeout: float = 25) -> list[str]:
    done = run_python("-c", SCRIPT + statements + AFTER, str(marks), str(close_timeout))
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_while_a_task_is_sent_a_handler_may_run_another_and_close(tmp_path: Path) -> None:
    lines = output_of(SENDING, tmp_path, 2.5)
    assert lines[0] == "ran"
    assert lines[1].startswith("close")  # it waits for the task that it interrupted, for close_timeout at most
    assert lines[-1] == "the pool is closed"


def test_while_its_thread_waits_a_handler_may_run_a_task_and_close(tmp_path: Path) -> None:
    lines = output_of(WAITING, tmp_path)
    assert lines == ["ran", "closed in time", "finished", "the pool is closed"]


@pytest.mark.parametrize("_round", range(5))
def test_in_the_middle_of_a_stream_closing_ends_it(_round: int, tmp_path: Path) -> None:
    lines = output_of(STREAMING, tmp_path)
    assert lines == ["ran", "closed in time", "closed", "the pool is closed"]


NESTED = """
def run_another(_number, _frame):
    seen.append(pool.counts()["outstanding"])
    pool.run(Task(order(Obedient.WAIT, 1)))
    print("ran inside", flush=True)
    marks.go(2)

def lead():
    pool.run(Task(order(Obedient.WAIT, 0)))
    print("leader gone", flush=True)
    marks.go(1)

def direct():
    signal_with(2)
    while pool.counts()["outstanding"] < 3:
        time.sleep(0.001)
    time.sleep(0.2)  # the handler waits by then
    marks.go(0)

signal.signal(signal.SIGALRM, run_another)
threads = [threading.Thread(target=lead), threading.Thread(target=direct)]
threads[0].start()
while pool.counts()["outstanding"] == 0:
    time.sleep(0.001)
faulthandler.dump_traceback_later(40, exit=True)
threads[1].start()
pool.run(Task(order(Obedient.WAIT, 2)))
print("ran")
for thread in threads:
    thread.join()
assert seen == [2], seen
pool.close()
"""


def test_a_handler_that_interrupts_a_sleeping_thread_gets_the_lead_in_its_place(tmp_path: Path) -> None:
    done = run_python("-c", SCRIPT + NESTED, str(tmp_path), "25")
    assert (done.returncode, done.stdout) == (0, "leader gone\nran inside\nran\n"), done.stderr
