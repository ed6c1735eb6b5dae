"""A pool on emulated NPUs with every kind of failure. Each test proves that the failure occurred, and checks docs/pool.md."""

from __future__ import annotations

import itertools
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.emulator import npus
from ais_bench.errors import AisBenchError, DeviceMemoryError, InferenceError, PoolBroken, TaskTimeout, WorkerStartError
from ais_bench.session import MultiDeviceSession
from support.acl import Packed
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")
Feeds = list[np.ndarray[Any, Any]]
PATIENT: dict[str, Any] = {"max_restarts": 1000, "restart_backoff": 0}


def feeds_of(n: int) -> Feeds:
    """Return feeds with unique content."""
    return [np.full((1, 4), n, np.float32), np.arange(4, dtype=np.float32)[None] * n]


def right(n: int, outputs: list[Any]) -> bool:
    return len(outputs) == 1 and np.array_equal(outputs[0], sum(feeds_of(n)))


def states(session: MultiDeviceSession) -> dict[int, str]:
    return {line.device: line.state for line in session.report().workers}


def run_until(session: MultiDeviceSession, condition: Callable[[], bool]) -> None:
    """Map items one by one until the condition holds. All results must be right."""
    deadline = time.monotonic() + 60
    for n, outputs in enumerate(session.map(feeds_of(n) for n in itertools.count())):
        assert right(n, outputs)
        if condition():
            return
        assert time.monotonic() < deadline


@contextmanager
def failing(*rules: str, count: int = 3, **settings: Any) -> Iterator[Callable[[int], int]]:
    """Emulate NPUs with these faults, counted over all processes. Yield a function that counts the calls that match a rule."""
    with npus(count, faults=rules, faults_across_processes=True, **settings):
        state = Path(os.environ["AIS_EMULATOR_FAULT_STATE"])
        yield lambda rule=0: struct.unpack_from("<Q", state.read_bytes(), 8 * rule)[0] if state.exists() else 0


@pytest.fixture
def om(packed: Callable[[str], Packed]) -> str:
    """sum = a + b of (1, 4)."""
    return packed("static").om


# ---- every item is answered once ----


class Tormentor(threading.Thread):
    """Sends signals to random ready workers, equally many of each kind, until told to stop, and counts them.

    The number is limited, because a machine that starts workers more slowly than they are killed would never finish.
    """

    OF_EACH = 5

    def __init__(self, session: MultiDeviceSession, chance: random.Random) -> None:
        super().__init__(name="tormentor", daemon=True)
        self.session, self.chance, self.over = session, chance, threading.Event()
        self.sent = dict.fromkeys((signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP), 0)

    def run(self) -> None:
        for kind in [*self.sent] * self.OF_EACH:
            if self.over.wait(self.chance.uniform(0.05, 0.25)):
                return
            ready = [line.pid for line in self.session.report().workers if line.state == "ready" and line.pid]
            with suppress(ProcessLookupError, IndexError):  # the worker has just died, or none is ready
                os.kill(self.chance.choice(ready), kind)
                self.sent[kind] += 1


