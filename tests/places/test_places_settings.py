"""Programs that change settings of the whole process: timeouts, clocks, threads, paths, limits. And how a script ends."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.session import MultiDeviceSession
from support.scripts import run_python
from support.session import DEVICES

MakeModels = Callable[[str], dict[str, str]]


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed; pip install --group wild")


# A program's use of a session after it has changed its process: calls, callables that log, a worker that dies.
USE = """
def use(model):
    import logging, os, signal
    import numpy as np
    from ais_bench.session import MultiDeviceSession

    def preprocess(number):
        logging.getLogger("mine").warning("x" * 300_000)  # more than a socket takes at once
        if number == 13:
            raise ValueError("thirteen")
        return [np.full((2, 3), number, np.float32)] * 2

    with MultiDeviceSession(model, devices=DEVICES, preprocess=preprocess, task_timeout=30) as session:
        session.start()
        outputs = [float(y[0, 0]) for (y,) in session.map(range(12))]
        assert outputs == [2.0 * number for number in range(12)], outputs
        assert float(session.submit(4).result(60)[0][0, 0]) == 8
        try: session.infer(13)
        except ValueError as error: assert str(error) == "thirteen"
        else: raise AssertionError("nothing was raised")
        os.kill(session.report().workers[0].pid, signal.SIGKILL)
        assert float(session.infer(5)[0][0, 0]) == 10
        assert session.report().total.end_to_end_ms.mean > 0
    print("done")
"""
SETTINGS = {
    "a default timeout of sockets": "import socket; socket.setdefaulttimeout(0.05)",
    "non-blocking sockets": "import socket; socket.setdefaulttimeout(0)",
    "Path objects, bytes and rubbish in sys.path": "import pathlib, sys; sys.path[:0] = [pathlib.Path(), b'/bytes', None, []]",
    "ignored children": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "somebody who waits for every child": (
        "import os, threading, time\n"
        "def reap():\n"
        "    while True:\n"
        "        try: os.waitpid(-1, 0)\n"
        "        except ChildProcessError: time.sleep(0.001)\n"
        "threading.Thread(target=reap, daemon=True).start()"
    ),
    "closed standard descriptors": "import os; [os.close(fd) for fd in (0, 2)]",
    "a profile of every thread": "import threading; threading.setprofile(lambda *_: None)",
}


def in_a_program(before: str, model: str, *, after: str = "") -> str:
    code = f"{before}\nDEVICES = {DEVICES}\n{USE}\nimport sys\nuse(sys.argv[1])\n{after}"
    done = run_python("-c", code, model, seconds=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_program_with(setting: str, multi_device_models: MakeModels) -> None:
    assert in_a_program(setting, multi_device_models("ort")["add"]) == "done\n"


@needs("freezegun")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_with_a_frozen_clock(when: str, multi_device_models: MakeModels) -> None:
    freeze = "import freezegun; freezegun.freeze_time('2020-01-01').start()"
    first = f"import ais_bench.session\n{freeze}" if when == "after" else freeze
    assert in_a_program(first, multi_device_models("ort")["add"]) == "done\n"


@needs("gevent")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_with_gevents_patches(when: str, multi_device_models: MakeModels) -> None:
    patch = "from gevent import monkey; monkey.patch_all()"
    first = f"import ais_bench.session\n{patch}" if when == "after" else patch
    assert in_a_program(first, multi_device_models("ort")["add"]) == "done\n"


@needs("gevent")
def test_greenlets_share_a_session(multi_device_models: MakeModels) -> None:
    program = """
from gevent import monkey; monkey.patch_all()
import sys
import gevent
import numpy as np
from ais_bench.session import MultiDeviceSession
with MultiDeviceSession(sys.argv[1], devices=DEVICES) as session:
    def one(number):
        feeds = [np.full((2, 3), number, np.float32)] * 2
        assert float(session.infer(feeds)[0][0, 0]) == 2 * number
        return float(session.submit(feeds).result(30)[0][0, 0])
    jobs = [gevent.spawn(one, number) for number in range(20)]
    gevent.joinall(jobs, timeout=60)
    assert [job.value for job in jobs] == [2.0 * number for number in range(20)], [job.value for job in jobs]
print("done")
"""
    done = run_python("-c", f"DEVICES = {DEVICES}\n{program}", multi_device_models("ort")["add"], seconds=110)
    assert done.stdout == "done\n", done.stderr


def test_devices_are_counted_in_any_process() -> None:
    program = """
import pathlib, signal, socket, sys
socket.setdefaulttimeout(0)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.path.insert(0, pathlib.Path("."))
from ais_bench import emulator
from ais_bench.session.count_devices import count_devices
with emulator.npus(3):
    print(count_devices("acl"))
"""
    done = run_python("-c", program)
    assert done.stdout == "3\n", done.stderr


# ---- scarce and missing things ----


def test_a_root_that_cannot_be_written_to(multi_device_models: MakeModels, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(Path(multi_device_models("ort")["add"]).read_bytes())
    program = """
import ctypes, os, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
def mount(place, flags, source=None):
    if libc.mount(source, place, None, flags, None) != 0: sys.exit(print("no way:", os.strerror(ctypes.get_errno())))
if libc.unshare(NEWNS) != 0: sys.exit(print("no way:", os.strerror(ctypes.get_errno())))
mount(b"/", PRIVATE | RECURSIVE)
for line in open("/proc/self/mounts").read().splitlines():
    place = line.split()[1].encode()
    if not place.startswith((b"/proc", b"/sys", b"/dev")) or place == b"/dev/shm":
        mount(place, BIND | REMOUNT | READ_ONLY)
