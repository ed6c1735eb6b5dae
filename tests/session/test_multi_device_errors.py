"""MultiDeviceSession: errors, reports, and memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench import _native
from ais_bench.errors import (
    ConfigError,
    FeedError,
    ModelLoadError,
    PoolClosed,
    SessionClosed,
    WorkerDied,
    WorkerStartError,
)
from ais_bench.pool import DevicePool
from ais_bench.session import InferSession, MultiDeviceSession
from support.scripts import run_python
from support.session import DEVICES, Feeds, pair, same, save, total
from support.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]


# ---- errors ----


@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
@pytest.mark.parametrize(("how", "said"), [("return", "forked"), ("raise", "raised in the child"), ("exit", "SystemExit")])
def test_a_process_that_a_callable_forks_answers_nothing(
    models: dict[str, str], side: str, how: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fork(item: Any) -> Any:
        calls.append(item)
        if len(calls) == 13:
            child = os.fork()
            if child == 0 and how == "raise":
                raise LookupError("raised in the child")
            if child == 0 and how == "exit":
                sys.exit()
            assert child == 0 or os.waitpid(child, 0)[0] == child  # it has ended
        return item

    callables: dict[str, Any] = {side: fork}
    with MultiDeviceSession(models["open"], devices=DEVICES[:1], **callables) as session:
        results = list(session.map(pair(number) for number in range(50)))
        assert session.report().to_dict()["total"]["restarts"] == 0
    assert len(results) == 50
    for number, outputs in enumerate(results):
        same(outputs, [total(pair(number))])
    assert said in caplog.text


def test_a_model_whose_name_is_not_utf8(models: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.model")
    with pytest.raises(ModelLoadError, match="no such file"):
        MultiDeviceSession(path)
    path.parent.mkdir()
    shutil.copy(models["open"], path)
    with MultiDeviceSession(path, devices=DEVICES[:1]) as session:
        same(session.infer(pair(3)), [total(pair(3))])


@pytest.mark.each_runtime
def test_what_is_wrong_with_feeds_is_said_as_by_one_device_and_the_session_goes_on(session: MultiDeviceSession) -> None:
    good = pair(1)
    for wrong, words in [
        ([good[0]], "2 inputs"),
        ([good[0], good[1][:, :1]], "input 'b'"),
        ([good[0], "text"], "str"),
        ({"a": good[0]}, "missing"),
        (5, "int"),
    ]:
        with pytest.raises(FeedError, match=words):
            session.infer(wrong)
        same(session.infer(good), [total(good)])


@pytest.mark.each_runtime
def test_errors_come_in_their_place(session: MultiDeviceSession) -> None:
    def feeds() -> Iterator[Feeds]:
        for n in range(30):
            yield pair(n) if n != 13 else [np.zeros(5, np.int8)] * 2

    results = list(session.map(feeds(), on_error="return"))
    assert [n for n, result in enumerate(results) if isinstance(result, FeedError)] == [13]
    same(results[29], [total(pair(29))])
    stream = session.map(feeds())
    assert [next(stream)[0][0, 0] for _ in range(13)] == list(range(13))
    with pytest.raises(FeedError):
        next(stream)


def test_a_task_that_kills_workers_is_named_with_its_index(models: dict[str, str]) -> None:
    def deadly(n: int) -> Feeds:
        import os
        import signal

        if n == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.full((1, 3), n, np.float32)] * 2

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=deadly, max_restarts=20) as session:
        results = list(session.map(range(12), on_error="return"))
        assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [6]
        error = results[6]
        assert isinstance(error, WorkerDied)
        assert (error.index, error.signal, error.device_id in DEVICES) == (6, 9, True)
        wait_until(lambda: session.report().total.restarts == 2)
        report = session.report()
        assert (report.total.tasks, report.total.failures, report.total.retries >= 1) == (12, 1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": []}, "devices must be at least one device id"),
        ({"devices": [0, 0]}, "twice"),
        ({"on_error": "ignore"}, "on_error"),
        ({"no_such": 1}, "unknown option 'no_such'"),
        ({"task_timout": 3}, "unknown option 'task_timout'; did you mean 'task_timeout'"),
        ({"acl_json": ""}, "unknown option 'acl_json'; did you mean 'acl_json_path'"),
        ({"warmup": -1}, "warmup"),
        ({"task_timeout": 0}, "task_timeout"),
        ({"affinity": "some"}, "affinity"),
        ({"affinity": {"0": [0]}}, "affinity"),
        ({"devices": 1.5}, "device_id must be an integer, got 1.5"),
        ({"runtime": "zz"}, "unknown runtime 'zz'; use 'ort' \\(ONNX Runtime\\) or 'acl' \\(AscendCL\\)"),
        ({"preprocess": 3}, "preprocess must be callable, got 3"),
        ({"postprocess": "text"}, "postprocess must be callable, got 'text'"),
    ],
)
def test_wrong_options_start_nothing(models: dict[str, str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MultiDeviceSession(models["add"], **options)


def test_a_processor_that_is_not_there_is_said_at_once(models: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    session = MultiDeviceSession(models["add"], devices=[0], affinity={0: [4095]})
    with session, pytest.raises(WorkerStartError, match="pinned to processors.*4095.*it may use") as caught:
        session.start()
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "started again" not in caplog.text


@pytest.mark.each_runtime
def test_a_bad_model_is_one_error_with_the_reason(tmp_path: Path, multi_device_models: Callable[[str], dict[str, str]]) -> None:
    from onnx import helper

    float1 = (1, [1])
    strange = save(tmp_path / "strange.onnx", [helper.make_node("NoSuchOperator", ["x"], ["y"])], {"x": float1}, {"y": float1})
    with (
        pytest.raises(WorkerStartError, match="NoSuchOperator") as caught,
        MultiDeviceSession(strange, devices=DEVICES) as session,
    ):
        session.start()
    assert isinstance(caught.value.__cause__, ModelLoadError)
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(Path(multi_device_models("ort")["add"]).read_bytes()[:-20])
    with pytest.raises(ModelLoadError, match="truncated"):  # seen without a worker
        MultiDeviceSession(truncated)
    with pytest.raises(RuntimeError, match="missing"):
        MultiDeviceSession(tmp_path / "missing.onnx")


def test_a_start_that_failed_can_be_tried_again(tmp_path: Path, models: dict[str, str]) -> None:
    mark = tmp_path / "ready"

    def check(item: Any) -> Any:
        return item

    class Needy:  # unpickles in the worker only once the mark is there
        def __call__(self, item: Any) -> Any:
            return check(item)

        def __reduce__(self) -> Any:
            return open, (str(mark),)

    session = MultiDeviceSession(models["open"], devices=[0], preprocess=Needy())
    with pytest.raises(WorkerStartError, match="ready"):
        session.start()
    mark.touch()
    session.start()
    session.close()


@pytest.mark.each_runtime
def test_a_device_that_is_not_there_is_named(models: dict[str, str]) -> None:
    with pytest.raises(WorkerStartError, match="device 99"):
        MultiDeviceSession(models["add"], devices=[0, 99]).start()
    with MultiDeviceSession(models["add"], devices=[0, 99], min_devices=1) as session:
        same(session.infer([np.ones((2, 3), np.float32)] * 2), [np.full((2, 3), 2, np.float32)])
        assert {line.device: line.state for line in session.report().workers} == {0: "ready", 99: "quarantined"}


def test_use_after_close(models: dict[str, str]) -> None:
    session = MultiDeviceSession(models["open"], devices=[0])
    session.infer(pair(1))
    session.close()
    session.close()
    for use in (lambda: session.infer(pair(1)), lambda: session.submit(pair(1)), session.start, session.get_inputs):
        with pytest.raises(PoolClosed):
            use()
    assert session.report().total.tasks == 1
    unused = MultiDeviceSession(models["open"])
    unused.close()
    with pytest.raises(PoolClosed):
        unused.start()


def test_close_while_the_pool_is_made_closes_it(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    session = MultiDeviceSession(models["open"], devices=[0])
    made: list[DevicePool] = []

    def make(*arguments: Any) -> DevicePool:
        session.close()
        made.append(DevicePool(*arguments))
        return made[0]

    monkeypatch.setattr("ais_bench.session.multi_device.DevicePool", make)
    with pytest.raises(PoolClosed):
        session.infer(pair(1))
    assert made[0].workers() == []


def test_every_use_in_a_forked_child_says_so(session: MultiDeviceSession) -> None:
    session.start()
    child = os.fork()
    if child == 0:
        refused = 0
        try:
            for _ in range(3):
                with contextlib.suppress(SessionClosed):
                    session.infer(pair(1))
                    break
                refused += 1
        finally:
            os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_unknown_modes_and_devices(session: MultiDeviceSession) -> None:
    for use in (
        lambda: session.infer(pair(1), "fast"),
        lambda: session.map([], mode="fast"),
        lambda: session.infer({57: [pair(1)]}),
    ):
        with pytest.raises(ConfigError):
            use()


# ---- reports and memory ----


@pytest.mark.each_runtime
def test_descriptions_equal_those_of_one_device(session: MultiDeviceSession, models: dict[str, str]) -> None:
    alone = InferSession(0, models["open"])
    assert session.get_inputs() == alone.get_inputs()
    assert session.get_outputs() == alone.get_outputs()
    alone.free_resource()


@pytest.mark.each_runtime
def test_the_report_counts_and_goes_through_json(session: MultiDeviceSession) -> None:
    for _ in session.map(pair(n) for n in range(100)):
        pass
    report = session.report()
    data = json.loads(json.dumps(report.to_dict()))
    assert set(data) == {
        "devices",
        "total",
        "workers",
        "memory",
        "host_memory",
        "times_by",
        "preprocess",
        "ends",
        "hedged",
        "hedges_won",
        "shared_weights",
        "provider",
        "fallback",
    }
    assert sum(counts["tasks"] for counts in data["devices"].values()) == data["total"]["tasks"] == 100
    for stage in ("queued_ms", "copy_in_ms", "execute_ms", "copy_out_ms", "end_to_end_ms"):
        times = data["total"][stage]
        assert set(times) == {"count", "mean", "p50", "p90", "p99", "max", "unknown"}
        assert times["count"] == 100
        assert times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert 0 < data["total"]["busy_share"] <= 1
    assert data["total"]["load_s"] > 0
    assert [set(worker) for worker in data["workers"]] == [{"pid", "device", "state", "restarts"}] * len(DEVICES)
    assert "device 0" in str(report)


@pytest.mark.each_runtime
def test_devices_come_and_go(models: dict[str, str]) -> None:
    if len(DEVICES) < 2:
        pytest.skip("needs two processors")
    with MultiDeviceSession(models["open"], devices=[0]) as session:
        session.infer(pair(1))
        session.add_device(1)
        assert session.devices == [0, 1]
        same(session.infer({1: [pair(2)]})[1][0], [total(pair(2))])
        session.remove_device(0)
        same(session.infer(pair(3)), [total(pair(3))])
        assert session.devices == [1]


@pytest.mark.each_runtime
def test_workers_are_pinned_to_their_share_of_the_processors(session: MultiDeviceSession, runtime: str) -> None:
    session.start()
    allowed = set(_native.allowed_cpus())
    shares = [os.sched_getaffinity(line.pid or 0) for line in session.report().workers]
    if runtime == "acl":
        assert shares == [allowed] * len(DEVICES)
        return
    assert set().union(*shares) == allowed
    assert sum(map(len, shares)) == len(allowed)


def test_several_threads_use_one_session(session: MultiDeviceSession) -> None:
    session.start()
    failures: list[BaseException] = []

    def use(thread: int) -> None:
        try:
            for n in range(100):
                same(session.infer(pair(thread * 100 + n)), [total(pair(thread * 100 + n))])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_caller_that_keeps_every_output_stalls_nothing(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["bytes"], devices=DEVICES) as session:
        small = list(session.map([np.full(10, n % 256, np.uint8)] for n in range(50_000)))
        large = list(session.map([np.full(200_000, n % 256, np.uint8)] for n in range(500)))
    assert all(outputs[0][9] == n % 256 for n, outputs in enumerate(small))
    assert all(outputs[0][-1] == n % 256 for n, outputs in enumerate(large))


def test_a_slow_consumer_of_an_endless_generator_keeps_memory_constant(models: dict[str, str]) -> None:
    script = f"""
