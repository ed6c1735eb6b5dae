"""The transport between real processes: arrays there and back, and the leases of their memory."""

from __future__ import annotations

import gc
import os
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

from ais_bench import errors
from ais_bench.shm import TENSORS, Doorbell, Lane, decode, encode
from support.shm_peer import PATIENCE_S, peer

DTYPES = [
    *(np.dtype(name) for name in ("f4", "f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "int4", "uint4", "float8_e5m2", "float8_e4m3fn")),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("float8_e4m3fnuz", "float8_e5m2fnuz")),
]
SHAPES = [(), (1,), (0,), (3, 0, 2), (5,), (2, 3, 4), (1,) * 12, (70_001,)]


def values(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    return (whole % 7).astype(np.float32).astype(dtype)


def memory_of(lane_fd: int) -> int:
    return os.fstat(lane_fd).st_blocks * 512


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_dtype_and_shape_comes_back_as_it_was(dtype: np.dtype) -> None:
    with peer("native") as worker:
        for shape in SHAPES:
            feed = values(dtype, shape)
            reply = worker.call([feed, feed])
            assert reply.kind == TENSORS
            assert reply.error is None
            for output in reply.outputs:
                assert output.dtype == dtype
                assert output.shape == shape
                assert output.tobytes() == feed.tobytes()
                assert output.flags.writeable
                assert output.flags.c_contiguous


def test_a_task_without_arrays_has_no_outputs() -> None:
    with peer("native") as worker:
        assert worker.call([]).outputs == []


def test_arrays_that_are_not_plain_are_made_plain() -> None:
    base = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    feeds = [base[:, ::-1, ::2], base.T, base.astype(">i4"), np.float32(2.5), np.asfortranarray(base)]
    with peer("native") as worker:
        outputs = worker.call(feeds).outputs
        for output, feed in zip(outputs, feeds, strict=True):
            np.testing.assert_array_equal(output, feed)
            assert output.dtype.isnative
        assert len(worker.call(iter(feeds)).outputs) == len(feeds)


@pytest.mark.parametrize("feeds", [[[1, 2]], ["text"], [None], [np.array(["a"])], [np.array([object()])], "ab", 3])
def test_what_is_no_array_is_refused_and_leaves_nothing_in_flight(feeds: object) -> None:
    lane = Lane(Doorbell())
    with pytest.raises(errors.FeedError):
        lane.try_submit(feeds, 0, None)
    assert lane.in_flight == 0


def test_the_caller_may_reuse_his_buffer_at_once() -> None:
    with peer("native") as worker:
        for size in (10, 1_000_000):
            feed = np.zeros(size, np.uint8)
            for value in range(20):
                feed[:] = value
                assert worker.lane.try_submit([feed], 0, value)
            for value in range(20):
                reply = worker.reply()
                assert reply.task == value
                assert (reply.outputs[0] == value).all()


def test_a_task_is_handed_back_and_let_go() -> None:
    class Thing:
        pass

    thing = Thing()
    before = sys.getrefcount(thing)
    with peer("native") as worker:
        assert worker.lane.try_submit([np.zeros(3)], 0, thing)
        assert worker.reply().task is thing
    assert sys.getrefcount(thing) == before


def test_no_room_is_an_answer_not_a_wait() -> None:
    with peer("hold") as worker:
        for number in range(worker.lane.capacity):
            assert worker.lane.try_submit([np.zeros(1)], 1, number)
        assert worker.lane.in_flight == worker.lane.capacity
        assert not worker.lane.try_submit([np.zeros(1)], 1, None)
        worker.wait_taken()
        worker.kill()
        assert [task for task, _, _, _ in worker.lane.abandon()] == list(range(worker.lane.capacity))


def test_replies_in_another_order_belong_to_their_tasks() -> None:
    with peer("backwards") as worker:
        for number in range(5):
            assert worker.lane.try_submit([np.full(3, number)], 0, number, option=5)
        for number in reversed(range(5)):
            reply = worker.reply()
            assert reply.task == number
            assert (reply.outputs[0] == number).all()


def test_a_python_handler_gets_the_feeds_read_only_and_in_place() -> None:
    with peer("double") as worker:
        reply = worker.call([np.arange(5), np.float32([[1.5]])])
        assert [output.tolist() for output in reply.outputs] == [[0, 2, 4, 6, 8], [[3.0]]]


def test_results_larger_than_their_slot_come_all_the_same() -> None:
    feed = np.random.default_rng(1).integers(0, 255, 9_000_000, np.uint8)
    for body in ("native", "double"):
        with peer(body, arena_bytes=1 << 28, result_bytes=1 << 20) as worker:
            for _ in range(3):
                expected = feed if body == "native" else feed * 2
                np.testing.assert_array_equal(worker.call([feed]).outputs[0], expected)


def test_large_results_are_lent_and_outlive_close_and_death() -> None:
    feed = np.random.default_rng(2).random(300_000)
    with peer("native", arena_bytes=1 << 27) as worker:
        kept = [worker.call([feed + number]).outputs[0] for number in range(30)]
        assert worker.lane.owns(kept[0])
        assert not worker.lane.owns(kept[-1])  # a part of the arena is lent, so that a caller that keeps all blocks nothing
        worker.kill()
        worker.lane.close()
    del worker
    gc.collect()
    for number, output in enumerate(kept):
        np.testing.assert_array_equal(output, feed + number)


def test_a_lent_result_is_not_overwritten_while_any_view_of_it_lives() -> None:
    feed = np.arange(100_000, dtype=np.int64)
    with peer("native") as worker:
        reply = worker.call([feed, feed * 2])
        assert worker.lane.owns(reply.outputs[1])
        part = reply.outputs[1][10:20]
        del reply
        gc.collect()
        for number in range(20):
            worker.call([feed - number, feed + number])
        assert part.tolist() == [2 * index for index in range(10, 20)]


def test_a_lent_result_given_back_is_used_again() -> None:
    feed = np.zeros(100_000)
    with peer("native") as worker:
        addresses = {worker.call([feed]).outputs[0].ctypes.data for _ in range(50)}
        assert len(addresses) <= 2


def test_a_lent_result_may_be_released_by_another_thread() -> None:
    with peer("native") as worker:
        held = [worker.call([np.zeros(100_000)]).outputs]
        assert worker.lane.owns(held[0][0])
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join(PATIENCE_S)
        assert worker.lane.owns(worker.call([np.zeros(100_000)]).outputs[0])


def test_new_feeds_are_used_in_place_and_kept_until_the_reply() -> None:
    with peer("double") as worker:
        arrays = worker.lane.new_feeds([((2, 3), np.float32), ((200_000,), "i8"), ((0,), ml_dtypes.bfloat16)])
        assert [array.shape for array in arrays] == [(2, 3), (200_000,), (0,)]
        assert all(worker.lane.owns(array) for array in arrays[:2])
        for number in range(3):
            arrays[0][...] = number
            arrays[1][...] = number * 10
            outputs = worker.call(arrays).outputs
            assert (outputs[0] == number * 2).all()
            assert (outputs[1] == number * 20).all()
        arrays[1][...] = 5
        assert worker.lane.try_submit(arrays, 0, None)
        del arrays
        gc.collect()
        worker.lane.new_feeds([((200_000,), "i8")])[0].fill(9)  # in another slot, because that one is in use
        assert (worker.reply().outputs[1] == 10).all()


def test_new_feeds_of_one_lane_are_ordinary_arrays_for_another() -> None:
    with peer("native") as one, peer("native") as two:
        array = one.lane.new_feeds([((4,), np.int32)])[0]
        array[:] = 7
        assert not two.lane.owns(array)
        assert two.call([array]).outputs[0].tolist() == [7] * 4


def test_new_feeds_need_a_whole_shape() -> None:
    lane = Lane(Doorbell())
    with pytest.raises(errors.FeedError, match="-1"):
        lane.new_feeds([((2, -1), np.float32)])


def test_sparse_slots_take_no_memory_and_give_it_back() -> None:
    bell = Doorbell()
    lane = Lane(bell)
    assert os.fstat(lane.fd).st_size >= 1 << 24
    assert memory_of(lane.fd) < 1 << 20
    arrays = [lane.new_feeds([((200_000_000,), np.uint8)])[0] for _ in range(2)]
    for array in arrays:
        array[:] = 1
    assert memory_of(lane.fd) >= 400_000_000
    del array, arrays
    lane.trim()
    assert memory_of(lane.fd) < 1 << 20


def test_a_feed_of_half_a_gigabyte() -> None:
    feed = np.zeros(1 << 29, np.uint8)
    feed[:: 1 << 20] = np.arange(512, dtype=np.uint8)
    with peer("native") as worker:
        output = worker.call([feed]).outputs[0]
        assert output.nbytes == feed.nbytes
        assert np.array_equal(output[:: 1 << 20], feed[:: 1 << 20])


def test_feeds_whose_sizes_add_up_beyond_any_memory_are_refused() -> None:
    lane = Lane(Doorbell())
    whole = (((1 << 56),), np.dtype("c16"))  # 2**60 bytes: 16 of them are 0 in 64 bits
    with pytest.raises(errors.DeviceMemoryError, match="shared memory"):
        lane.new_feeds([whole] * 16)
    assert lane.new_feeds([((4,), np.dtype("f4"))])[0].shape == (4,)


def test_feeds_for_which_no_addresses_are_left_are_refused() -> None:
    lane = Lane(Doorbell(), arena_bytes=1 << 26)
    kept = lane.new_feeds([((1 << 25,), np.uint8)])
    with pytest.raises(errors.DeviceMemoryError, match="bytes are left for feeds"):
        lane.new_feeds([((5 << 23,), np.uint8)])
    assert kept[0].size == 1 << 25


def test_more_arrays_than_a_frame_holds_are_refused() -> None:
    lane = Lane(Doorbell())
    with pytest.raises(errors.FeedError, match="65537 arrays"):
        lane.try_submit([np.uint8(0)] * 65_537, 0, None)
    assert lane.in_flight == 0


def test_an_object_of_many_arrays_has_no_more_buffers_than_a_frame_holds() -> None:
    arrays = [np.full(4096, number % 256, np.uint8) for number in range(20_000)]
    buffers = encode(arrays)
    assert len(buffers) < 20_000
    assert all((one == other).all() for one, other in zip(decode(buffers), arrays, strict=True))