os.chdir("/")
try: tempfile.gettempdir()
except FileNotFoundError:
    from ais_bench.session import MultiDeviceSession
    with MultiDeviceSession(sys.argv[1], devices=DEVICES, share_weights=True) as session:
        session.start()
        (said,) = set(session.report().shared_weights.values())
        assert said.startswith("not shared") and "TMPDIR" in said, said
    use(sys.argv[1])
else: print("no way: there is still", tempfile.gettempdir())
"""
    done = run_python("-c", f"DEVICES = {DEVICES}\n{USE}\n{program}", str(model), seconds=110)
    if done.stdout.startswith("no way"):
        pytest.skip(done.stdout)
    assert done.stdout == "done\n", done.stderr


THREADS = """
import resource, sys, threading
import numpy as np
from ais_bench.errors import AisBenchError
from ais_bench.session import MultiDeviceSession
before = threading.active_count()
start = threading.Thread.start
def refuse(self): raise RuntimeError("can't start new thread")
session = MultiDeviceSession(sys.argv[1], devices=[0])
threading.Thread.start = refuse
try: session.start()
except AisBenchError as error: print(error)
threading.Thread.start = start
session.start()
feeds = [np.ones((2, 3), np.float32)] * 2
threading.Thread.start = refuse
try: session.submit(feeds)
except AisBenchError as error: print(error)
threading.Thread.start = start
assert float(session.submit(feeds).result(60)[0][0, 0]) == 2
session.close()
"""


def test_without_a_thread_the_limits_are_told(multi_device_models: MakeModels) -> None:
    done = run_python("-c", THREADS, multi_device_models("ort")["add"])
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr
    for line in lines:
        assert line.startswith("the system refuses another thread: can't start new thread; ulimit -u: "), line
        assert "threads of this process: " in line


# ---- errors that are hard to transfer ----


def _stop(_item: Any) -> Any:
    raise StopIteration("enough")


def test_a_stop_iteration_of_a_callable_arrives(multi_device_models: MakeModels) -> None:
    with MultiDeviceSession(multi_device_models("ort")["add"], devices=[0], preprocess=_stop) as session:

        async def one() -> Any:
            return await asyncio.wait_for(session.infer_async(1), 30)

        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            asyncio.run(one())
        assert isinstance(caught.value.__cause__, StopIteration)
        with pytest.raises(StopIteration, match="enough"):
            session.submit(1).result(30)
        with pytest.raises(StopIteration, match="enough"):
            session.infer(1)
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(session.map([1, 2]))


def test_cancelling_an_await_cancels_the_future(multi_device_models: MakeModels) -> None:
    with MultiDeviceSession(multi_device_models("ort")["add"], devices=[0]) as session:

        async def cancelled() -> bool:
            feeds = [np.ones((2, 3), np.float32)] * 2
            waiting = asyncio.ensure_future(session.infer_async(feeds))
            await asyncio.sleep(0)
            waiting.cancel()
            try:
                await waiting
            except asyncio.CancelledError:
                return True
            return False

        session.start()
        assert asyncio.run(cancelled())
        assert session.infer([np.ones((2, 3), np.float32)] * 2)[0].shape == (2, 3)


# ---- the end of a script ----

ENDS = {
    "falls off the end": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "raise LookupError('the end')",
    "dropped": "del session",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_script_that_ends_finishes_its_futures_and_their_callbacks(end: str, multi_device_models: MakeModels) -> None:
    program = """
import os, sys
import numpy as np
from ais_bench.session import MultiDeviceSession

def slowly(number):
    import time
    time.sleep(0.02)
    return [np.full((2, 3), number, np.float32)] * 2

session = MultiDeviceSession(sys.argv[1], devices=DEVICES, preprocess=slowly)
def submit(number):
    future = session.submit(number)
    future.add_done_callback(lambda future: os.write(1, b"%d\\n" % future.result()[0][0, 0]))
    return future
for number in range(30):
    submit(number)
"""
    if end != "del session":
        program += "submit(100).add_done_callback(lambda future: submit(101))\n"  # from a callback, after the script's end
    done = run_python("-c", f"DEVICES = {DEVICES}\n{program}\n{end}\n", multi_device_models("ort")["add"])
    expected = {2 * number for number in range(30)} | (set() if end == "del session" else {200, 202})
    assert {int(line) for line in done.stdout.splitlines()} == expected, done.stderr
    assert done.returncode == (1 if "raise" in end else 0)
    assert done.stderr.count("Traceback") == (1 if "raise" in end else 0), done.stderr


def test_ctrl_c_ends_a_script_that_waits_for_its_futures(tmp_path: Path) -> None:
    program = """
import os, signal, threading, time
from support.handlers import Obedient, order
from ais_bench.pool import DevicePool, Task
pool = DevicePool(Obedient, [0])
future = pool.submit(Task(order(Obedient.HANG)))
def press():
    while not os.path.exists(MARK): time.sleep(0.01)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
import atexit
atexit.register(lambda: open(MARK, "w").close())  # called first
"""
    mark = tmp_path / "ending"
    done = run_python("-c", program.replace("MARK", repr(str(mark))), seconds=60)
    assert mark.exists(), done.stderr
    assert "KeyboardInterrupt" in done.stderr
