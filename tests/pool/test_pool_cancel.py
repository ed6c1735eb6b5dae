"""Unwanted tasks that a worker has begun: the run ends, and the worker takes the next task."""

from __future__ import annotations

import asyncio
import functools
import resource
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import npus
from ais_bench.errors import TaskTimeout
from ais_bench.pool import DevicePool, Task
from ais_bench.session import MultiDeviceSession
from support.acl import Packed
from support.handlers import Growing
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")

FOR_EVER = [np.array(10**12), np.zeros(1, np.float32)]  # steps of the model `loop`, which take hours
BRIEFLY = [np.array(5), np.zeros(1, np.float32)]


def pids(session: MultiDeviceSession) -> list[int | None]:
    return [worker.pid for worker in session.report().workers]


def under_way(session: MultiDeviceSession, count: int = 1) -> None:
    """Wait until `count` tasks have been in the workers for a while."""
    wait_until(lambda: session.progress()["outstanding"] == count)
    time.sleep(0.3)  # the time until a run begins; if it takes longer, the task ends before, which is also right


def answers(session: MultiDeviceSession) -> None:
    """Check that all devices work again."""
    for device in session.devices:
        assert session.infer(BRIEFLY, device=device)[0][0] == 5


def test_the_run_of_a_cancelled_future_ends(onnx_model: Callable[[str], str]) -> None:
    with MultiDeviceSession(onnx_model("loop"), devices=[0, 1]) as session:
        answers(session)
        before = pids(session)
        futures = [session.submit(FOR_EVER) for _ in range(2)]
        under_way(session, 2)
        assert all(future.cancel() for future in futures)
        answers(session)  # it would take hours otherwise
        assert pids(session) == before
        assert session.progress()["cancelled"] == 2


def test_a_call_that_is_given_up_ends_its_run(onnx_model: Callable[[str], str]) -> None:
    async def give_up(session: MultiDeviceSession) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.infer_async(FOR_EVER), 0.3)

    with MultiDeviceSession(onnx_model("loop"), devices=[0]) as session:
        answers(session)
        before = pids(session)
        asyncio.run(give_up(session))
        answers(session)
        assert pids(session) == before


def test_a_task_past_its_own_time_ends_and_costs_no_worker(onnx_model: Callable[[str], str]) -> None:
    with MultiDeviceSession(onnx_model("loop"), devices=[0]) as session:
        answers(session)
        for count in range(1, 6):
            before = pids(session)
            with pytest.raises(TaskTimeout):
                session.submit(FOR_EVER, timeout=0.3).result(20)
            answers(session)
            assert session.progress()["timed_out"] == count
            if pids(session) == before:
                return
        pytest.fail("a worker that may be late by half a second was killed each time")


def test_a_stream_that_is_left_ends_its_runs(onnx_model: Callable[[str], str]) -> None:
    with MultiDeviceSession(onnx_model("loop"), devices=[0]) as session:
        answers(session)
        before = pids(session)
        stream = session.map(iter([BRIEFLY, FOR_EVER, FOR_EVER]))
        assert next(stream)[0][0] == 5
        under_way(session, session.progress()["outstanding"])
        stream.close()
        answers(session)
        assert pids(session) == before


@pytest.mark.parametrize("callables", [{"preprocess": list}, {"postprocess": list}], ids=["preprocess", "postprocess"])
def test_beside_callables_too(onnx_model: Callable[[str], str], callables: dict[str, Callable[..., object]]) -> None:
    with MultiDeviceSession(onnx_model("loop"), devices=[0], **callables) as session:
        assert session.infer(BRIEFLY)[0][0] == 5
        before = pids(session)
        future = session.submit(FOR_EVER)
        under_way(session)
        assert future.cancel()
        assert session.infer(BRIEFLY)[0][0] == 5
        assert pids(session) == before


def hangs_at_times(item: int) -> list[np.ndarray]:
    """A preprocess that hangs for items below 0."""
    time.sleep(600 if item < 0 else 0.005)
    return [np.array(item), np.zeros(1, np.float32)]


def test_task_timeout_holds_while_other_threads_of_the_worker_answer(onnx_model: Callable[[str], str]) -> None:
    settings = {"callable_threads": 2, "task_timeout": 3.0, "max_attempts": 1}
    with MultiDeviceSession(onnx_model("loop"), devices=[0], preprocess=hangs_at_times, **settings) as session:
        assert session.infer(3)[0][0] == 3
        before = pids(session)
        stuck = session.submit(-1)
        deadline = time.monotonic() + 30
        while not stuck.done() and time.monotonic() < deadline:
            assert session.infer(4)[0][0] == 4
        with pytest.raises(TaskTimeout):
            stuck.result(0)
        assert session.infer(5)[0][0] == 5
        assert pids(session) != before


def test_on_npus_tasks_beside_a_cancelled_one_are_answered_all_the_same(packed: Callable[[str], Packed]) -> None:
    """They run at the same time, and the driver ends all of them."""
    feeds = [np.ones((1, 3), np.float32)]
    with npus(1, exec_ms=1000), MultiDeviceSession(packed("batch").om, tasks_in_flight=4) as session:
        wanted = session.infer(feeds, mode=packed("batch").case.mode)
        before = pids(session)
        futures = [session.submit(feeds, mode=packed("batch").case.mode) for _ in range(3)]
        time.sleep(0.15)
        assert futures[0].cancel()
        with pytest.raises(CancelledError):
            futures[0].result(0)
        for future in futures[1:]:
            assert np.array_equal(future.result(20)[0], wanted[0])
        assert pids(session) == before
        assert session.report().total.retries == 0


def test_a_cancelled_task_ends_in_its_second_run_too(tmp_path: Path) -> None:
    """Its outputs did not fit, so it runs again in a larger slot. The worker knows this run by another number."""
    began = tmp_path / "began"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, hard))  # small arenas have small slots
    try:
        pool = DevicePool(functools.partial(Growing, mark=str(began)), [0])
        pool.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pool:
        feeds = [np.array([7], np.uint8)]
        future = pool.submit(feeds)
        wait_until(began.exists)
        assert future.cancel()
        answer = pool.submit(feeds).result(20)  # the worker would be busy for a minute otherwise
        assert np.array_equal(answer[0], np.full(2 << 20, 7, np.uint8))
        assert pool.counts()["cancelled"] == 1
        assert pool.run(Task(feeds)).result()[0].size == 2 << 20
