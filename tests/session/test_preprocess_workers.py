"""preprocess in separate CPU workers: the same results, order and errors, also if a worker dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ais_bench.errors import ConfigError, FeedError, PoolClosed, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.session import Carry, InferSession, MultiDeviceSession
from support.partial_models import affine, with_optional
from support.session import DEVICES, Feeds, feeds_of, number_of, pair, same, total
from support.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]


def test_every_method_gives_what_it_gives_without(models: dict[str, str]) -> None:
    def before(item: int) -> Any:
        return Carry(feeds_of(item), {"item": item, "pid": os.getpid()})

    def after(outputs: Feeds, extra: Any) -> Any:
        return number_of(outputs), extra["item"], extra["pid"] != os.getpid()

    def right(item: int) -> Any:
        return item, item, True

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before, postprocess=after, preprocess_workers=2) as s:
        assert list(s.map(range(50))) == [right(item) for item in range(50)]
        assert sorted(s.map_unordered(range(20))) == [(item, right(item)) for item in range(20)]
        assert s.infer(3) == right(3)
        assert s.infer({device: [device, 7] for device in DEVICES}) == {device: [right(device), right(7)] for device in DEVICES}
        assert s.infer_pipeline([1, 2]) == [right(1), right(2)]
        assert s.submit(4).result(20) == right(4)
        assert s.submit(4, device=DEVICES[-1], timeout=30).result(20) == right(4)
        same(s.infer_iteration(pair(5)), [total(pair(5))])
        report = s.report()
        items = 50 + 20 + 1 + 2 * len(DEVICES) + 2 + 2
        assert report.total.tasks == items + 1
        assert report.preprocess is not None
        assert report.preprocess.total.tasks == items
        assert report.preprocess.total.preprocess_ms.count == items
        assert list(report.preprocess.devices) == [0, 1]
        assert "preprocess worker 1: pid" in str(report)
        assert report.to_dict()["preprocess"]["total"]["tasks"] == items


@pytest.mark.parametrize("form", ["list", "mapping", "array", "carry without postprocess"])
def test_forms_of_feeds(models: dict[str, str], form: str) -> None:
    def before(item: int) -> Any:
        a, b = feeds_of(item)
        by_form = {"list": [a, b], "mapping": {"b": b, "a": a}, "array": np.stack([a, b])}
        return by_form.get(form, Carry([a, b], "dropped"))

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before, preprocess_workers=1) as session:
        for item, outputs in enumerate(session.map(range(10))):
            same(outputs, [total(feeds_of(item))])


def test_errors_are_those_of_their_items(models: dict[str, str]) -> None:
    def before(item: int) -> Any:
        if item % 5 == 1:
            raise LookupError(f"item {item}")
        return [np.zeros(7, np.float32)] * 2 if item % 5 == 2 else feeds_of(item)

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=number_of, preprocess_workers=2, on_error="return"
    ) as session:
        for item, result in enumerate(session.map(range(25))):
            assert type(result).__name__ == {1: "LookupError", 2: "FeedError"}.get(item % 5, "int")
            assert item % 5 == 2 or str(item) in str(result)
        assert [type(one) for one in session.infer({0: [0, 1]})[0]] == [int, LookupError]
        with pytest.raises(LookupError, match="item 6"):
            session.infer(6)
        with pytest.raises(LookupError, match="item 6"):
            session.submit(6).result(20)


def test_an_item_that_ends_its_worker_is_named_and_the_others_come_back(models: dict[str, str]) -> None:
    def before(item: int) -> Any:
        if item == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return feeds_of(item)

    with MultiDeviceSession(
        models["open"],
        devices=DEVICES,
        preprocess=before,
        postprocess=number_of,
        preprocess_workers=2,
        on_error="return",
        restart_backoff=0.0,
    ) as session:
        results = list(session.map(range(20)))
    assert isinstance(results[6], WorkerDied)
    assert (results[6].index, results[6].signal) == (6, signal.SIGKILL)
    assert "preprocess worker" in str(results[6])
    assert [result for index, result in enumerate(results) if index != 6] == [item for item in range(20) if item != 6]


def test_a_device_that_dies_gets_what_was_prepared_again(models: dict[str, str]) -> None:
    def after(outputs: Feeds) -> tuple[int, int]:
        time.sleep(0.005)
        return number_of(outputs), os.getpid()

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=feeds_of, postprocess=after, preprocess_workers=2, restart_backoff=0.0
    ) as session:
        results = []
        killed = set()
        for result, pid in session.map(range(80)):
            results.append(result)
            if result in (20, 40) and pid not in killed:
                psutil.Process(pid).kill()
                killed.add(pid)
        assert results == list(range(80))
        wait_until(lambda: session.report().total.restarts == len(killed), what="every killed worker is there again")


def test_large_feeds_and_a_source_that_reuses_its_buffer(models: dict[str, str]) -> None:
    def before(item: Any) -> Feeds:
        return [np.concatenate([item, item])]

    def source() -> Any:
        buffer = np.empty(1 << 20, np.uint8)
        for number in range(12):
            buffer[:] = number
            yield buffer

    with MultiDeviceSession(models["bytes"], devices=DEVICES, preprocess=before, preprocess_workers=2) as session:
        kept = list(session.map(source()))
    for number, (output,) in enumerate(kept):
        assert output.shape == (1 << 21,)
        assert (output == number).all()


@pytest.mark.each_runtime
def test_large_feeds_are_read_where_the_cpu_worker_wrote_them(models: dict[str, str]) -> None:
    """The device's worker maps the CPU worker's memory, and copies no feeds to its own."""
    size = 8 << 20

    def before(item: int) -> Feeds:
        return [np.full(size, item, np.uint8)]

    def after(outputs: Feeds) -> tuple[int, int, int]:
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "ais_bench-arena" in line]
        return int(outputs[0].min()), int(outputs[0].max()), len({inode for _, _, _, _, inode, *_ in maps})

    with MultiDeviceSession(
        models["bytes"], devices=[0], preprocess=before, postprocess=after, preprocess_workers=2
    ) as session:
        results = list(session.map(range(20)))
        assert [result[:2] for result in results] == [(item, item) for item in range(20)]
        assert results[-1][2] in (2, 3)  # its own, and those of the CPU workers that had some
        (cpu, _) = (worker.pid for worker in session.report().preprocess.workers)  # type: ignore[union-attr]
        psutil.Process(cpu).kill()
        assert [result[:2] for result in session.map(range(20))] == [(item, item) for item in range(20)]


def test_where_memory_cannot_be_shared_it_is_copied(models: dict[str, str]) -> None:
    def init() -> None:
        from ais_bench.wire import lent

        lent.can_borrow = lambda: False

    def before(item: int) -> Feeds:
        return [np.full(1 << 20, item, np.uint8)]

    with MultiDeviceSession(models["bytes"], devices=[0], preprocess=before, init=init, preprocess_workers=1) as session:
        for item, (output,) in enumerate(session.map(range(5))):
            assert (output == item).all()
        assert not session._preprocessing.lends  # type: ignore[union-attr]


def test_init_and_state_are_the_cpu_workers(models: dict[str, str]) -> None:
    state: dict[str, int] = {}

    def init() -> None:
        state["shift"] = 5

    def before(item: int) -> Feeds:
        return feeds_of(item + state["shift"])

    with MultiDeviceSession(models["open"], devices=[0], preprocess=before, init=init, preprocess_workers=1) as session:
        assert [number_of(outputs) for outputs in session.map(range(4))] == [5, 6, 7, 8]


def test_an_init_that_fails_is_why_nothing_starts(models: dict[str, str]) -> None:
    def init() -> None:
        if "ais_bench.worker.preprocess" in sys.modules:  # not in the device's worker
            raise LookupError("no tables")

    with (
        MultiDeviceSession(models["open"], devices=[0], preprocess=feeds_of, init=init, preprocess_workers=1) as session,
        pytest.raises(WorkerStartError, match="preprocess worker 0") as caught,
    ):
        session.start()
    assert isinstance(caught.value.__cause__, LookupError)


def test_futures_cancel_time_out_and_end_with_the_session(models: dict[str, str], tmp_path: Path) -> None:
    def before(item: int) -> Feeds:
        if item < 0:
            (tmp_path / "held").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.001)
        return feeds_of(abs(item))

    session = MultiDeviceSession(
        models["open"], devices=[0], preprocess=before, postprocess=number_of, preprocess_workers=1, restart_backoff=0.0
    )
    held = session.submit(-1)
    wait_until((tmp_path / "held").exists)
    waiting = [session.submit(item) for item in range(3)]
    assert waiting[1].cancel()
    with pytest.raises(CancelledError):
        waiting[1].result(0)
    late = session.submit(9, timeout=0.05)
    with pytest.raises(TaskTimeout):
        late.result(20)
    (tmp_path / "go").touch()
    assert (held.result(20), waiting[0].result(20), waiting[2].result(20)) == (1, 0, 2)
    accepted = [session.submit(item) for item in range(5)]
    session.close()
    assert [future.result(0) for future in accepted] == list(range(5))
    with pytest.raises(PoolClosed):
        session.submit(1)


def test_callers_in_many_threads(models: dict[str, str]) -> None:
    wrong: list[Any] = []
    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=feeds_of, postprocess=number_of, preprocess_workers=2
    ) as session:

        def work(first: int) -> None:
            if list(session.map(range(first, first + 30))) != list(range(first, first + 30)) or session.infer(first) != first:
                wrong.append(first)

        threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_stream_that_is_left_early_leaves_both_pools_as_they_were(models: dict[str, str]) -> None:
    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=feeds_of, postprocess=number_of, preprocess_workers=2
    ) as session:
        for _ in range(3):
            for number in session.map(iter(range(1000))):
                if number == 5:
                    break
        assert list(session.map(range(10))) == list(range(10))


@pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
def test_what_is_no_number_of_workers_is_refused(models: dict[str, str], wrong: Any) -> None:
    with pytest.raises(ConfigError, match="preprocess_workers"):
        MultiDeviceSession(models["open"], preprocess=feeds_of, preprocess_workers=wrong)


def test_workers_without_a_preprocess_are_refused(models: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="needs a preprocess"):
        MultiDeviceSession(models["open"], preprocess_workers=2)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
MADE: dict[str, Any] = {  # of the models of partial_models: what a preprocess may return, and what it comes to
    "bare": (affine, lambda _: X, {"x": X}),
    "bare, one sample": (affine, lambda _: X[:1], {"x": X[:1]}),
    "bare, with more": (affine, lambda _: Carry(X, 7), {"x": X}),
    "list": (affine, lambda _: [X], {"x": X}),
    "generator": (affine, lambda _: iter([X]), {"x": X}),
    "strided": (affine, lambda _: [np.asfortranarray(X)], {"x": X}),
    "raw": (affine, lambda _: [bytearray(X.tobytes())], {"x": X}),
    "by name": (affine, lambda _: {"x": X}, {"x": X}),
    "constant": (affine, lambda _: {"x": X, "scale": X[1]}, {"x": X, "scale": X[1]}),
    "constant that is None": (affine, lambda _: {"x": X, "shift": None}, {"x": X}),
    "constant, with more": (affine, lambda _: Carry({"x": X, "scale": X[1]}, 7), {"x": X, "scale": X[1]}),
    "optional left out": (with_optional, lambda _: {"x": X}, {"x": X}),
    "optional None": (with_optional, lambda _: [X, None], {"x": X}),
    "optional None, with more": (with_optional, lambda _: Carry([X, None], 7), {"x": X}),
    "optional": (with_optional, lambda _: [X, X[0, :2]], {"x": X, "extra": X[0, :2]}),
}


@pytest.mark.filterwarnings("ignore::ais_bench.errors.FeedWarning")
@pytest.mark.parametrize("build", [affine, with_optional])
@pytest.mark.parametrize("how", [{}, {"callable_threads": 0}, {"preprocess_workers": 1}], ids=["beside", "in turn", "workers"])
def test_whatever_a_preprocess_returns_wherever_it_runs(build: Callable[[], Any], how: dict[str, Any]) -> None:
    content = build().SerializeToString()
    names = [name for name, (other, _, _) in MADE.items() if other is build]
    with InferSession(0, content) as one:
        wanted = {name: one.infer(MADE[name][2]) for name in names}

    def before(name: str) -> Any:
        return MADE[name][1](None)

    with MultiDeviceSession(content, devices=[0], preprocess=before, **how) as session:
        in_a_stream = zip(names, session.map(names), strict=True)
        for name, outputs in (
            *in_a_stream,
            *((n, session.infer(n)) for n in names),
            (names[0], session.submit(names[0]).result(60)),
        ):
            for got, one in zip(outputs, wanted[name], strict=True):
                np.testing.assert_array_equal(got, one, name)
    with MultiDeviceSession(content, devices=[0], preprocess=before, postprocess=lambda *given: given[1:], **how) as session:
        assert [session.infer(name) for name in names] == [(7,) if "more" in name else () for name in names]


@pytest.mark.parametrize("how", [{}, {"callable_threads": 0}, {"preprocess_workers": 1}], ids=["beside", "in turn", "workers"])
def test_what_a_preprocess_must_not_return_is_called_by_name(how: dict[str, Any]) -> None:
    content = with_optional().SerializeToString()
    wrong: list[tuple[Any, str]] = [
        ([X, "abc"], "input 'extra' is a str"),
        (["abc", None], "input 'x' is a str"),
        ([None, X[0, :2]], "input 'x' is a NoneType"),
        ([X, np.array(["a", "b"])], "input 'extra' is an array of"),
        ([X], r"takes 2 inputs \('x', 'extra'\); it was given 1"),
        ({"y": X}, "missing are \\['x'\\], unknown are \\['y'\\]"),
        (None, "feeds must be an iterable with one entry for each"),
        ("abc", "feeds must be an iterable with one entry for each"),
        ([X.astype(np.float64), None], r"input 'x' takes .*astype\(np.float32\)"),
    ]
    with MultiDeviceSession(content, devices=[0], preprocess=lambda n: wrong[n][0], **how) as session:
        for n, (_, words) in enumerate(wrong):
            with pytest.raises(FeedError, match=words):
                session.infer(n)
            (error,) = session.map([n], on_error="return")
            assert isinstance(error, FeedError)
            assert error.index == 0