def test_the_ledger_of_eight_balances(om: str) -> None:
    """Each of 20,000 different items is delivered once, in order, with the right result or the model's error."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rules = ("device.execute:800=hang@1", "aclmdlExecuteAsync:500=crash@2", "device.execute:600=507011@3",
             "aclmdlExecuteAsync:300=500002@4", "device.copy:1000=507011@5", "aclrtMemcpyAsync:700=exit@6")  # fmt: skip
    with (
        failing(*rules, count=8) as met,
        MultiDeviceSession(om, task_timeout=1.0, max_attempts=20, close_timeout=3, **PATIENT) as session,
    ):
        firsts = [int(rule.partition(":")[2].partition("=")[0]) for rule in rules]

        def unmet() -> list[str]:
            return [rule for index, (rule, first) in enumerate(zip(rules, firsts, strict=True)) if met(index) < first]

        session.start()
        items = itertools.takewhile(lambda n: n < 20_000 or (n < 100_000 and unmet()), itertools.count())
        tormentor = Tormentor(session, random.Random(seed))
        tormentor.start()
        delivered, failed = 0, []
        for n, outputs in enumerate(session.map(map(feeds_of, items), on_error="return")):
            if isinstance(outputs, BaseException):
                failed.append((n, outputs))
            else:
                assert right(n, outputs), n
                delivered += 1
        tormentor.over.set()
        tormentor.join()
        report = session.report()
        assert all(number >= 1 for number in tormentor.sent.values()), tormentor.sent
        assert not unmet()
    assert delivered + len(failed) == n + 1 == report.total.tasks
    assert n + 1 >= 20_000
    assert {type(error) for _, error in failed} <= {InferenceError}
    assert all(word in str(error) for _, error in failed for word in ("device 4", "500002"))
    assert report.total.restarts >= sum(tormentor.sent.values()) // 2


def test_a_killed_worker_is_replaced_and_its_tasks_run_elsewhere(om: str) -> None:
    with npus(8, exec_ms=2), MultiDeviceSession(om, **PATIENT) as session:
        session.start()
        before = {line.device: line.pid for line in session.report().workers}
        results = session.map(feeds_of(n) for n in range(400))
        assert right(0, next(results))
        os.kill(before[5] or 0, signal.SIGKILL)
        assert all(right(n, outputs) for n, outputs in enumerate(results, 1))
        wait_until(lambda: set(states(session).values()) == {"ready"})
        after = {line.device: line.pid for line in session.report().workers}
        assert {device for device in before if before[device] != after[device]} == {5}
        assert session.report().total.failures == 0


# ---- errors that occur once ----


ONCE = {
    "a device exception in a submission": ("aclmdlExecuteAsync:5=507011@1", True),
    "a device exception in the run itself": ("device.execute:5=507015@1", True),
    "a copy that fails on the device": ("device.copy:5=507011@1", True),
    "a lost heartbeat": ("aclmdlExecuteAsync:5=lost@1", True),
    "a crash of the driver": ("aclmdlExecuteAsync:5=crash@1", True),
    "an exit": ("aclrtRecordEvent:20=exit@1", True),
    "a hang in a submission": ("aclmdlExecuteAsync:5=hang@1", True),
    "a hang in a run": ("device.execute:5=hang@1", True),
    "a hang in a copy": ("device.copy:7=hang@1", True),
    "an error in a submission": ("aclmdlExecuteAsync:5=500002@1", False),
    "an error in a run": ("device.execute:5=500002@1", False),
    "no memory for a run": ("device.execute:5=207001@1", False),
}


@pytest.mark.parametrize("name", ONCE)
def test_what_happens_once(om: str, name: str) -> None:
    """No task fails: a lost worker's tasks run again, and a task whose device failed runs on another one."""
    rule, loses_worker = ONCE[name]
    first = int(rule.partition(":")[2].partition("=")[0])
    deadline = 1.0 if rule.endswith("hang@1") else None  # a busy machine is slow at everything: others may be killed by it, too
    with failing(rule) as met, MultiDeviceSession(om, task_timeout=deadline, max_attempts=10, **PATIENT) as session:
        # The number of items for each device is not specified.
        enough = itertools.takewhile(lambda n: n < 120 or (met() < first and n < 10_000), itertools.count())
        results = list(session.map(map(feeds_of, enough), on_error="return"))
        assert met() >= first  # the failure occurred
        wait_until(lambda: session.report().total.restarts >= int(loses_worker))
        wait_until(lambda: set(states(session).values()) == {"ready"})
        total = session.report().total
    errors = [result for result in results if isinstance(result, BaseException)]
    assert all(right(n, result) for n, result in enumerate(results) if not isinstance(result, BaseException))
    assert (errors, total.failures, total.tasks) == ([], 0, len(results))
    if loses_worker:
        assert total.restarts >= 1
    else:
        assert (total.restarts, total.retries) == (0, 1)


@pytest.mark.parametrize(("code", "kind"), [("500002", InferenceError), ("207001", DeviceMemoryError)])
def test_an_error_on_the_device_that_was_asked_for_is_that_tasks_own(om: str, code: str, kind: type[Exception]) -> None:
    with failing(f"device.execute:5={code}@1") as met, MultiDeviceSession(om, on_error="return") as session:
        results = session.infer({1: [feeds_of(n) for n in range(20)]})[1]
        assert met() >= 5
        (error,) = (result for result in results if isinstance(result, BaseException))
        assert isinstance(error, kind)
        assert code in str(error)
        assert "device 1" in str(error)
        assert all(right(n, result) for n, result in enumerate(results) if result is not error)
        total = session.report().total
        assert (total.tasks, total.failures, total.retries, total.restarts) == (20, 1, 0, 0)