import itertools, psutil, time, numpy as np
from ais_bench.session import MultiDeviceSession
with MultiDeviceSession({models["bytes"]!r}, devices=[0]) as session:
    drawn = itertools.count()
    results = session.map([np.full(100_000, n % 256, np.uint8)] for n in drawn)
    sizes, details = [], []
    for n in range(2000):
        next(results)
        if n % 10 == 0: time.sleep(0.001)  # slower than the worker
        if n % 500 == 499:
            sizes.append(psutil.Process().memory_info().rss >> 10)
            kinds = [line.split()[:2] for line in open("/proc/self/status") if line.startswith("Rss")]
            details.append((kinds, session.report().total.restarts))
print(sizes[-1] - sizes[0], next(drawn) - 2000)
print(*details, sep="\\n")
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    first, *details = done.stdout.splitlines()
    growth, ahead = map(int, first.split())
    assert ahead < 300, ahead  # items read and not yet yielded: what the worker may have in hand, and a few that are ready
    assert growth < 16_000, details  # KiB; 1,500 results of 100 kB that stayed would be 146,000


def test_memory_stays_flat_over_many_small_tasks(models: dict[str, str]) -> None:
    script = f"""
import itertools, os, psutil, numpy as np
from ais_bench.session import MultiDeviceSession
feeds = [np.zeros(8, np.uint8)]
with MultiDeviceSession({models["bytes"]!r}, devices=[0]) as session:
    sizes = []
    for n, _ in enumerate(session.map(itertools.repeat(feeds, 120_000))):
        if n % 40_000 == 39_999:
            sizes.append(psutil.Process().memory_info().rss >> 10)
    print(sizes[-1] - sizes[0], len(os.listdir("/proc/self/fd")))
"""
    done = run_python("-c", script, seconds=300)
    assert done.returncode == 0, done.stderr
    growth, descriptors = map(int, done.stdout.split())
    # KiB. The times of 100,000 to 200,000 tasks are kept, 32 bytes each: 60,000 more of them are 1,900. 80,000 tasks that
    # stayed would be 40,000.
    assert growth < 6_000
    assert descriptors < 30


@pytest.mark.each_runtime
def test_a_script_without_main_guard(tmp_path: Path, models: dict[str, str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "import numpy as np\nfrom ais_bench.session import MultiDeviceSession\n"
        "class Result:\n    def __init__(self, value): self.value = value\n"
        f"session = MultiDeviceSession({models['open']!r}, postprocess=lambda outputs: Result(float(outputs[0].sum())))\n"
        "results = list(session.map([np.full((1, 3), n, np.float32)] * 2 for n in range(10)))\n"
        "print(all(isinstance(r, Result) for r in results), sum(r.value for r in results))\n"
    )
    done = run_python(str(path))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True", "270.0"], "")


def test_an_error_of_a_class_of_the_script_is_of_that_class(tmp_path: Path, models: dict[str, str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "from ais_bench.session import MultiDeviceSession\n"
        "class Refused(ValueError):\n    pass\n"
        "def refuse(item):\n    raise Refused(item)\n"
        f"session = MultiDeviceSession({models['open']!r}, preprocess=refuse, devices=[0])\n"
        "try:\n    session.infer('this one')\n"
        "except Refused as refused:\n    print(refused.args, 'in refuse' in str(refused.__cause__))\n"
    )
    done = run_python(str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "('this one',) True\n", "")
