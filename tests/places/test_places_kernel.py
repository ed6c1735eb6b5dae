"""Older kernels and strict containers: newer system calls are refused, one by one and all at once."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable

import pytest

from ais_bench import _native
from ais_bench.errors import TransportError
from ais_bench.shm import Channel, Doorbell, Lane
from support.refusing import can_refuse
from support.scripts import run_script

pytestmark = pytest.mark.skipif(not can_refuse(), reason="this kernel or machine has no seccomp filters")

CALLS = ["pidfd_open", "pidfd_send_signal", "waitid", "close_range", "memfd_create", "fcntl"]
REFUSED = {**{name: [name] for name in CALLS}, "all of them": CALLS}

# The behaviour that must not change: results, a death and restart, a worker killed because of its time limit, a stop.
POOL = """
import errno, os, signal, sys
from support.refusing import refuse
names, number = sys.argv[1].split(","), int(sys.argv[2])
refuse(names, number)
for name, call in (("pidfd_open", lambda: os.pidfd_open(os.getpid())), ("memfd_create", lambda: os.memfd_create("m"))):
    if name in names:
        try: call()
        except OSError as error: assert error.errno == number, error
        else: raise AssertionError(f"{name} is not refused")
import psutil
import numpy as np
from ais_bench.errors import TaskTimeout, WorkerDied
from ais_bench.pool import DevicePool, PoolSettings, Task
from support.handlers import Obedient, order
from support.waiting import gone, wait_until

def one(pool, what, argument=0):
    return pool.run(Task(order(what, argument))).result()

unrelated = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(unrelated, True)  # workers must not have it all the same
with DevicePool(Obedient, [0, 1], PoolSettings(task_timeout=1.0, restart_backoff=0)) as pool:
    tasks = pool.ordered(range(50), lambda n, i: Task(order(Obedient.ECHO, n)))
    assert [int(task.result()[0][1]) for task in tasks] == list(range(50))
    pids = [worker.pid for worker in pool.workers()]
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/fd/{unrelated}")]
    try: one(pool, Obedient.KILL_SELF, signal.SIGKILL)
    except WorkerDied as error: assert error.signal == signal.SIGKILL, error
    else: raise AssertionError("nobody noticed")
    try: one(pool, Obedient.HANG)
    except TaskTimeout: pass
    else: raise AssertionError("it was not killed")
    assert int(one(pool, Obedient.ECHO, 7)[0][1]) == 7
    large = np.arange(1 << 20)
    (back,) = pool.run(Task([np.concatenate([[0, 0], large])])).result()
    assert np.array_equal(back[2:], large)
wait_until(lambda: not psutil.Process().children())
wait_until(lambda: not [entry for entry in os.listdir("/dev/shm") if "ais_bench" in entry])  # other tests use it, too
print("done")
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM], ids=["unknown", "forbidden"])
@pytest.mark.parametrize(
    "names",
    [pytest.param(names, id=id, marks=[] if id == "all of them" else pytest.mark.long) for id, names in REFUSED.items()],
)
def test_a_pool_works_without(names: list[str], number: int) -> None:
    assert run_script(POOL, ",".join(names), str(number)) == "done\n"


def test_a_session_works_without(multi_device_models: Callable[[str], dict[str, str]]) -> None:
    program = """
import sys
from support.refusing import refuse
refuse(sys.argv[2].split(","))
import numpy as np
from ais_bench.session import MultiDeviceSession
model = open(sys.argv[1], "rb").read()
for one in (sys.argv[1], model):
    with MultiDeviceSession(one, devices=[0, 1]) as session:
        (shape,) = [[3 if dim < 0 else dim for dim in desc.shape] for desc in session.get_inputs()[:1]]
        feeds = [np.ones(shape, np.float32) for _ in session.get_inputs()]
        assert len(list(session.map([feeds] * 5))) == 5
print("done")
"""
    model = multi_device_models("ort")["add"]
    assert run_script(program, model, ",".join(CALLS)) == "done\n"


REUSE = """
import errno, os, signal, subprocess, sys
from support.refusing import refuse
refuse(["pidfd_open"], errno.EPERM)
from ais_bench import _native
null = os.open(os.devnull, os.O_RDWR)
for _ in range(50):
    child = _native.Child([b"/bin/sleep", b"60"], null, null, null, [])
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)  # behind its back: the number is free
    try:
        with open("/proc/sys/kernel/ns_last_pid", "w") as last: last.write(str(child.pid - 1))
    except OSError as error: sys.exit(print(f"no way to have a number used again: {error}"))
    other = subprocess.Popen(["/bin/sleep", "60"])
    same = other.pid == child.pid
    child.kill(signal.SIGTERM)
    ending = child.reap()
    alive = other.poll() is None
    other.kill()
    other.wait()
    assert alive, "another process was signalled"
    assert ending == (None, None), ending
    if same: sys.exit(print("done"))
print("no way to have a number used again: others were always faster")
"""


def test_a_signal_never_meets_another_process_with_the_same_number() -> None:
    said = run_script(REUSE).strip()
    if said.startswith("no way"):
        pytest.skip(said)
    assert said == "done"


def test_a_child_that_cannot_be_watched_does_not_stay() -> None:
    program = """
import errno, os, sys
from support.refusing import refuse
refuse(["pidfd_open"], errno.EMFILE)
import psutil
from ais_bench.errors import WorkerStartError
from ais_bench.pool import DevicePool, PoolSettings
from support.handlers import Obedient
try: DevicePool(Obedient, [0], PoolSettings(max_restarts=1)).start()
except WorkerStartError as error: assert "Too many open files" in str(error), error
else: raise AssertionError("it was watched")
assert not psutil.Process().children()
print("done")
"""
    assert run_script(program) == "done\n"


def test_what_a_child_inherits_and_how_it_ends() -> None:
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    script = f"import os; os.write({write}, b'kept'); os._exit(7)"
    child = _native.Child([sys.executable.encode(), b"-c", script.encode()], null, write, write, [write])
    os.close(write)
    assert child.reap() == (None, 7)
    assert child.reap() == (None, None)
    assert os.read(read, 1000) == b"kept"
    child.close()
    assert child.watch_fd == -1
    os.close(read)
    os.close(null)


@pytest.mark.parametrize(("program", "words"), [(b"/nowhere/python", "No such file"), (b"/etc/passwd", "Permission denied")])
def test_a_program_that_cannot_be_run_is_an_error(program: bytes, words: str) -> None:
    with pytest.raises(TransportError, match=f"cannot run .*{words}"):
        _native.Child([program], 0, 1, 2, [])


def test_memory_that_is_not_sealed_is_refused_where_it_could_be() -> None:
    bell = Doorbell()
    lane = Lane(bell, epoch=1)
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 30)
        with pytest.raises(TransportError, match="not of sealed shared memory"):
            Channel(os.dup(file.fileno()), os.dup(bell.fd))
    lane.abandon()
