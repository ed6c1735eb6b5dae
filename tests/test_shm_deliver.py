"""Replies booked natively: in the tasks, the worker, the account and the waiters; and the memory of their arrays."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import pytest
from shm_peer import PATIENCE_S, Peer, peer

from ais_bench.errors import InferenceError
from ais_bench.pool.account import Account
from ais_bench.pool.ready_worker import ReadyWorker
from ais_bench.pool.settings import PoolSettings
from ais_bench.pool.task import Task, Waiter
from ais_bench.shm import Records

RECORDS = Records(Task, Waiter, ReadyWorker, Account)


def handler_name(array: np.ndarray | None = None) -> str | None:
    """Whose memory the array has, or a new array would have, in numpy's words."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    return multiarray.get_handler_name(*([] if array is None else [array]))


class Desk:
    """What a dispatcher has, for one worker."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.worker = ReadyWorker(7, peer.lane, lambda: None, PoolSettings())
        self.account = Account()
        self.resolved: deque[Task] = deque()
        self.sleepers: deque[Waiter] = deque()
        self.faulted: deque[Task] = deque()

    def send(self, feeds: list[np.ndarray], waiter: Waiter, **more: object) -> Task:
        task = Task(feeds, waiter, **more)
        self.account.accept(task)
        task.worker = self.worker
        self.worker.load += 1
        assert self.peer.lane.try_submit(feeds, 0, task)
        return task

    def deliver(self, count: int) -> None:
        """Waits until every reply is there, and takes them all at once."""
        deadline = time.monotonic() + PATIENCE_S
        lane, bell = self.peer.lane, self.peer.bell
        while True:
            ticket = bell.ticket()
            if lane.oldest() is None:
                break
            assert bell.wait(ticket, deadline - time.monotonic()), "no reply came"
        assert lane.deliver(RECORDS, self.worker, self.account, self.resolved, self.sleepers, self.faulted) == count


def test_a_reply_is_booked_everywhere() -> None:
    with peer("native") as other:
        desk = Desk(other)
        waiter = Waiter()
        tasks = [desk.send([np.full(3, number)], waiter, index=number) for number in range(5)]
        assert (desk.worker.load, desk.account.outstanding) == (5, 5)
        desk.deliver(5)
        assert [int(task.outputs[0][0]) for task in tasks] == [0, 1, 2, 3, 4]
        assert all(task.done and task.error is None and task.worker is None and task.ran_on == 7 for task in tasks)
        assert all(task.feeds is None and task.end_to_end_ns > 0 for task in tasks)
        assert (desk.worker.load, desk.worker.answered, desk.account.outstanding, waiter.finished) == (0, 5, 0, 5)
        assert desk.worker.cost_ns >= 0
        assert desk.worker.lost is None
        assert not desk.resolved
        assert not desk.sleepers


def test_who_sleeps_is_named_and_futures_are_set_aside() -> None:
    with peer("native") as other:
        desk = Desk(other)
        waiter = Waiter()
        waiter.prepare()
        future = object()
        task = desk.send([np.zeros(1)], waiter, future=future)
        assert desk.account.futures == 1
        desk.deliver(1)
        assert list(desk.resolved) == [task]
        assert list(desk.sleepers) == [waiter]
        assert desk.account.futures == 0


def test_a_task_that_is_done_already_stays_as_it_is() -> None:
    with peer("native") as other:
        desk = Desk(other)
        waiter = Waiter()
        task = desk.send([np.zeros(1)], waiter)
        given_up = InferenceError("given up")
        task.error, task.done = given_up, True
        desk.account.outstanding -= 1
        desk.deliver(1)
        assert task.error is given_up
        assert task.outputs is None
        assert (desk.worker.load, desk.account.outstanding, waiter.finished) == (0, 0, 0)


def test_only_the_pools_records_are_written_to() -> None:
    class Other:
        __slots__ = ("done",)

    with pytest.raises((AttributeError, TypeError), match="outputs"):
        Records(Other, Waiter, ReadyWorker, Account)

    class Loose:
        done = outputs = error = feeds = answer_kind = end_to_end_ns = worker = ran_on = waiter = future = None

    with pytest.raises(TypeError, match="no slot named done"):
        Records(Loose, Waiter, ReadyWorker, Account)
    with peer("native") as other:
        desk = Desk(other)
        assert other.lane.try_submit([np.zeros(1)], 0, "no task")
        desk.worker.load += 1
        with pytest.raises(TypeError, match="no task"):
            desk.deliver(1)


def test_small_outputs_own_memory_that_is_used_again_only_when_they_are_gone() -> None:
    with peer("native") as other:
        desk = Desk(other)
        waiter = Waiter()
        kept: list[np.ndarray] = []
        addresses: set[int] = set()
        for turn in range(50):
            tasks = [desk.send([np.full(3072, 100 * turn + number, np.float32)], waiter) for number in range(8)]
            desk.deliver(8)
            for number, task in enumerate(tasks):
                array = task.outputs[0]
                assert array.flags.owndata
                assert array.flags.writeable
                assert (array == 100 * turn + number).all()
                addresses.add(array.ctypes.data)
            kept.append(tasks[3].outputs[0])
        assert all((array == 100 * turn + 3).all() for turn, array in enumerate(kept))
        assert len({array.ctypes.data for array in kept}) == len(kept)
        assert len(addresses) < 50 * 8 / 2  # memory was used again


def test_small_outputs_are_arrays_like_any_other() -> None:
    before = handler_name()
    with peer("native") as other:
        desk = Desk(other)
        waiter = Waiter()
        tasks = [desk.send([np.arange(3072, dtype=np.float32)], waiter) for _ in range(8)]
        desk.deliver(8)
        assert {handler_name(task.outputs[0]) for task in tasks[1:]} == {
            "ais_bench"
        }  # the first came before it was known that more do
        arrays = [task.outputs.pop() for task in tasks]
        arrays[0].resize((4, 3072), refcheck=False)
        assert arrays[0][0, 3071] == 3071
        assert not arrays[0][1:].any()
        arrays[1].resize(10, refcheck=False)
        assert arrays[1].tolist() == list(range(10))
        ended = threading.Thread(target=arrays.clear)  # freed by another thread than the one that made them
        ended.start()
        ended.join(PATIENCE_S)
        assert not arrays
        assert handler_name() == before  # numpy's own memory again for everybody else
