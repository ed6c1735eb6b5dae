"""A system without the resources for a worker: this costs the seat one attempt, and has no other effect."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ais_bench.errors import TransportError, WorkerStartError
from ais_bench.pool import DevicePool, PoolSettings, Task, WorkerContext
from ais_bench.pool.supervisor import Supervisor
from support.handlers import Obedient, order
from support.scripts import run_script
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up all descriptors of this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    try:
        with contextlib.suppress(OSError):
            while len(taken) <= highest + 8:
                taken.append(os.dup(taken[0]))
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(taken[0])
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def one(pool: DevicePool, argument: int, device: int | None = None) -> int:
    return int(pool.run(Task(order(0, argument), device=device)).result()[0][1])


def states(pool: DevicePool) -> list[str]:
    return [worker.state for worker in pool.workers()]


def test_a_restart_without_descriptors_is_tried_again_and_the_others_go_on() -> None:
    settings = PoolSettings(max_restarts=1000, restart_backoff=0.01)
    with DevicePool(Obedient, [0, 1], settings) as pool:
        pool.start()
        pid = pool.workers()[0].pid
        assert pid is not None
        (seat, _) = pool._core.supervisor.seats
        with no_descriptors():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: "Too many open files" in str(seat.last_error))
            assert [one(pool, number) for number in range(20)] == list(range(20))
        wait_until(lambda: states(pool) == ["ready", "ready"])
        assert one(pool, 7, device=0) == 7


def test_a_pool_that_finds_too_few_descriptors_keeps_none() -> None:
    DevicePool(Obedient, [0]).close()  # what the process keeps after its first pool
    before, (soft, hard) = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for room in range(6):
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + room, hard))
        try:
            DevicePool(Obedient, [0]).close()
        except (TransportError, OSError):
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)
        assert len(os.listdir("/proc/self/fd")) == before
    assert refused


def test_a_session_that_finds_too_few_descriptors_says_so_and_the_next_one_works(onnx_model: Callable[[str], str]) -> None:
    """In a fresh process, because the first session imports most, and decides what goes by name."""
    code = """
        import os, resource, sys
        import numpy as np
        from ais_bench.errors import AisBenchError
        from ais_bench.session import MultiDeviceSession

        HERE = 3.0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        how = {"preprocess": lambda item: [np.full((2, 4), item + HERE, np.float32)]} if sys.argv[3] == "callable" else {}
        MultiDeviceSession  # it imports its module
        before = set(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + int(sys.argv[2]), hard))
        try:
            MultiDeviceSession(sys.argv[1], devices=[0], **how).start()
            print("started")
        except AisBenchError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with MultiDeviceSession(sys.argv[1], devices=[0], **how) as session:
            (y,) = session.infer(1) if how else session.infer([np.full((2, 4), 4, np.float32)])
            assert (y == -4).all()
        print(set(os.listdir("/proc/self/fd")) - before)
    """
    for kind in ("arrays", "callable"):
        for room in range(2, 10, 2):
            said, left = run_script(code, onnx_model("batch"), str(room), kind).splitlines()
            assert left == "set()"
            assert re.search(r"Too many open files.*this process may have \d+ open files \(ulimit -n\): close some", said), said
            assert "SessionFactory" not in said


def test_feeds_for_which_a_limit_left_too_little_shared_memory_are_refused_with_both_sizes() -> None:
    said = run_script("""
        import resource
        import numpy as np
        from ais_bench.errors import DeviceMemoryError
        from ais_bench.pool import DevicePool
        from support.handlers import Echo

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, hard))
        with DevicePool(Echo, [0]) as pool:
            try:
                pool.submit([np.zeros(64 << 20, np.uint8)]).result(30)
            except DeviceMemoryError as error:
                print(error)
            print(len(pool.submit([np.zeros(1 << 20, np.uint8)]).result(30)))
    """)
    assert re.search(
        r"feeds of 67108864 bytes do not fit .* of its worker, \d+ bytes for feeds and outputs.*ulimit -f", said
    ), said
    assert said.splitlines()[-1] == "1"


def test_a_start_without_descriptors_says_so() -> None:
    with DevicePool(Obedient, [0], PoolSettings(restart_backoff=0)) as pool, no_descriptors():
        with pytest.raises(WorkerStartError, match="device 0: the worker cannot be started.*Too many open files") as caught:
            pool.start()
        assert caught.value.device_id == 0
        assert isinstance(caught.value.__cause__, (OSError, TransportError))


def test_without_a_thread_for_the_supervisor_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Supervisor) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(Supervisor, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            DevicePool(Obedient, [0])
    with DevicePool(Obedient, [0]) as pool:
        assert one(pool, 7) == 7


class WithoutThreads(Obedient):
    """A handler for whose threads the system has no room."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        raise RuntimeError("can't start new thread")


def test_a_worker_that_gets_no_thread_says_which_limits_there_are() -> None:
    with (
        DevicePool(WithoutThreads, [0]) as pool,
        pytest.raises(WorkerStartError, match="RuntimeError: can't start new thread; ulimit -u: .*threads of this process"),
    ):
        pool.start()


def test_the_kernel_kills_a_worker_before_the_parent() -> None:
    """What a worker's handler allocates is not checked, and a kernel that chose the parent would end everything."""

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    with DevicePool(Obedient, [0, 1]) as pool:
        pool.start()
        pids = [worker.pid for worker in pool.workers() if worker.pid is not None]
        assert [score(pid) for pid in pids] == [min(1000, score(os.getpid()) + 500)] * 2


def test_a_defect_of_the_supervisor_is_an_error_of_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: Supervisor, _seat: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(Supervisor, "_launch", fail)
    with pytest.raises(WorkerStartError, match="a defect"):
        DevicePool(Obedient, [0, 1]).start()
    assert "the supervisor failed" in caplog.text
