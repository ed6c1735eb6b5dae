"""Pinning that yields: a worker leaves its processor while another program uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ais_bench import _native
from ais_bench.session import MultiDeviceSession
from support.scripts import run_script
from support.session import pair
from support.waiting import wait_until

CPUS = _native.allowed_cpus()
pytestmark = [
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors"),
    pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count how long threads wait"),
]


@contextmanager
def busy_loops(cpu: int, count: int) -> Iterator[None]:
    """Run programs that keep a processor busy."""
    code = f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def processors_of_threads(pid: int) -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir(f"/proc/{pid}/task")}


WORK = """
import os, sys, time
from ais_bench import _native
cpu, yields = int(sys.argv[1]), sys.argv[2] == "yes"
every = os.sched_getaffinity(0)
assert _native.pin([cpu], yields) == 0
assert os.sched_getaffinity(0) == {cpu} and _native.is_pinned()
deadline = time.monotonic() + float(sys.argv[3])
while time.monotonic() < deadline and _native.is_pinned():
    sum(range(10_000))
    _native.look_around()
assert (os.sched_getaffinity(0) == every) != _native.is_pinned()
print("pinned" if _native.is_pinned() else "away")
"""


def test_a_process_leaves_a_processor_that_others_use() -> None:
    with busy_loops(CPUS[0], 2):
        assert run_script(WORK, str(CPUS[0]), "yes", "30") == "away\n"


def test_one_that_is_pinned_for_good_stays() -> None:
    with busy_loops(CPUS[0], 2):
        assert run_script(WORK, str(CPUS[0]), "no", "1") == "pinned\n"


def test_a_processor_that_does_not_exist_is_an_error_number() -> None:
    assert run_script("from ais_bench import _native\nprint(_native.pin([4095], True) != 0)") == "True\n"


def test_a_worker_leaves_and_its_threads_with_it(models: dict[str, str], runtime: str) -> None:
    if runtime == "acl":
        pytest.skip("workers of NPUs are not pinned")
    feeds = [np.tile(array, (200_000, 1)) for array in pair(1, 1)]
    with MultiDeviceSession(models["open"], devices=[0], affinity="auto", workers_per_device=2) as session:
        session.infer(feeds)
        pid = session.report().workers[0].pid
        assert pid is not None
        with busy_loops(min(os.sched_getaffinity(pid)), 3):  # on a busy machine it may have left already
            stream = session.map(iter(lambda: feeds, None))
            # It comes back after a while, so all threads are looked at again each time.
            wait_until(lambda: next(stream) and processors_of_threads(pid) == {frozenset(CPUS)}, 60, "the worker to leave")
            stream.close()  # type: ignore[attr-defined]
