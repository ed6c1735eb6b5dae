"""Calls of a MultiDeviceSession besides `infer` and `map`: one device, asyncio, progress, copies of unstarted sessions."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import ConfigError, ConfigTypeError, FeedError
from ais_bench.session import MultiDeviceSession
from support.session import DEVICES, Feeds, pair, same, total
from support.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]


def test_infer_on_one_device(session: MultiDeviceSession) -> None:
    for device in [*DEVICES, *reversed(DEVICES)]:
        same(session.infer(pair(3), device=device), [total(pair(3))])
        assert list(session.summary()) == [device]
    with pytest.raises(ConfigError, match="device"):
        session.infer({DEVICES[0]: [pair(1)]}, device=DEVICES[0])
    with pytest.raises(ConfigError):
        session.infer(pair(1), device=77)


def test_amap_keeps_the_order_and_takes_any_iterable(models: dict[str, str]) -> None:
    async def items() -> AsyncIterator[Feeds]:
        for n in range(30):
            await asyncio.sleep(0)
            yield pair(n)

    async def use() -> None:
        async with MultiDeviceSession(models["open"], devices=DEVICES) as session:
            assert session.report().workers
            for source in (items(), [pair(n) for n in range(30)], (pair(n) for n in range(30))):
                n = 0
                async for outputs in session.amap(source):
                    same(outputs, [total(pair(n))])
                    n += 1
                assert n == 30
            mixed = [pair(0), [object()], pair(2)]
            results = [result async for result in session.amap(mixed, on_error="return")]
            assert [isinstance(result, FeedError) for result in results] == [False, True, False]
            with pytest.raises(FeedError):
                [result async for result in session.amap(mixed)]

    asyncio.run(use())


def test_leaving_amap_cancels_what_is_under_way(session: MultiDeviceSession) -> None:
    async def use() -> None:
        results = session.amap(pair(n) for n in range(10**9))
        async for outputs in results:
            same(outputs, [total(pair(0))])
            break
        await results.aclose()  # type: ignore[attr-defined]

    asyncio.run(use())
    wait_until(lambda: session.progress()["outstanding"] == 0)


def test_progress_counts_every_item_once_while_it_runs(session: MultiDeviceSession) -> None:
    assert session.progress() == dict.fromkeys(session.progress(), 0)
    seen: list[dict[str, int]] = []
    for _ in session.map((pair(n) for n in range(100)), details=True):
        seen.append(session.progress())
    assert [counts["done"] for counts in seen] == sorted(counts["done"] for counts in seen)
    for counts in seen:
        assert counts["accepted"] == sum(counts.values()) - counts["accepted"]
    assert session.progress()["done"] == 100
    assert session.report().ends == session.progress()


def test_repr_says_what_it_is_about(models: dict[str, str]) -> None:
    session = MultiDeviceSession(models["open"], devices=DEVICES)
    assert "not started" in repr(session)
    assert repr(models["open"]) in repr(session)
    session.infer(pair(1))
    assert f"{len(DEVICES)} workers ready, 0 tasks under way" in repr(session)
    session.close()
    assert "closed" in repr(session)


def test_a_session_that_was_not_started_can_be_pickled(models: dict[str, str]) -> None:
    session = MultiDeviceSession(models["open"], devices=DEVICES, on_error="return", task_timeout=50, preprocess=pair)
    with pickle.loads(pickle.dumps(session)) as copy:
        same(copy.infer(4), [total(pair(4))])
        assert isinstance(next(copy.map(["x"])), Exception)
        with pytest.raises(TypeError, match="started"):
            pickle.dumps(copy)
    session.close()


def test_what_a_pickle_of_a_session_holds(models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = 3
    local = {"preprocess": lambda n: pair(n + shift), "postprocess": lambda outputs: outputs[0] * shift}  # pickle takes neither
    content = Path(models["open"]).read_bytes()
    for model in (models["open"], bytearray(content), memoryview(content)):
        session = MultiDeviceSession(model, devices=iter(DEVICES), **local)  # type: ignore[arg-type]
        sent = pickle.loads(pickle.dumps(session))
        for again in (sent, copy.copy(session), copy.deepcopy(session)) if model == models["open"] else (sent,):
            with again:
                assert again.devices == DEVICES
                assert np.array_equal(again.infer(4), total(pair(7)) * 3)
        session.close()
    monkeypatch.chdir(Path(models["open"]).parent)
    relative = MultiDeviceSession(Path(models["open"]).name)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(pickle.dumps(relative)) as again:  # in any working directory
        same(again.infer(pair(1)), [total(pair(1))])
    relative.close()
    with open(models["open"], "rb") as file:
        hopeless = MultiDeviceSession(models["open"])
        hopeless._made_with["provider_options"] = {"file": file}
        with pytest.raises(
            ConfigTypeError, match=r"provider_options=.* cannot be pickled: .*; make the session where it is needed"
        ):
            pickle.dumps(hopeless)
        hopeless.close()


def test_the_counts_of_details_agree_with_the_report(session: MultiDeviceSession) -> None:
    session.infer({device: [pair(0)] for device in DEVICES})
    session.reset_summaryinfo()
    items: list[Any] = []
    bad = [np.zeros((2, 2), np.float32)] * 2  # found by the worker; other objects than arrays are refused before
    for _ in range(2):
        items += [item for _, item in session.map([pair(n) for n in range(40)] + [bad], on_error="return", details=True)]
    report = session.report()
    ran = [item for item in items if item.attempts]
    assert {device: counts.tasks for device, counts in report.devices.items()} == {
        device: sum(item.device_id == device for item in ran) for device in DEVICES
    }
    assert report.total.execute_ms.mean == pytest.approx(sum(item.execute_ms for item in ran) / len(ran), rel=0.01)
    assert report.total.queued_ms.mean == pytest.approx(sum(item.queued_ms for item in ran) / len(ran), rel=0.01)
    for device, counts in report.devices.items():
        busy = _union((item.started_ns, item.done_ns) for item in ran if item.device_id == device)
        assert counts.busy_share * counts.wall_s == pytest.approx(busy / 1e9, rel=0.01)
    assert report.ends["accepted"] == len(items)
    assert report.ends["failed"] == 2


def _union(intervals: Iterator[tuple[int, int]]) -> int:
    length, end = 0, 0
    for start, stop in sorted(intervals):
        length += max(0, stop - max(start, end))
        end = max(end, stop)
    return length


def test_threads_take_turns(session: MultiDeviceSession) -> None:
    """Each of many threads gets answers at the same time as the others, whichever thread leads."""
    done = [0] * 8
    stop = threading.Event()

    def work(which: int) -> None:
        while not stop.is_set():
            same(session.infer(pair(which)), [total(pair(which))])
            done[which] += 1

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(done) >= 20, 60)
    stop.set()
    for thread in threads:
        thread.join(30)
