"""A system without the resources for a worker: this costs the seat one attempt, and has no other effect."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

import pytest

from ais_bench.errors import TransportError, WorkerStartError
from ais_bench.pool import DevicePool, PoolSettings, Task
from ais_bench.pool.supervisor import Supervisor
from support.handlers import Obedient, order
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


def test_a_defect_of_the_supervisor_is_an_error_of_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: Supervisor, _seat: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(Supervisor, "_launch", fail)
    with pytest.raises(WorkerStartError, match="a defect"):
        DevicePool(Obedient, [0, 1]).start()
    assert "the supervisor failed" in caplog.text
