"""The pool in normal use: order, choice of device, futures, streams, errors, logs. Handlers are fakes; no worker dies."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ais_bench.errors import ConfigError, ConfigTypeError, FeedError, PoolClosed, TaskTimeout
from ais_bench.pool import Answer, DevicePool, PoolSettings, Task
from ais_bench.wire.pickling import RemoteTraceback
from support.handlers import Echo, Marking, Obedient, order
from support.pool import by_policy, one, submit
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture(params=[Obedient, Echo], ids=["python", "native"])
def echo_pool(request: pytest.FixtureRequest) -> Iterator[DevicePool]:
    with DevicePool(request.param, [0, 1]) as pool:
        yield pool


def stream(pool: DevicePool, items: Any) -> Iterator[int]:
    tasks = pool.ordered(items, lambda item, index: Task(order(0, item), index=index))
    return (int(task.result()[0][1]) for task in tasks)


def test_results_come_in_the_order_of_the_items(echo_pool: DevicePool) -> None:
    assert list(stream(echo_pool, range(3000))) == list(range(3000))


def test_unordered_delivers_each_once(echo_pool: DevicePool) -> None:
    tasks = echo_pool.unordered(range(1000), lambda item, index: Task(order(0, item), index=index))
    pairs = [(task.index, int(task.result()[0][1])) for task in tasks]
    assert sorted(pairs) == [(index, index) for index in range(1000)]


def test_every_dtype_and_shape_comes_back_as_it_went(echo_pool: DevicePool) -> None:
    for dtype in ("float32", "float16", "int8", "int64", "uint64", "bool", "complex64"):
        for shape in ((), (0,), (1,), (3, 0, 2), (2, 3, 5), (300, 400)):
            feed = np.ones(shape, dtype)
            wide = [np.zeros(2, np.int64), feed]  # the first is the order: echo
            out = echo_pool.run(Task(wide)).result()[1]
            assert (out.dtype, out.shape) == (feed.dtype, feed.shape)
            np.testing.assert_array_equal(out, feed)


def test_outputs_are_valid_after_close_and_independent() -> None:
    with DevicePool(Echo, [0]) as pool:
        big = np.arange(1_000_000, dtype=np.int64)
        kept = [pool.run(Task([big + index])).result()[0] for index in range(20)]
    for index, array in enumerate(kept):
        assert array[0] == index
        array[0] = -1  # writable
    assert [int(array[1]) for array in kept] == [index + 1 for index in range(20)]


def test_a_pinned_task_runs_on_its_device(pool: DevicePool) -> None:
    for device in (0, 1, 1, 0):
        task = pool.run(Task(order(Obedient.WHO), device=device))
        assert task.result()[0][1] == device == task.ran_on


def test_run_all_obeys_devices_and_keeps_the_order(pool: DevicePool) -> None:
    done = pool.run_all([Task(order(0, n), device=n % 2, index=n) for n in range(200)])
    assert [int(task.result()[0][1]) for task in done] == list(range(200))
    assert [task.ran_on for task in done] == [n % 2 for n in range(200)]


def test_a_slow_device_gets_less() -> None:
    with DevicePool(Obedient, [0, 1], PoolSettings(tasks_in_flight=2)) as pool:
        tasks = list(pool.ordered(range(100), lambda _item, _n: Task(order(Obedient.SLOW_ON_0, 200))))
        assert sum(task.ran_on == 0 for task in tasks) < 40  # none if it wakes up after the other one has done all


def test_an_error_of_the_handler_fails_that_task_only_and_keeps_its_type(pool: DevicePool) -> None:
    with pytest.raises(LookupError, match="order 7") as caught:
        one(pool, Obedient.RAISE, 7)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "support/handlers.py" in str(caught.value.__cause__)
    assert one(pool, 0, 1)[0][1] == 1
    assert [worker.restarts for worker in pool.workers()] == [0, 0]


def test_feeds_that_are_no_arrays_fail_that_task_only(pool: DevicePool) -> None:
    with pytest.raises(FeedError, match="str"):
        pool.run(Task(["text"])).result()
    future = pool.submit(Task(["text"]))
    with pytest.raises(FeedError, match="str"):
        future.result(10)
    assert one(pool, 0, 1)[0][1] == 1


def test_lines_and_log_records_of_a_worker_reach_logging_with_the_device(
    pool: DevicePool, caplog: pytest.LogCaptureFixture
) -> None:
    one(pool, Obedient.PRINT, 5, device=1)
    one(pool, Obedient.LOG, 6, device=0)
    wait_until(lambda: len([r for r in caplog.records if r.name in ("ais_bench.worker", "somebody")]) >= 3)
    lines = {record.getMessage(): record for record in caplog.records}
    assert lines["device 1: printed 5"].name == "ais_bench.worker"
    assert lines["device 1: complained 5"].levelno == logging.WARNING
    assert (lines["device 0: logged 6"].name, lines["device 0: logged 6"].levelno) == ("somebody", logging.ERROR)
    assert lines["device 0: logged 6"].device_id == 0  # type: ignore[attr-defined]


def test_the_description_comes_from_a_worker(pool: DevicePool) -> None:
    assert pool.description()["pid"] in [worker.pid for worker in pool.workers()]


def test_several_workers_share_a_device() -> None:
    with DevicePool(Obedient, [3], PoolSettings(workers_per_device=3)) as pool:
        pool.start()
        pids = {int(submit(pool, Obedient.WHO).result(10)[0][0]) for _ in range(3)}
        assert pids <= {worker.pid for worker in pool.workers()}
        assert [worker.device for worker in pool.workers()] == [3, 3, 3]


# ---- streams ----


def test_an_endless_iterable_is_only_read_as_far_as_the_window(pool: DevicePool) -> None:
    taken = itertools.count()
    results = stream(pool, (next(taken) for _ in itertools.count()))
    assert [next(results) for _ in range(100)] == list(range(100))
    ahead = next(taken)
    time.sleep(0.05)  # enough time to see whether it reads ahead by itself
    assert next(taken) == ahead + 1 <= 100 + PoolSettings().window_items + 1
    results.close()  # type: ignore[attr-defined]


def test_an_iterable_may_reuse_its_buffer(echo_pool: DevicePool) -> None:
    buffer = np.zeros(50_000, np.int64)

    def items() -> Iterator[Any]:
        for index in range(200):
            buffer[0], buffer[1:] = 0, index
            yield [buffer]
            buffer[1:] = -1

    tasks = echo_pool.ordered(items(), lambda item, _index: Task(item))
    assert [int(task.result()[0][-1]) for task in tasks] == list(range(200))


def test_an_error_of_the_iterable_comes_after_the_results_before_it(pool: DevicePool) -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise ZeroDivisionError("from the iterable")

    results = stream(pool, items())
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(ZeroDivisionError, match="from the iterable"):
        next(results)


def test_leaving_a_stream_early_frees_the_workers(pool: DevicePool) -> None:
    for _ in range(20):
        results = stream(pool, itertools.count())
        next(results)
        del results
    assert one(pool, 0, 9)[0][1] == 9


def test_an_iterable_that_uses_the_pool_itself_finds_room() -> None:
    with DevicePool(Obedient, [0], PoolSettings(tasks_in_flight=1)) as pool:
        assert list(stream(pool, (int(one(pool, 0, n)[0][1]) for n in range(50)))) == list(range(50))


def test_an_iterable_that_waits_for_another_thread_stops_no_other_call() -> None:
    with DevicePool(Obedient, [0], PoolSettings(tasks_in_flight=2)) as pool:
        pool.start()
        gate = threading.Event()

        def items() -> Iterator[int]:
            yield 1
            assert gate.wait(20)
            yield 2

        other = threading.Thread(target=lambda: (one(pool, 0, 5), gate.set()))
        results = stream(pool, items())
        other.start()
        assert list(results) == [1, 2]
        other.join(20)


def test_close_does_not_wait_for_an_iterable_that_does() -> None:
    pool = DevicePool(Obedient, [0], PoolSettings(tasks_in_flight=4))
    asked, go_on = threading.Event(), threading.Event()
    ended: list[BaseException] = []

    def items() -> Iterator[int]:
        yield 0
        asked.set()
        assert go_on.wait(20)
        yield 1

    def use() -> None:
        try:
            list(stream(pool, items()))
        except PoolClosed as closed:
            ended.append(closed)

    thread = threading.Thread(target=use)
    thread.start()
    assert asked.wait(20)
    pool.close()
    assert pool.workers()[0].state == "empty"
    assert not go_on.is_set()
    go_on.set()  # its place is in a worker that was removed
    thread.join(20)
    assert [type(error) for error in ended] == [PoolClosed]


def test_a_stream_inside_a_stream(pool: DevicePool) -> None:
    outer = stream(pool, (sum(stream(pool, range(n))) for n in range(20)))
    assert list(outer) == [n * (n - 1) // 2 for n in range(20)]


# ---- futures ----


def test_futures_from_many_threads(echo_pool: DevicePool) -> None:
    echo_pool.start()
    results: dict[int, list[int]] = {}

    def work(thread: int) -> None:
        futures = [submit(echo_pool, 0, thread * 1000 + n) for n in range(100)]
        results[thread] = [int(future.result(30)[0][1]) for future in futures]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {t: [t * 1000 + n for n in range(100)] for t in range(16)}


def test_callers_and_futures_at_the_same_time(echo_pool: DevicePool) -> None:
    echo_pool.start()
    failures: list[BaseException] = []

    def calls() -> None:
        try:
            for n in range(300):
                assert one(echo_pool, 0, n)[0][1] == n
            assert list(stream(echo_pool, range(500))) == list(range(500))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(300):
        assert submit(echo_pool, 0, n).result(30)[0][1] == n
    for thread in threads:
        thread.join(60)
    assert not failures


def test_the_feeds_of_a_future_may_be_reused_at_once(echo_pool: DevicePool) -> None:
    buffer = np.zeros(3, np.int64)
    futures = []
    for n in range(500):
        buffer[2] = n
        futures.append(echo_pool.submit(Task([buffer])))
    buffer[2] = -1
    assert [int(future.result(30)[0][2]) for future in futures] == list(range(500))


def test_a_cancelled_future_is_not_run(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0], PoolSettings(tasks_in_flight=1)) as pool:
        busy = submit(pool, Obedient.WAIT)
        waiting = submit(pool, Obedient.RAISE, 1)
        assert waiting.cancel()
        with pytest.raises(CancelledError):
            waiting.result(0)
        marks.go()
        assert busy.result(10)
        assert one(pool, 0, 1)
        assert pool.device_infos()[0].stats.failures == 0  # so RAISE never ran


def test_a_future_past_its_timeout_fails_where_it_waits(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0], PoolSettings(tasks_in_flight=1)) as pool:
        busy = submit(pool, Obedient.WAIT)
        with pytest.raises(TaskTimeout):
            submit(pool, 0, 1, timeout=0.05).result(10)
        assert not busy.done()
        marks.go()
        assert busy.result(10)


def test_a_future_past_its_timeout_has_its_worker_killed() -> None:
    with DevicePool(Obedient, [0]) as pool:
        before = one(pool, Obedient.WHO)[0][0]
        with pytest.raises(TaskTimeout) as caught:
            submit(pool, Obedient.HANG, timeout=1.0).result(10)  # time enough for the worker to begin it
        assert caught.value.device_id == 0
        assert one(pool, Obedient.WHO)[0][0] != before


def test_callbacks_run_on_one_thread_and_may_use_the_pool(pool: DevicePool) -> None:
    names: list[str] = []
    values: list[int] = []
    finished = threading.Event()

    def callback(future: Any) -> None:
        names.append(threading.current_thread().name)
        values.append(int(one(pool, 0, 40)[0][1]))
        finished.set()

    submit(pool, 0, 2).add_done_callback(callback)
    assert finished.wait(20)
    assert (names, values) == (["ais_bench futures"], [40])


def test_a_callback_that_wants_to_exit_stops_no_other_callback(pool: DevicePool, caplog: pytest.LogCaptureFixture) -> None:
    def leave(_future: object) -> None:
        raise SystemExit(3)

    gate = threading.Event()
    first = submit(pool, Obedient.SLEEP_MS, 50)
    first.add_done_callback(leave)
    submit(pool, Obedient.SLEEP_MS, 50).add_done_callback(lambda _future: gate.set())
    assert gate.wait(20)
    assert first.result(20)
    assert submit(pool, 0, 7).result(20)[0][1] == 7
    assert any(record.exc_info and record.exc_info[0] is SystemExit for record in caplog.records)


def test_waiting_for_many_futures(pool: DevicePool) -> None:
    done, pending = wait([submit(pool, Obedient.SLEEP_MS, 1) for _ in range(50)], timeout=30)
    assert (len(done), len(pending)) == (50, 0)


# ---- devices come and go ----


def test_adding_and_removing_devices(pool: DevicePool) -> None:
    pool.start()
    pool.add_device(5)
    assert one(pool, Obedient.WHO, device=5)[0][1] == 5
    pool.remove_device(0)
    assert pool.devices == (1, 5)
    assert {worker.device for worker in pool.workers()} == {1, 5}
    assert list(stream(pool, range(100))) == list(range(100))
    pool.add_device(0)
    assert one(pool, Obedient.WHO, device=0)[0][1] == 0


def outcomes(*calls: Callable[[], object]) -> list[str]:
    """Return the sorted outcomes of calls that threads make at the same time: "done", or the type of the error."""
    found: list[str] = []
    together = threading.Barrier(len(calls))

    def make(call: Callable[[], object]) -> None:
        together.wait(10)
        try:
            call()
        except Exception as error:
            found.append(type(error).__name__)
        else:
            found.append("done")

    threads = [threading.Thread(target=make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return sorted(found)


def test_one_of_several_threads_adds_or_removes_a_device(pool: DevicePool) -> None:
    pool.start()
    assert outcomes(*[lambda: pool.add_device(5)] * 4) == ["ConfigError"] * 3 + ["done"]
    assert pool.devices == (0, 1, 5)
    assert sorted(worker.device for worker in pool.workers()) == [0, 1, 5]
    assert outcomes(*[lambda: pool.remove_device(5)] * 4) == ["ConfigError"] * 3 + ["done"]
    assert sorted(worker.device for worker in pool.workers()) == [0, 1]


def test_a_device_that_is_being_removed_cannot_be_added(tmp_path: Path) -> None:
    marks = Marking(tmp_path)
    with DevicePool(marks, [0, 1]) as pool:
        pool.start()
        slow = submit(pool, Obedient.WAIT, device=0)
        removal = threading.Thread(target=pool.remove_device, args=(0,))
        removal.start()
        wait_until(lambda: pool.devices == (1,), what="the device is being removed")
        with pytest.raises(ConfigError, match="device 0 is being added or removed by another call"):
            pool.add_device(0)
        marks.go()
        assert slow.result(10)
        removal.join(20)
        assert not removal.is_alive()
        pool.add_device(0)
        assert one(pool, Obedient.WHO, device=0)[0][1] == 0


def test_a_device_that_the_pool_never_had_is_refused(pool: DevicePool) -> None:
    for use in (
        lambda: submit(pool, Obedient.WHO, device=7),
        lambda: pool.run(Task(order(Obedient.WHO), device=7)),
        lambda: pool.run_all([Task(order(Obedient.WHO), device=0), Task(order(Obedient.WHO), device=7)]),
    ):
        with pytest.raises(ConfigError, match=r"device 7 is not in the pool; there are \[0, 1\]"):
            use()
    with pytest.raises(ConfigTypeError, match="device_id must be an integer"):
        pool.submit([np.ones(1)], device="first")  # type: ignore[arg-type]


class Listing(Obedient):
    """Returns a list in place of an Answer."""

    def run(self, task: Any) -> Any:
        return list(super().run(task).outputs)


def test_a_handler_that_returns_no_answer_is_told_so() -> None:
    with (
        DevicePool(Listing, [0]) as pool,
        pytest.raises(TypeError, match="run of the handler Listing must return an Answer, got list"),
    ):
        one(pool, Obedient.WHO)


class Answering(Obedient):
    """Returns an Answer that cannot be sent; the task chooses which."""

    WRONG: ClassVar[list[Any]] = [
        Answer("text"),
        Answer({"y": np.zeros(1)}),
        Answer(["text"]),
        Answer([np.array([object()])]),
        Answer([np.zeros(1)], kind=4),
        Answer([np.zeros(1)], kind=70000),
        Answer([np.zeros(1)], execute_ns=1.5),  # type: ignore[arg-type]
        Answer([np.zeros(1)], copy_in_ns=-1),
    ]

    def run(self, task: Any) -> Answer:
        return self.WRONG[int(task.feeds[0][0])]


def test_an_answer_that_cannot_be_sent_is_the_handlers_error() -> None:
    wanted = [
        "whose outputs are a list of arrays, got str",
        "whose outputs are a list of arrays, got dict",
        "whose outputs are arrays: output 0 is a str; accepted are numpy arrays",
        "whose outputs are arrays: output 0 is an array of object",
        r"whose kind is TENSORS \(0\) or OBJECT \(1\), got 4",
        r"whose kind is TENSORS \(0\) or OBJECT \(1\), got 70000",
        "whose execute_ns is an int of nanoseconds, at least 0, got 1.5",
        "whose copy_in_ns is an int of nanoseconds, at least 0, got -1",
    ]
    with DevicePool(Answering, [0]) as pool:
        for number, text in enumerate(wanted):
            with pytest.raises(TypeError, match="run of the handler Answering must return an Answer " + text):
                pool.submit([np.array([number])]).result(20)
        assert [worker.restarts for worker in pool.workers()] == [0]


def test_removing_a_device_lets_it_finish(pool: DevicePool) -> None:
    pool.start()
    slow = [submit(pool, Obedient.SLEEP_MS, 100, device=0) for _ in range(2)]
    pool.remove_device(0)
    assert all(future.result(10) for future in slow)
    assert pool.device_infos()[0].retries == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_a_closed_pool_refuses_an_item_after_the_results_of_earlier_items(pool: DevicePool, ordered: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        pool.close()
        yield 3

    make = pool.ordered if ordered else pool.unordered
    results = make(items(), lambda item, index: Task(order(0, item), index=index))
    assert sorted(int(next(results).result()[0][1]) for _ in range(3)) == [0, 1, 2]
    with pytest.raises(PoolClosed, match="the pool is closed"):
        next(results)


def test_nothing_after_close(pool: DevicePool) -> None:
    one(pool, 0, 1)
    pool.close()
    pool.close()
    for use in (lambda: one(pool, 0, 1), lambda: submit(pool, 0, 1), lambda: list(stream(pool, [1])), pool.description):
        with pytest.raises(PoolClosed):
            use()


def test_times_are_counted_and_can_be_reset(pool: DevicePool) -> None:
    for _ in range(20):
        one(pool, Obedient.SLEEP_MS, 2)
    infos = pool.device_infos()
    assert sum(info.stats.tasks for info in infos) == 20
    execute = max(info.stats.to_dict()["execute_ms"]["p50"] for info in infos)
    assert 2.0 <= execute < 1000
    assert pool.wall_s() >= 0.04
    pool.reset_times()
    assert sum(info.stats.tasks for info in pool.device_infos()) == 0
    assert pool.wall_s() == 0


@by_policy
@pytest.mark.parametrize("fewest", [2, 6])
def test_a_few_long_tasks_of_a_stream_are_spread_over_the_devices(fewest: int) -> None:
    with DevicePool(Obedient, [0, 1, 2], PoolSettings(fewest_in_flight=fewest)) as pool:
        pool.start()
        for _ in range(2):  # before and after the times of tasks are known
            tasks = pool.ordered([300] * 3, lambda ms, index: Task(order(Obedient.SLEEP_MS, ms), index=index))
            assert sorted(task.ran_on for task in tasks) == [0, 1, 2]
