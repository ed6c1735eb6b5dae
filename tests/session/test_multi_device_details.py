"""`map(..., details=True)`: where each item ran, how long its stages took, and the keys that items carry."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.emulator import npus
from ais_bench.errors import FeedError, TaskTimeout
from ais_bench.session import Item, Keyed, MultiDeviceSession
from support.acl import Packed
from support.session import DEVICES, Feeds, pair, same, total

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]


def slowly(item: Any) -> Feeds:
    """A preprocess of 20 ms; an item is the number of its feeds."""
    time.sleep(0.02)
    return pair(item)


def ends_its_worker_once(item: Any) -> Feeds:
    """A preprocess whose first call ends its process."""
    flag, number = item
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return pair(number)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def test_details_come_with_the_outputs_in_order(session: MultiDeviceSession) -> None:
    feeds = [pair(n) for n in range(50)]
    before = time.monotonic_ns()
    results = list(session.map(feeds, details=True))
    after = time.monotonic_ns()
    assert [item.index for _, item in results] == list(range(50))
    assert {item.device_id for _, item in results} <= set(DEVICES)
    for given, (outputs, item) in zip(feeds, results, strict=True):
        same(outputs, [total(given)])
        assert isinstance(item, Item)
        assert before < item.started_ns < item.done_ns < after
        assert item.key is None
        assert item.attempts == 1
        assert item.execute_ms > 0
        assert item.end_to_end_ms >= item.queued_ms + item.execute_ms
        assert item.preprocess_ms == item.postprocess_ms == 0


def test_unordered_details_name_the_index(session: MultiDeviceSession) -> None:
    feeds = [pair(n) for n in range(50)]
    results = list(session.map_unordered(feeds, details=True))
    assert sorted(item.index for _, item in results) == list(range(50))
    for outputs, item in results:
        same(outputs, [total(feeds[item.index])])


@pytest.mark.parametrize("details", [False, True])
def test_a_key_comes_back_and_changes_nothing_else(session: MultiDeviceSession, details: bool) -> None:
    results = list(session.map([Keyed(f"file {n}", pair(n)) for n in range(5)], details=details))
    for n, result in enumerate(results):
        same(result[0] if details else result, [total(pair(n))])
        if details:
            assert result[1].key == f"file {n}"


def test_an_error_stands_in_place_of_the_outputs(session: MultiDeviceSession) -> None:
    items = [pair(0), Keyed("bad", [object()]), pair(2)]
    (_, first), (error, second), (_, third) = session.map(items, on_error="return", details=True)
    assert isinstance(error, FeedError)
    assert (second.index, second.key, second.attempts, second.device_id) == (1, "bad", 0, None)
    assert first.attempts == third.attempts == 1
    with pytest.raises(FeedError):
        list(session.map(items, on_error="raise", details=True))


def test_the_stages_of_callables_have_names_of_their_own(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["open"], devices=[0], preprocess=slowly, postprocess=len) as session:
        results = list(session.map(range(12), details=True))
        report = session.report().total
    for outputs, item in results:
        assert outputs == 1
        assert item.preprocess_ms >= 20
        assert item.postprocess_ms > 0
    # None of them has the 20 ms; on a busy machine single ones may take as long.
    for stage in ("copy_in_ms", "execute_ms", "postprocess_ms", "copy_out_ms"):
        assert min(getattr(item, stage) for _, item in results) < 20, stage
    assert report.preprocess_ms.max == pytest.approx(max(item.preprocess_ms for _, item in results))
    assert report.copy_in_ms.p50 < 20


def test_a_task_that_lost_its_worker_had_two_attempts(models: dict[str, str], tmp_path: Path) -> None:
    with MultiDeviceSession(models["open"], devices=[0], preprocess=ends_its_worker_once) as session:
        ((outputs, item),) = session.map([(str(tmp_path / "flag"), 3)], details=True)
    same(outputs, [total(pair(3))])
    assert item.attempts == 2


@pytest.mark.each_runtime
def test_the_stages_do_not_overlap(models: dict[str, str]) -> None:
    """A copy of 24 MiB takes long enough to be noticed if two stages counted it."""
    large = [np.ones((1 << 20, 3), np.float32)] * 2
    with MultiDeviceSession(models["open"], devices=[0], tasks_in_flight=1) as session:
        items = [item for _, item in session.map([large] * 6, details=True)]
    for item in items:
        stages = item.queued_ms + item.copy_in_ms + item.execute_ms + item.copy_out_ms
        assert item.copy_in_ms > 0
        assert stages <= 1.01 * item.end_to_end_ms


SLOW, SLOWER = -1, -2


def raises_at_times(item: int) -> Feeds:
    """A preprocess that fails for every seventh item."""
    time.sleep({SLOW: 0.3, SLOWER: 1.5}.get(item, 0.001))
    if item % 7 == 3:
        raise LookupError(f"item {item}")
    return pair(item)


def recount(session: MultiDeviceSession, found: list[tuple[Any, Item]]) -> None:
    """Check every figure of the report with the records of the answered items."""
    report, ends = session.report(), session.progress()
    items = [item for _, item in found]
    failed = sum(isinstance(outputs, Exception) for outputs, _ in found)
    assert (report.total.tasks, report.total.failures) == (len(items), failed)
    assert (ends["done"], ends["failed"]) == (len(items) - failed, failed)
    assert ends["accepted"] == sum(count for end, count in ends.items() if end != "accepted")
    assert report.total.throughput_per_s == pytest.approx(ends["done"] / report.total.wall_s, rel=0.01)
    answered = [item for item in items if item.started_ns]
    for device, counts in report.devices.items():
        mine = [item for item in answered if item.device_id == device]
        assert counts.queued_ms.count == len(mine)
        assert counts.tasks == sum(item.device_id == device for item in items)
        for stage in ("queued_ms", "copy_in_ms", "copy_out_ms", "end_to_end_ms", "execute_ms", "preprocess_ms"):
            times = getattr(counts, stage)
            known = sum(getattr(item, stage) for item in mine)
            assert times.mean * times.count == pytest.approx(known, rel=0.01), stage
            assert times.max == pytest.approx(max(getattr(item, stage) for item in mine), rel=0.01), stage
        assert sum(asdict(counts.wall).values()) == pytest.approx(counts.wall_s, rel=0.01)
        assert counts.wall.execute_s + 1e-9 >= min(
            sum(item.execute_ms for item in mine) / 1e3, counts.busy_share * counts.wall_s
        )


def test_the_report_agrees_with_a_recount_from_the_details(models: dict[str, str]) -> None:
    """There are errors, and a worker that dies between two streams."""
    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=raises_at_times, on_error="return") as session:
        session.start()
        found = list(session.map(range(60), details=True))
        pid = session.report().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        found += list(session.map_unordered(range(60), details=True))
        assert session.progress()["accepted"] == len(found)
        recount(session, found)


@pytest.mark.each_runtime
def test_the_report_agrees_with_a_recount_whatever_happens_in_between(models: dict[str, str]) -> None:
    """There are a stream that is left, calls that are cancelled or late, and a device that is removed and added again."""
    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=raises_at_times, on_error="return") as session:
        found: list[tuple[Any, Item]] = list(session.map(range(40), details=True))

        stream = session.map_unordered(range(1000), details=True)
        found += [next(stream) for _ in range(30)]
        # No other thread collects answers, so everything that is done when the stream is left has been yielded.
        while sum(session.progress()[end] for end in ("done", "failed")) > len(found):
            found.append(next(stream))
        stream.close()

        futures = [session.submit(SLOWER) for _ in range(9)]
        assert all(future.cancel() for future in futures)
        found += list(session.map(range(4), details=True))  # so that a worker is free again
        for _ in range(2):
            with pytest.raises(TaskTimeout):
                session.submit(SLOW, timeout=0.05).result(20)
        session.remove_device(1)
        found += list(session.map(range(40), details=True))
        session.add_device(1)
        found += list(session.map(range(40), details=True))
        recount(session, found)
        ends = session.progress()
        assert (ends["cancelled"] >= 9, ends["timed_out"], ends["outstanding"]) == (True, 2, 0)
        assert set(session.report().devices) == set(DEVICES)


def test_the_walls_parts_are_those_of_the_device(packed: Callable[[str], Packed]) -> None:
    """One of two NPUs runs 50 times 10 ms, the other one is idle."""
    model = packed("batch")
    with npus(2, exec_ms=10), MultiDeviceSession(model.om, devices=range(2)) as session:
        session.infer([np.ones((1, 3), np.float32)], mode=model.case.mode, device=0)
        session.reset_summaryinfo()
        for _ in range(50):
            session.infer([np.ones((1, 3), np.float32)], mode=model.case.mode, device=0)
        devices = session.report().devices
    busy, idle = devices[0].wall, devices[1].wall
    assert 0.5 <= busy.execute_s <= devices[0].busy_share * devices[0].wall_s * 1.001
    assert busy.queued_s > 0
    assert sum(asdict(busy).values()) == pytest.approx(devices[0].wall_s, rel=0.01)
    assert (idle.idle_s, idle.execute_s, idle.queued_s) == (pytest.approx(devices[1].wall_s), 0, 0)


def test_items_are_plain_tuples() -> None:
    assert Item(0, None, 1)._asdict()["device_id"] == 1
    assert Keyed("a", [np.zeros(1)]).key == "a"
