"""Long runs on a CPU device, and signals during them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from support.scripts import run_script

Path_ = Callable[[str], str]

# A loop of `times` steps, which takes hours; one step takes microseconds.
START = """
import _thread, os, signal, sys, threading, time
import numpy as np
from ais_bench.errors import InferenceCancelled
from ais_bench.session import InferSession

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell has it ignored
session = InferSession(0, {path!r}, threads=1)
for_ever = [np.array(10**12), np.zeros(1, np.float32)]
briefly = [np.array(5), np.zeros(1, np.float32)]
session.infer(briefly)  # a model that was quick until now

def press(number, after=0.5):
    def wait_and_press():
        while not session_runs():
            time.sleep(0.01)
        time.sleep(after)
        os.kill(os.getpid(), number)
    threading.Thread(target=wait_and_press, daemon=True).start()

def session_runs():
    # In the run the main thread works without the GIL: its processor time grows.
    def used():
        fields = open(f"/proc/self/task/{{os.getpid()}}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])
    before = used()
    time.sleep(0.2)
    return used() - before >= 2
"""


def run(path: str, body: str) -> str:
    return run_script(START.format(path=path) + textwrap.dedent(body))


CALLS = {
    "infer": "session.infer(for_ever)",
    "tensors": "session.infer(for_ever, out_array=False)",
    "run": "session.run(for_ever)",
    "infer_pipeline": "session.infer_pipeline([for_ever])",
    "infer_iteration": "session.infer_iteration(for_ever, [-1, 0], 5)",
    "first_inner_run": "session.first_inner_run(for_ever)",
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_one_long_run(onnx_model: Path_, call: str) -> None:
    printed = run(
        onnx_model("loop"),
        f"""
        press(signal.SIGINT)
        try:
            {CALLS[call]}
        except KeyboardInterrupt:
            print("interrupted")
        (counter,) = session.infer(briefly)
        assert counter.tolist() == [5]
        print("usable")
        """,
    )
    assert printed.split() == ["interrupted", "usable"]


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_a_loop_of_short_runs(onnx_model: Path_, call: str) -> None:
    """No single run lasts long enough to be stopped."""
    printed = run(
        onnx_model("loop"),
        f"""
        session.set_loop_count(10**9)
        press(signal.SIGINT)
        try:
            {CALLS[call].replace("for_ever", "briefly")}
        except KeyboardInterrupt:
            print("interrupted")
        session.set_loop_count(1)
        (counter,) = session.infer(briefly)
        assert counter.tolist() == [5]
        print("usable")
        """,
    )
    assert printed.split() == ["interrupted", "usable"]


def test_what_any_handler_raises_ends_the_run(onnx_model: Path_) -> None:
    printed = run(
        onnx_model("loop"),
        """
        class TooLong(Exception):
            pass

        def give_up(number, frame):
            raise TooLong

        signal.signal(signal.SIGALRM, give_up)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1)
            session.infer(for_ever)
        except TooLong:
            print("gave up")
        assert session.infer(briefly)[0].tolist() == [5]
        """,
    )
    assert printed.split() == ["gave", "up"]


def test_handlers_that_raise_nothing_run_meanwhile_and_the_result_is_right(onnx_model: Path_) -> None:
    printed = run(
        onnx_model("loop"),
        """
        calls = []
        signal.signal(signal.SIGALRM, lambda number, frame: calls.append(time.monotonic()))
        times = 200_000
        while True:  # long enough for several signals, on whatever machine
            calls.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.15, 0.15)
            begun = time.monotonic()
            (counter,) = session.infer([np.array(times), np.zeros(1, np.float32)])
            ended = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert counter.tolist() == [times]
            if len([call for call in calls if call < ended]) >= 3:
                break
            times *= 4
        print("right")
        """,
    )
    assert printed.split() == ["right"]


def test_other_threads_runs_go_on_when_the_main_threads_is_ended(onnx_model: Path_) -> None:
    printed = run(
        onnx_model("loop"),
        """
        outcome = []

        def other():
            try:
                session.infer(for_ever)
            except InferenceCancelled:
                outcome.append("cancelled")

        thread = threading.Thread(target=other)
        thread.start()
        press(signal.SIGINT)
        try:
            session.infer(for_ever)
        except KeyboardInterrupt:
            print("interrupted")
        thread.join(0.5)
        assert thread.is_alive() and not outcome
        while thread.is_alive():
            session.cancel()
            thread.join(0.1)
        print(*outcome)
        """,
    )
    assert printed.split() == ["interrupted", "cancelled"]


def test_the_thread_ends_and_the_handlers_are_put_back(onnx_model: Path_) -> None:
    printed = run_script(
        """
        import os, sys, time
        import numpy as np
        from ais_bench.session import InferSession

        def caught():
            return open("/proc/self/status").read().split("SigCgt:")[1].split()[0]

        session = InferSession(0, sys.argv[1], threads=1)
        threads, handlers = len(os.listdir("/proc/self/task")), caught()
        for _ in range(3):
            session.infer([np.array(5), np.zeros(1, np.float32)])
            assert caught() == handlers  # ours stands in front of what is there, and nowhere else
        deadline = time.monotonic() + 50
        while len(os.listdir("/proc/self/task")) > threads and time.monotonic() < deadline:
            time.sleep(0.02)
        print(len(os.listdir("/proc/self/task")) == threads)
        """,
        onnx_model("loop"),
    )
    assert printed.split() == ["True"]
