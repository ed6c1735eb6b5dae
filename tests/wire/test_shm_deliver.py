"""Native booking of replies in tasks and counts; and the memory of their arrays."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from ais_bench._native import Exchange, PoolTask, PoolWorker
from support.shm_peer import PATIENCE_S, Peer, peer
from support.waiting import wait_until


def handler_name(array: np.ndarray[Any, Any] | None = None) -> str | None:
    """Return numpy's name of the data handler of the array, or of a new array."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    return multiarray.get_handler_name(*([] if array is None else [array]))


class Desk:
    """An exchange with one worker, a peer."""

    def __init__(self, peer: Peer) -> None:
        self.lane, self.bell = peer.lane, peer.bell
        self.exchange = Exchange(peer.bell, in_flight=64)
        self.worker = PoolWorker(7, peer.lane)
        self.exchange.add_worker(self.worker)

    def send(self, feeds: list[np.ndarray[Any, Any]], **more: Any) -> PoolTask:
        task = PoolTask(feeds, **more)
        self.exchange.start(task)
        return task

    def deliver(self, count: int) -> None:
        """Wait until all replies have arrived, and take them together."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ticket = self.bell.ticket()
            if self.lane.oldest() is None:
                break
            assert self.bell.wait(ticket, deadline - time.monotonic()), "no reply came"
        assert self.exchange.progress() == count


def test_a_reply_is_booked_everywhere() -> None:
    with peer("native") as other:
        desk = Desk(other)
        tasks = [desk.send([np.full(3, number)], index=number) for number in range(5)]
        assert (desk.worker.in_hand, desk.exchange.unfinished) == (5, 5)
        desk.deliver(5)
        assert [int(task.result()[0][0]) for task in tasks] == [0, 1, 2, 3, 4]
        assert all(task.done and task.error is None and task.ran_on == 7 and task.outcome == "done" for task in tasks)
        assert all(task.end_to_end_ns > 0 for task in tasks)
        assert (desk.worker.in_hand, desk.worker.answered, desk.exchange.unfinished) == (0, 5, 0)
        assert desk.worker.kill_reason is None
        assert desk.exchange.counts()["done"] == 5
        assert desk.exchange.check() == ""


def test_a_task_that_is_cancelled_stays_so_whatever_arrives_for_it() -> None:
    with peer("native") as other:
        desk = Desk(other)
        task = desk.send([np.zeros(1)])
        wait_until(lambda: desk.lane.oldest() is None, PATIENCE_S)  # it is answered
        desk.exchange.cancel([task])
        assert task.outcome == "cancelled"
        desk.exchange.progress()
        assert task.outcome == "cancelled"
        assert task.outputs is None
        assert (desk.worker.in_hand, desk.exchange.unfinished) == (0, 0)


def test_small_outputs_own_memory_that_is_used_again_only_when_they_are_gone() -> None:
    with peer("native") as other:
        desk = Desk(other)
        kept: list[np.ndarray[Any, Any]] = []
        addresses: set[int] = set()
        for turn in range(50):
            tasks = [desk.send([np.full(3072, 100 * turn + number, np.float32)]) for number in range(8)]
            desk.deliver(8)
            for number, task in enumerate(tasks):
                array = task.result()[0]
                assert array.flags.owndata
                assert array.flags.writeable
                assert (array == 100 * turn + number).all()
                addresses.add(array.ctypes.data)
            kept.append(tasks[3].result()[0])
        assert all((array == 100 * turn + 3).all() for turn, array in enumerate(kept))
        assert len({array.ctypes.data for array in kept}) == len(kept)
        assert len(addresses) < 50 * 8 / 2  # memory was used again


def test_small_outputs_are_arrays_like_any_other() -> None:
    before = handler_name()
    with peer("native") as other:
        desk = Desk(other)
        tasks = [desk.send([np.arange(3072, dtype=np.float32)]) for _ in range(8)]
        desk.deliver(8)
        # When the first reply arrived, it was unknown that more would follow.
        assert {handler_name(task.result()[0]) for task in tasks[1:]} == {"ais_bench"}
        arrays = [task.result().pop() for task in tasks]
        arrays[0].resize((4, 3072), refcheck=False)
        assert arrays[0][0, 3071] == 3071
        assert not arrays[0][1:].any()
        arrays[1].resize(10, refcheck=False)
        assert arrays[1].tolist() == list(range(10))
        ended = threading.Thread(target=arrays.clear)  # freed by another thread than the one that made them
        ended.start()
        ended.join(PATIENCE_S)
        assert not arrays
        assert handler_name() == before  # other code gets numpy's own memory again
