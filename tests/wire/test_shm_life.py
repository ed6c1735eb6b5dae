"""The life of a lane: failures, the death of its worker, waits and signals, close, fork, and leaks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ais_bench import errors
from ais_bench.shm import ERROR, OBJECT, TENSORS, Doorbell, Lane, Stats, take
from support import TESTS
from support.shm_peer import PATIENCE_S, Peer, peer


def test_failures_are_the_exceptions_of_their_code() -> None:
    from ais_bench._native import _status_codes

    codes = _status_codes()
    with peer("fail") as worker:
        for name, kind in [("FeedMismatch", errors.FeedError), ("Execution", errors.InferenceError)]:
            reply = worker.call([], mode=codes[name])
            assert reply.kind == ERROR
            assert reply.outputs is None
            assert type(reply.error) is kind
            assert str(reply.error) == f"code {codes[name]} as asked \u00fc"
        assert reply.error.code == 7
        for nonsense in (0, 9999):  # a worker's data is not trusted
            assert isinstance(worker.call([], mode=nonsense).error, errors.AisBenchError)
        assert 1000 < len(str(worker.call([], mode=codes["Execution"], option=10_000_000).error)) < 20_000


def test_an_object_for_a_native_worker_is_that_tasks_failure() -> None:
    with peer("native") as worker:
        reply = worker.call([np.zeros(3, np.uint8)], kind=OBJECT)
        assert isinstance(reply.error, errors.UnsupportedError)
        assert worker.call([np.zeros(3)]).kind == TENSORS


def test_replies_of_a_dead_worker_are_drained_and_the_rest_is_named() -> None:
    with peer("hold") as worker:
        for number in range(6):
            assert worker.lane.try_submit([np.full(1000, number)], 0 if number < 4 else 1, number)
        worker.wait_taken()  # the fifth task is taken, so four are answered
        worker.kill()
        assert [worker.reply().task for _ in range(4)] == [0, 1, 2, 3]
        assert worker.lane.poll() is None
        left = worker.lane.abandon()
        assert [task for task, *_ in left] == [4, 5]
        assert [kind for _, _, kind, _ in left] == [TENSORS, TENSORS]
        assert left[0][3]  # taken; the sixth may be taken, too
        with pytest.raises(errors.AisBenchError, match="closed"):
            worker.lane.try_submit([np.zeros(1)], 0, None)
    del worker
    gc.collect()
    for task, feeds, *_ in left:
        assert (feeds[0] == task).all()


def test_what_a_dead_worker_did_not_take_is_told_apart() -> None:
    with peer("hold") as worker:
        assert worker.lane.try_submit([np.zeros(3)], 1, "taken")
        worker.wait_taken()
        worker.kill()
        assert worker.lane.try_submit([np.zeros(3)], 1, "not taken")
        assert [(task, taken) for task, _, _, taken in worker.lane.abandon()] == [("taken", True), ("not taken", False)]


def test_feeds_written_over_by_a_dying_worker_are_not_handed_out() -> None:
    with peer("scribble") as worker:
        assert worker.lane.try_submit([np.zeros(64, np.uint8)], 0, "task")
        worker.wait_taken()
        worker.kill()
        assert worker.lane.abandon() == [("task", None, TENSORS, True)]


def test_oldest_is_the_task_the_worker_is_at() -> None:
    with peer("hold") as worker:
        assert worker.lane.oldest() is None
        begun = time.monotonic_ns()
        for number in range(3):
            assert worker.lane.try_submit([np.zeros(1)], 0 if number < 1 else 1, number)
        worker.wait_taken()
        task, since = worker.lane.oldest()  # the first is answered, although there was no poll
        assert task == 1
        assert begun <= since <= time.monotonic_ns()


def test_waiting_ends_with_a_ring_a_timeout_or_a_signal() -> None:
    bell = Doorbell()
    ticket = bell.ticket()
    begun = time.monotonic()
    assert not bell.wait(ticket, 0.02)
    assert time.monotonic() - begun >= 0.02
    bell.ring()
    assert bell.wait(ticket, PATIENCE_S)

    class Rang(Exception):
        pass

    def handler(*_: object) -> None:
        if waits.is_set():
            waits.clear()
            raise Rang

    def wait() -> None:
        waits.set()
        bell.wait(bell.ticket(), PATIENCE_S)

    def signal_again_and_again() -> None:  # so that one comes while the main thread sleeps in the call
        while not over.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    waits, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=signal_again_and_again)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread.start()
        begun = time.monotonic()
        with pytest.raises(Rang):
            wait()
        assert time.monotonic() - begun < PATIENCE_S / 2
    finally:
        over.set()
        thread.join(PATIENCE_S)
        signal.signal(signal.SIGUSR1, before)


def test_a_closed_lane_takes_no_more_and_ends_the_worker() -> None:
    with peer("native") as worker:
        worker.call([np.zeros(1)])
        worker.lane.close()
        worker.lane.close()
        assert worker.lane.closed
        assert worker.process.wait(PATIENCE_S) == 0
        with pytest.raises(errors.AisBenchError, match="closed"):
            worker.lane.try_submit([np.zeros(1)], 0, None)


def test_dropping_the_lane_ends_the_worker() -> None:
    worker = Peer("native")
    worker.call([np.zeros(1)])
    del worker.lane
    gc.collect()
    assert worker.process.wait(PATIENCE_S) == 0
    worker.kill()


def test_times_add_up_and_are_counted() -> None:
    stats = Stats()
    with peer("native", stats=stats) as worker:
        for _ in range(20):
            reply = worker.call([np.zeros(10)], option=500)
            assert reply.execute_ns >= 500_000
            assert min(reply.queued_ns, reply.copy_in_ns, reply.copy_out_ns) >= 0
            assert reply.end_to_end_ns >= reply.queued_ns + reply.execute_ns
    assert (stats.tasks, stats.failures) == (20, 0)
    assert stats.busy_ns >= 20 * 500_000
    row = stats.to_dict()["execute_ms"]
    assert row["count"] == 20
    assert 0.5 <= row["p50"] <= row["p90"] * 1.02 <= row["max"] * 1.05
    total = Stats()
    total.add(stats)
    total.add(stats)
    assert total.tasks == 40
    total.reset()
    assert total.to_dict()["execute_ms"]["count"] == 0


def test_take_copies() -> None:
    feed = np.arange(12).reshape(3, 4)
    copies = take((feed[:, ::2], feed))
    feed[:] = 0
    assert copies[0].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert copies[1].sum() == 66


def test_dev_shm_plays_no_part() -> None:
    with peer("native") as worker:
        worker.call([np.zeros(1_000_000)])
        maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
        assert "memfd:ais_bench-arena" in maps
        assert "/dev/shm" not in maps
        assert "/dev/shm" not in Path("/proc/self/maps").read_text()


def test_nothing_is_left_of_a_lane() -> None:
    def open_fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    with peer("native") as worker:  # opens what the first use keeps open
        worker.call([np.zeros(1)])
    del worker
    gc.collect()
    fds = open_fds()
    for _ in range(3):
        with peer("native") as worker:
            worker.call([np.zeros(100_000)])
    del worker
    gc.collect()
    assert open_fds() == fds
    assert "ais_bench-arena" not in Path("/proc/self/maps").read_text()


def test_little_address_space_is_enough() -> None:
    program = """
