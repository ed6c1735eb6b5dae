"""Repeated Ctrl-C in all calls of a session. The session works normally afterwards, as in a notebook."""

from __future__ import annotations

import pytest

from support.scripts import run_python

SCRIPT = """
import random, signal, sys
import numpy as np
from support.session import DEVICES
from ais_bench.session import MultiDeviceSession

TURNS = 90
random.seed(int(sys.argv[2]))

def interrupt(number, frame):
    while frame is not None:  # a second signal may come after the call
        if frame.f_code.co_name in ("stream", "single", "by_device"):
            raise KeyboardInterrupt
        frame = frame.f_back

signal.signal(signal.SIGALRM, interrupt)
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
    exchange = session._pool._core.exchange
    for _ in range(2):  # the replies to what was dropped have come
        session.infer({device: [feeds(0)] for device in DEVICES})
    assert exchange.at_rest and exchange.unfinished == 0 and exchange.check() == ""
    counts = exchange.counts()
    assert counts["accepted"] == counts["done"] + counts["cancelled"] > 3000, counts
    assert [worker.pid for worker in session.report().workers] == pids
print("as if nothing had been")
"""


@pytest.mark.parametrize("seed", range(2))
def test_interrupts_leave_no_place_taken_and_no_task_behind(models: dict[str, str], seed: int) -> None:
    done = run_python("-c", SCRIPT, models["add"], str(seed))
    assert (done.returncode, done.stdout) == (0, "as if nothing had been\n"), done.stdout + done.stderr


NATIVE = """
import gc, linecache, sys
import numpy as np
from support.session import DEVICES
from ais_bench.session import MultiDeviceSession

# The native calls, and where Python makes them.
CALLS = ("plain(feeds)", "exchange.run(task)", "exchange.run_all(tasks)", "for task in tasks:")
seen, inside = set(), []

def profile(frame, event, _argument):
    if event not in ("call", "c_call", "c_return"):  # Python 3.12 tells of the end of some native calls only
        return
    caller = frame.f_back if event == "call" else frame
    if caller is None:
        return
    line = linecache.getline(caller.f_code.co_filename, caller.f_lineno)
    found = [call for call in CALLS if call in line]
    if event == "call" and frame.f_code.co_name != "look":  # a part of the stream's source, which may run Python
        inside.extend(frame.f_code.co_name for _ in found)
    seen.update(found)

feeds = [np.ones((2, 3), np.float32)] * 2
with MultiDeviceSession(sys.argv[1], devices=DEVICES) as session:
    session.start()
    gc.disable()  # finalizers may run anywhere, and are not asked for interrupts
    lists = [feeds for _ in range(200)]
    plain, times = session._run_plain, []

    def run_plain(feeds):  # no event tells of the call of a native function through functools.partial
        times.append(1)
        sys.setprofile(profile)
        try:
            return plain(feeds)
        finally:
            sys.setprofile(None)

    session._run_plain = run_plain
    for _ in range(5):
        session.infer(feeds)
    assert len(times) == 5
    session._run_plain = plain
    sys.setprofile(profile)
    for _ in range(5):
        session.infer(feeds, device=DEVICES[0])
    for (output,) in session.map(lists):
        assert (output == 2).all()
    session.infer({device: [feeds] for device in DEVICES})
    sys.setprofile(None)
# Python 3.10 does not tell of these calls; that Python runs inside of them it would tell.
assert sys.version_info < (3, 11) or {"exchange.run(task)", "exchange.run_all(tasks)"} <= seen, seen
print(inside)
"""


def test_no_python_runs_inside_a_call_of_the_exchange(models: dict[str, str]) -> None:
    """Not even at the first reply of a process: an interrupt there would lose the reply and its place in the worker."""
    done = run_python("-c", NATIVE, models["add"])
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr
