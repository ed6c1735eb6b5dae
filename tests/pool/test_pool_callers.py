"""Kinds of programs that use a pool: scripts, command lines, interactive programs, with threads and children."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import pty
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from ais_bench.pool import DevicePool, Task
from support.handlers import Obedient
from support.pool import one
from support.scripts import environment, run_python
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# ---- kinds of callers ----

SCRIPT = """
import numpy as np
from ais_bench.pool import Answer, DevicePool, Task

class Local:
    native = None
    def __init__(self, context): self.device = context.device_id
    def describe(self): return None
    def run(self, task): return Answer([task.feeds[0] * FACTOR])
    def close(self): pass

FACTOR = 3
pool = DevicePool(lambda context: Local(context), [0, 1])
tasks = pool.ordered(range(50), lambda n, index: Task([np.array([n])]))
print(sum(int(task.result()[0][0]) for task in tasks))
"""
ANSWER = "3675"


def test_a_script_without_main_guard(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = run_python(str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


def test_a_program_on_the_command_line() -> None:
    done = run_python("-c", SCRIPT)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


def test_a_program_on_standard_input() -> None:
    done = run_python("-", stdin=SCRIPT)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


INTERPRETERS = ["plain", "with an editor"] if sys.version_info >= (3, 13) else ["plain"]


@pytest.mark.parametrize("kind", INTERPRETERS)
def test_the_interactive_interpreter(kind: str) -> None:
    ours, theirs = pty.openpty()
    places = {**environment(), "TERM": "xterm", **({"PYTHON_BASIC_REPL": "1"} if kind == "plain" else {})}
    how: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen([sys.executable, "-i", "-q"], env=places, start_new_session=True, **how)
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.wait_for(b">>>")
        if kind == "plain":
            os.write(ours, SCRIPT.replace("\n\nFACTOR", "\n\n\nFACTOR").encode() + b"\n")
        else:
            os.write(ours, b"\x1b[200~" + SCRIPT.encode() + b"\x1b[201~\r\r")  # pasted
        screen.wait_for(ANSWER.encode())
        os.write(ours, b"exit()\r")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        screen.thread.join(10)
        os.close(ours)


class Screen:
    """Reads the output of a terminal in a thread."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.text = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self.fd, 4096):
                self.text += data

    def wait_for(self, text: bytes) -> None:
        wait_until(lambda: text in self.text, 60, f"{text!r}")


def test_a_process_that_runs_threads_and_has_loaded_onnxruntime() -> None:
    assert importlib.util.find_spec("onnxruntime") is not None
    done = run_python(
        "-c", "import threading, time, onnxruntime\nthreading.Thread(target=time.sleep, args=(0.5,)).start()\n" + SCRIPT
    )
    assert (done.returncode, done.stdout.split()) == (0, [ANSWER])


def test_modules_in_the_working_directory_do_not_hide_those_of_the_library(tmp_path: Path) -> None:
    """They are not on the path of a script in another folder, so they are not on the path of its workers."""
    (tmp_path / "pickle.py").write_text("raise RuntimeError('the wrong pickle')")
    (tmp_path / "scripts").mkdir()
    path = tmp_path / "scripts" / "script.py"
    path.write_text(SCRIPT)
    done = run_python(str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


def test_workers_run_the_interpreter_that_multiprocessing_was_given(tmp_path: Path) -> None:
    chosen, mark = tmp_path / "python", tmp_path / "mark"
    chosen.write_text(f'#!/bin/sh\necho started >> "{mark}"\nexec "{sys.executable}" "$@"\n')
    chosen.chmod(0o755)
    done = run_python("-c", f"import multiprocessing\nmultiprocessing.set_executable({str(chosen)!r})\n" + SCRIPT)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")
    assert mark.read_text().split() == ["started"] * 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_beside_children_of_the_user(tmp_path: Path, method: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "import multiprocessing, time\n"
        "def child(): time.sleep(0.3)\n"
        f"if __name__ == '__main__':\n    process = multiprocessing.get_context('{method}').Process(target=child)\n"
        "    process.start()\n" + "\n".join("    " + line for line in SCRIPT.splitlines()) + "\n    process.join()\n"
    )
    done = run_python(str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


def test_a_pool_made_and_used_in_different_threads() -> None:
    made: list[DevicePool] = []
    thread = threading.Thread(target=lambda: (made.append(DevicePool(Obedient, [0])), made[0].start()))
    thread.start()
    thread.join()  # workers die with the thread that started them, so another thread must start them
    with made[0] as pool:
        time.sleep(0.1)
        assert one(pool, 0, 4)[0][1] == 4
        assert pool.workers()[0].restarts == 0


def test_a_module_beside_the_script_and_a_relative_path_are_found_by_workers(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def triple(array):\n    return array * 3\n")
    (tmp_path / "data.txt").write_text("hello")
    script = SCRIPT.replace("task.feeds[0] * FACTOR", "beside.triple(task.feeds[0]) * len(open('data.txt').read()) // 5")
    path = tmp_path / "script.py"
    path.write_text("import beside\n" + script)
    done = run_python(str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [ANSWER], "")


def test_a_process_without_standard_descriptors_and_working_directory(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    answer = tmp_path / "answer"
    # Import numpy first: Python 3.13 with -c cannot import it if the working directory does not exist.
    before = f"import os, sys, numpy\nsys.stdout = open({str(answer)!r}, 'w')\nos.rmdir(os.getcwd())\nos.closerange(0, 3)\n"
    assert run_python("-c", before + SCRIPT, cwd=tmp_path / "gone").returncode == 0
    assert answer.read_text().split() == [ANSWER]


def test_a_worker_inherits_only_what_it_is_given() -> None:
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        with DevicePool(Obedient, [0]) as pool:
            pool.start()
            pid = pool.workers()[0].pid
            link = Path(f"/proc/{pid}/fd/{leak}")
            with contextlib.suppress(FileNotFoundError):
                assert os.readlink(link) != "/dev/null"
            assert os.getsid(pid or 0) != os.getsid(0)
    finally:
        os.close(leak)


def test_an_error_that_was_raised_leads_to_its_task_and_both_are_garbage() -> None:
    class Mark(Exception):
        pass

    def fail() -> weakref.ref[Mark]:
        task = Task.failed(Mark("made here"))
        with pytest.raises(Mark) as caught:
            task.result()
        assert caught.traceback[0].frame.f_locals["task"] is task  # the circle
        return weakref.ref(caught.value)

    gc.collect()
    made = [fail() for _ in range(3)]
    gc.collect()
    assert [ref() for ref in made] == [None] * 3