import resource, numpy as np
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from support.shm_peer import peer
with peer("native") as worker:
    feed = np.arange(3_000_000)
    assert (worker.call([feed]).outputs[0] == feed).all()
print("done")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=TESTS, capture_output=True, timeout=PATIENCE_S, text=True)
    assert result.stdout == "done\n", result.stderr


def test_sizes_are_checked_before_anything_is_made() -> None:
    with pytest.raises(errors.ConfigError, match="4096"):
        Lane(Doorbell(), arena_bytes=4096)
    with pytest.raises(errors.ConfigError, match="quarter"):
        Lane(Doorbell(), arena_bytes=1 << 26, result_bytes=1 << 26)


def test_a_forked_child_can_neither_use_nor_harm_the_lane() -> None:
    with peer("native") as worker:
        lent = worker.call([np.full(100_000, 3.0)]).outputs[0]
        assert worker.lane.owns(lent)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            report_from_child(worker, lent, write_end)
        os.close(write_end)
        with os.fdopen(read_end) as report:
            assert report.read() == "submit poll new_feeds oldest readable"
        assert os.waitpid(child, 0)[1] == 0
        assert (lent == 3.0).all()
        assert not worker.lane.closed
        assert worker.call([np.zeros(4)]).outputs[0].shape == (4,)


def report_from_child(worker: Peer, lent: np.ndarray, write_end: int) -> None:
    """Try every call, then run every destructor, like a child that exits normally."""
    done = []
    calls = {
        "submit": lambda: worker.lane.try_submit([np.zeros(1)], 0, None),
        "poll": worker.lane.poll,
        "new_feeds": lambda: worker.lane.new_feeds([((1,), np.uint8)]),
        "oldest": worker.lane.oldest,
    }
    for name, call in calls.items():
        try:
            call()
        except errors.SessionClosed:
            done.append(name)
    if (lent == 3.0).all():
        done.append("readable")
    worker.lane.close()
    worker.lane.abandon()
    worker.lane.trim()
    del lent, worker.lane
    gc.collect()
    os.write(write_end, " ".join(done).encode())
    os._exit(0)
