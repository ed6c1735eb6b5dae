"""Ctrl-C again and again in whatever a session does, which then goes on as if nothing had been: as in a notebook."""

from __future__ import annotations

import pytest
from pool_support import run_script

SCRIPT = """
import random, signal, sys
import numpy as np
from multi_device_support import DEVICES
from ais_bench.session import MultiDeviceSession

TURNS = 90
random.seed(int(sys.argv[2]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
zeros = np.zeros((2, 3), np.float32)

def feeds(n):
    return [np.full((2, 3), n, np.float32), zeros]

def numbered():
    n = 0
    while True:
        n += 1
        yield feeds(n)

def stream(session):
    for n, (output,) in enumerate(session.map(numbered()), 1):
        assert (output == n).all(), (output, n)

def single(session):
    n = 0
    while True:
        n += 1
        (output,) = session.infer(feeds(n))
        assert (output == n).all(), (output, n)

def by_device(session):
    while True:
        outputs = session.infer({device: [feeds(n) for n in range(9)] for device in DEVICES})
        assert [[int(output[0, 0]) for (output,) in several] for several in outputs.values()] == [[*range(9)] for _ in DEVICES]

interrupted = 0
with MultiDeviceSession(sys.argv[1], devices=DEVICES) as session:
    session.start()
    pids = [worker.pid for worker in session.report().workers]
    for turn in range(TURNS):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.01), 1.0)  # once more where a destructor got it
            (stream, single, by_device)[turn % 3](session)
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            interrupted += 1
    assert interrupted == TURNS, interrupted
    for n, (output,) in enumerate(session.map(feeds(n) for n in range(3000))):
        assert (output == n).all(), (output, n)
    dispatcher = session._pool._engine.dispatcher
    for _ in range(2):  # what was dropped is forgotten, and its replies have come
        session.infer({device: [feeds(0)] for device in DEVICES})
    assert dispatcher.unfinished() == 0
    assert [(worker.load, worker.reserved, worker.busy) for worker in dispatcher.crew.workers] == [(0, 0, False)] * len(DEVICES)
    assert not dispatcher._reservations and not dispatcher._in_hand and not dispatcher.crew.streams
    assert [worker.pid for worker in session.report().workers] == pids
print("as if nothing had been")
"""


@pytest.mark.parametrize("seed", range(2))
def test_interrupts_leave_no_place_taken_and_no_task_behind(models: dict[str, str], seed: int) -> None:
    done = run_script("-c", SCRIPT, models["add"], str(seed))
    assert (done.returncode, done.stdout) == (0, "as if nothing had been\n"), done.stdout + done.stderr


NATIVE = """
import gc, linecache, sys
import numpy as np
from multi_device_support import DEVICES
from ais_bench.pool import dispatch
from ais_bench.session import MultiDeviceSession

# The native calls, and where Python calls them.
CALLS = ("worker.lane.deliver(", "worker.lane.send(")
seen, inside = set(), []

def profile(frame, event, _argument):
    caller = frame.f_back
    if event == "call" and caller is not None:
        seen.add(frame.f_code.co_name)
        line = linecache.getline(caller.f_code.co_filename, caller.f_lineno)
        if any(call in line for call in CALLS):
            inside.append(frame.f_code)

assert all(call in "".join(linecache.getlines(dispatch.__file__)) for call in CALLS)
feeds = [np.ones((2, 3), np.float32)] * 2
with MultiDeviceSession(sys.argv[1], devices=DEVICES) as session:
    session.start()
    gc.disable()  # finalizers may run anywhere, and are not asked for interrupts
    sys.setprofile(profile)
    for (output,) in session.map(feeds for _ in range(200)):
        assert (output == 2).all()
    session.infer({device: [feeds] for device in DEVICES})
    sys.setprofile(None)
assert {"push", "_drain_lanes"} <= seen, seen
print(inside)
"""


def test_no_python_runs_between_taking_a_reply_and_booking_it(models: dict[str, str]) -> None:
    """Not at the first reply of a process, either: an interrupt in there would lose it, and its place in the worker."""
    done = run_script("-c", NATIVE, models["add"])
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr
