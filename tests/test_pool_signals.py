"""Signal handlers that use the pool whose work they interrupt."""

from __future__ import annotations

import pytest
from pool_support import run_script

SCRIPT = """
import faulthandler, signal, sys, threading, time
from ais_bench.errors import PoolClosed, PoolError
from ais_bench.pool import DevicePool, Task, Waiter
from pool_handlers import Obedient, order

pool = DevicePool(Obedient, [0, 1])
pool.start()
dispatcher = pool._engine.dispatcher
seen = []

def handler(_number, _frame):
    seen.append((dispatcher.interrupted(), dispatcher.collector._leader is not None))
    try:
        pool.run(Task(order(Obedient.ECHO), Waiter()))
        print("ran")
    except PoolError as error:
        print(error)
    began = time.monotonic()
    pool.close()
    print("closed in time" if time.monotonic() - began < 3 else "close took long")

signal.signal(signal.SIGALRM, handler)
"""
INSIDE = """
with dispatcher._lock:
    signal.raise_signal(signal.SIGALRM)
    time.sleep(0)  # the handler has run by now
assert seen == [(True, False)], seen
"""
WAITING = """
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    pool.run(Task(order(Obedient.SLEEP_MS, 1000), Waiter()))
    print("finished")
except PoolClosed:
    print("closed")
assert seen == [(False, True)], seen
"""
STREAMING = """
count = 0
try:
    for _ in pool.ordered(range(10**9), lambda n, i, w: Task(order(Obedient.ECHO), w)):
        count += 1
        if count == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
except PoolClosed:
    print("closed")
assert count > 0 and len(seen) == 1, (count, seen)
"""
AFTER = """
try:
    pool.run(Task(order(Obedient.ECHO), Waiter()))
except PoolClosed:
    print("the pool is closed")
"""


def output_of(statements: str) -> list[str]:
    done = run_script("-c", SCRIPT + statements + AFTER)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_from_inside_the_dispatcher_tasks_are_refused_and_closing_is_left_to_a_thread() -> None:
    lines = output_of(INSIDE)
    assert "signal handler" in lines[0]
    assert lines[1:] == ["closed in time", "the pool is closed"]


def test_while_its_thread_waits_a_handler_may_run_a_task_and_close() -> None:
    lines = output_of(WAITING)
    assert lines == ["ran", "closed in time", "finished", "the pool is closed"]


@pytest.mark.parametrize("_round", range(5))
def test_in_the_middle_of_a_stream_closing_ends_it(_round: int) -> None:
    lines = output_of(STREAMING)
    assert lines[0] == "ran" or "signal handler" in lines[0]
    assert lines[1:] == ["closed in time", "closed", "the pool is closed"]


NESTED = """
def run_another(_number, _frame):
    seen.append(len(collector._sleepers))
    pool.run(Task(order(Obedient.SLEEP_MS, 1200), Waiter()))
    print("ran inside")

def lead():
    pool.run(Task(order(Obedient.SLEEP_MS, 600), Waiter()))
    print("leader gone")

collector = dispatcher.collector
signal.signal(signal.SIGALRM, run_another)
leader = threading.Thread(target=lead)
leader.start()
while collector._leader is None:
    time.sleep(0.001)
faulthandler.dump_traceback_later(20, exit=True)
signal.setitimer(signal.ITIMER_REAL, 0.2)
pool.run(Task(order(Obedient.SLEEP_MS, 1800), Waiter()))
print("ran")
leader.join()
assert seen == [1], seen
pool.close()
"""


def test_a_handler_that_interrupts_a_sleeping_thread_gets_the_lead_in_its_place() -> None:
    done = run_script("-c", SCRIPT + NESTED)
    assert (done.returncode, done.stdout) == (0, "leader gone\nran inside\nran\n"), done.stderr