def test_what_every_device_fails_with_is_the_tasks_own_error(om: str) -> None:
    with failing("device.execute:5=500002@0", "device.execute:5=500002@1", count=2) as met, MultiDeviceSession(om) as session:
        session.infer({device: [feeds_of(n) for n in range(4)] for device in range(2)})  # the next run of each device fails
        results = list(session.map((feeds_of(n) for n in range(60)), on_error="return"))
        assert min(met(0), met(1)) >= 5
        assert sum(isinstance(result, BaseException) for result in results) == session.report().total.failures <= 1
        assert all(right(n, result) for n, result in enumerate(results) if not isinstance(result, BaseException))
        assert session.report().total.retries >= 1


def test_a_hang_of_the_only_task_is_its_deadlines_error(om: str) -> None:
    with failing("device.execute=hang", count=2) as met, MultiDeviceSession(om, task_timeout=2.0, **PATIENT) as session:
        with pytest.raises(TaskTimeout, match=r"task_timeout allows 2 s") as caught:
            session.infer(feeds_of(1))
        assert caught.value.device_id in (0, 1)
        assert met() == 2  # tried on exactly two workers


# ---- permanent errors ----


ALWAYS = {
    "every run is a device exception": ("aclmdlExecuteAsync=507011@1", "507011"),
    "every run fails behind its submission": ("device.execute=507015@1", "507015"),
    "the device is lost": ("aclmdlExecuteAsync=lost@1", "507010"),
    "every run crashes": ("aclmdlExecuteAsync=crash@1", "SIGABRT"),
    "every run is an error": ("device.execute=500002@1", "500002"),
    "there is no memory for any run": ("device.execute=207001@1", "207001"),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_a_device_that_always_fails_is_quarantined_and_the_others_finish(
    om: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rule, reason = ALWAYS[name]
    with failing(rule) as met, MultiDeviceSession(om, max_restarts=1, restart_backoff=0, max_attempts=10) as session:
        run_until(session, lambda: states(session) == {0: "ready", 1: "quarantined", 2: "ready"})
        assert met() >= 2  # at the first start and after a restart
        assert session.report().total.failures == 0
        with pytest.raises(PoolBroken, match="device 1"):
            session.infer({1: [feeds_of(0)]})
    assert any("device 1 is quarantined" in text and reason in text for text in caplog.messages), caplog.messages


def test_a_quarantined_device_is_tried_again(om: str) -> None:
    settings = {"max_restarts": 1, "restart_backoff": 0, "max_attempts": 10, "retry_device_after": 3.0}
    with failing("aclmdlExecuteAsync:1-2=507011@1", count=2) as met, MultiDeviceSession(om, **settings) as session:
        run_until(session, lambda: states(session)[1] == "quarantined")
        assert met() >= 2
        wait_until(lambda: states(session)[1] == "ready")
        ((outputs,),) = session.infer({1: [feeds_of(3)]}).values()
        assert right(3, outputs)


# ---- loading ----


LOADS = {
    "out of memory": ("aclmdlLoadFromFile=oom@1", "207001"),
    "no such device any more": ("aclrtSetDevice=507033@1", "507033"),
    "out of memory for a context": ("aclrtCreateContext=oom@1", "207001"),
    "a hang": ("aclmdlLoadFromFile=hang@1", r"start_timeout \(10 s\)"),
    "a crash": ("aclmdlLoadFromFile=crash@1", "SIGABRT"),
}


@pytest.mark.parametrize("name", LOADS)
def test_a_device_that_cannot_load_is_named(om: str, name: str) -> None:
    rule, reason = LOADS[name]
    settings: dict[str, Any] = {"max_restarts": 0, "start_timeout": 10 if name == "a hang" else 60}
    with failing(rule) as met:
        with pytest.raises(WorkerStartError, match=f"(?s)device 1.*{reason}") as caught:
            MultiDeviceSession(om, **settings).start()
        assert caught.value.device_id == 1
        assert met() == 1
        with MultiDeviceSession(om, min_devices=2, **settings) as session:
            assert all(right(n, outputs) for n, outputs in enumerate(session.map(feeds_of(n) for n in range(60))))
            assert states(session) == {0: "ready", 1: "quarantined", 2: "ready"}
        assert met() == 2


def test_an_error_of_every_task_names_each(om: str) -> None:
    """If all devices fail, no device is the reason: every task has its error, and no worker is lost."""
    with failing("device.execute=500002", count=2) as met, MultiDeviceSession(om) as session:
        results = list(session.map((feeds_of(n) for n in range(40)), on_error="return"))
        assert met() >= 40
        assert all(isinstance(result, AisBenchError) and "500002" in str(result) for result in results)
        assert (session.report().total.failures, session.report().total.restarts) == (40, 0)
