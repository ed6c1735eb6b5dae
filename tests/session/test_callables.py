"""preprocess and postprocess beside the device: overlap, order, errors, threads, set-up, and facts about a function."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import ConfigError, FeedError, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.session import Carry, MultiDeviceSession
from ais_bench.session.stateless import keeps_no_state, threads_for
from support.scripts import run_script
from support.session import DEVICES, Feeds, add_model, feeds_of, number_of, pair, same, total
from support.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]


def meet(folder: Path, mine: str, other: str) -> bool:
    """Leave a mark, and return whether the other side's mark appears while this call waits for it."""
    (folder / mine).touch()
    deadline = time.monotonic() + 20
    while not (folder / other).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    return (folder / other).exists()


def test_preprocess_of_the_next_item_meets_postprocess_of_the_last(models: dict[str, str], tmp_path: Path) -> None:
    """Item 0 stays in postprocess until item 1 is in preprocess, and the other way round, so both must run at the same time."""

    def before(item: int) -> Any:
        met = item != 1 or meet(tmp_path, "before 1", "after 0")
        return Carry(feeds_of(item), met)

    def after(outputs: Feeds, met: bool) -> Any:
        item = number_of(outputs)
        return item, met and (item != 0 or meet(tmp_path, "after 0", "before 1"))

    with MultiDeviceSession(models["open"], devices=[0], preprocess=before, postprocess=after) as session:
        assert list(session.map(range(6))) == [(item, True) for item in range(6)]


@pytest.mark.each_runtime
@pytest.mark.parametrize("threads", [None, 0, 1, 3])
def test_order_errors_and_results_are_those_of_one_thread(models: dict[str, str], threads: int | None) -> None:
    def before(item: int) -> Any:
        if item % 7 == 3:
            raise LookupError(f"item {item}")
        if item % 7 == 4:
            return [np.zeros(5, np.float32)] * 2  # of the wrong size
        time.sleep(item % 3 / 1e3)
        return feeds_of(item)

    def after(outputs: Feeds) -> dict[str, int]:
        if number_of(outputs) % 7 == 5:
            raise OSError(f"result {number_of(outputs)}")
        return {"number": number_of(outputs)}

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=after, callable_threads=threads, on_error="return"
    ) as session:
        for item, result in enumerate(session.map(range(70))):
            wrong = {3: LookupError, 4: FeedError, 5: OSError}.get(item % 7)
            if wrong is None:
                assert result == {"number": item}
            else:
                assert type(result) is wrong
                assert str(item) in str(result) or wrong is FeedError
        assert session.infer({0: [1, 2]}) == {0: [{"number": 1}, {"number": 2}]}
        assert [result["number"] for result in session.infer_pipeline([7, 8])] == [7, 8]


@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
def test_one_of_them_alone(models: dict[str, str], side: str) -> None:
    def before(item: int) -> Any:
        return pair(item)

    def after(outputs: Feeds) -> Any:
        return outputs[0] + 1

    callables: Any = {"preprocess": before} if side == "preprocess" else {"postprocess": after}
    items: list[Any] = list(range(30)) if side == "preprocess" else [pair(item) for item in range(30)]
    with MultiDeviceSession(models["open"], devices=DEVICES, **callables) as session:
        for item, result in enumerate(session.map(items)):
            if side == "preprocess":
                same(result, [total(pair(item))])
            else:
                same([result], [total(pair(item)) + 1])
        same(session.infer_iteration(pair(3)), [total(pair(3))])  # it does not use the callables


@pytest.mark.each_runtime
def test_outputs_of_unknown_shape_and_size(models: dict[str, str]) -> None:
    """Outputs grow from item to item, beyond the size of the slots."""

    def before(item: int) -> Any:
        return [np.ones(item, np.float32)]

    sizes = [1, 10, 300_000, 5, 2_000_000, 1]
    with MultiDeviceSession(models["nonzero"], devices=[0], preprocess=before) as session:
        assert [outputs[0].shape for outputs in session.map(sizes)] == [(1, size) for size in sizes]
    with MultiDeviceSession(models["nonzero"], devices=[0], preprocess=before, postprocess=lambda o: o[0].shape) as session:
        assert list(session.map(sizes)) == [(1, size) for size in sizes]


def test_with_one_thread_a_callable_always_meets_the_same_one(models: dict[str, str]) -> None:
    class Counting:
        def __init__(self) -> None:
            self.at_once = 0

        def __call__(self, argument: Any) -> Any:
            self.at_once += 1
            assert self.at_once == 1, "called by two threads at a time"
            time.sleep(0.001)
            self.at_once -= 1
            thread = threading.get_ident(), threading.current_thread() is threading.main_thread()
            return Carry(feeds_of(argument), thread) if isinstance(argument, int) else thread

    def after(outputs: Feeds, thread: Any) -> Any:
        return thread, (threading.get_ident(), False)

    with MultiDeviceSession(
        models["open"], devices=[0], preprocess=Counting(), postprocess=after, callable_threads=1
    ) as session:
        seen = set(session.map(range(40)))
    assert len(seen) == 1
    ((first, is_main), (second, _)) = seen.pop()
    assert is_main
    assert first != second


def test_many_threads_call_a_callable_at_a_time(models: dict[str, str], tmp_path: Path) -> None:
    """Two items must be in preprocess at the same time; otherwise both would wait."""

    def before(item: int) -> Any:
        return Carry(feeds_of(item), meet(tmp_path, f"item {item}", f"item {1 - item}"))

    with MultiDeviceSession(
        models["open"], devices=[0], preprocess=before, postprocess=lambda _, met: met, callable_threads=2
    ) as session:
        assert list(session.map(range(2))) == [True, True]


# ---- processes ----


def test_an_item_that_ends_its_worker_is_named_and_the_others_come_back(models: dict[str, str]) -> None:
    def before(item: int) -> Any:
        if item == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return feeds_of(item)

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=number_of, on_error="return", restart_backoff=0.0
    ) as session:
        results = list(session.map(range(30)))
    assert isinstance(results[11], WorkerDied)
    assert results[11].index == 11
    assert [result for index, result in enumerate(results) if index != 11] == [item for item in range(30) if item != 11]


@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
def test_a_callable_that_leaves_the_interpreter_ends_its_worker(models: dict[str, str], side: str, tmp_path: Path) -> None:
    def leave_once(argument: Any) -> Any:
        mark = tmp_path / "left"
        if not mark.exists():
            mark.touch()
            raise SystemExit("out of here")
        return feeds_of(argument) if isinstance(argument, int) else number_of(argument)

    callables: dict[str, Callable[[Any], Any]] = {"preprocess": feeds_of, "postprocess": number_of, side: leave_once}
    with MultiDeviceSession(models["open"], devices=[0], restart_backoff=0.0, **callables) as session:  # type: ignore[arg-type]
        assert list(session.map(range(5))) == list(range(5))
        assert session.report().workers[0].restarts == 1


@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
def test_a_forked_child_that_comes_out_of_a_callable_ends(models: dict[str, str], side: str) -> None:
    def fork(argument: Any) -> Any:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 1
        return feeds_of(argument) if isinstance(argument, int) else number_of(argument)

    callables: dict[str, Callable[[Any], Any]] = {"preprocess": feeds_of, "postprocess": number_of, side: fork}
    with MultiDeviceSession(models["open"], devices=[0], **callables) as session:  # type: ignore[arg-type]
        assert list(session.map(range(4))) == list(range(4))
        assert session.report().workers[0].restarts == 0


@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
def test_a_callable_that_hangs_is_ended_at_the_task_timeout(models: dict[str, str], side: str) -> None:
    def hang(argument: Any) -> Any:
        item = argument if isinstance(argument, int) else number_of(argument)
        while item == 3:
            time.sleep(1)
        return feeds_of(item) if isinstance(argument, int) else item

    callables: dict[str, Callable[[Any], Any]] = {"preprocess": feeds_of, "postprocess": number_of, side: hang}
    with MultiDeviceSession(
        models["open"], devices=[0], on_error="return", task_timeout=1.5, restart_backoff=0.0, callable_threads=2, **callables
    ) as session:
        results = list(session.map(range(40)))
    assert isinstance(results[3], TaskTimeout)
    assert results[3].index == 3
    assert [result for index, result in enumerate(results) if index != 3] == [item for item in range(40) if item != 3]


def test_close_finishes_what_was_accepted_at_every_stage(models: dict[str, str]) -> None:
    def slow(argument: Any) -> Any:
        time.sleep(0.02)
        return feeds_of(argument) if isinstance(argument, int) else number_of(argument)

    session = MultiDeviceSession(models["open"], devices=[0], preprocess=slow, postprocess=slow)
    futures = [session.submit(item) for item in range(12)]
    session.close()
    assert [future.result(0) for future in futures] == list(range(12))


# ---- init ----


def test_init_runs_once_in_each_worker_before_its_callables(models: dict[str, str], tmp_path: Path) -> None:
    state: dict[str, int] = {}

    def init() -> None:
        assert threading.current_thread() is threading.main_thread()
        (tmp_path / str(os.getpid())).touch()
        state["shift"] = 10
        np.seterr(divide="raise")

    def before(item: int) -> Any:
        return feeds_of(item + state["shift"])

    def after(outputs: Feeds) -> Any:
        with pytest.raises(FloatingPointError):
            np.ones(1) / np.zeros(1)
        return number_of(outputs)

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=after, init=init, callable_threads=2
    ) as session:
        assert list(session.map(range(20))) == list(range(10, 30))
        pids = {str(worker.pid) for worker in session.report().workers}
    assert {path.name for path in tmp_path.iterdir()} == pids


def test_an_init_that_fails_is_why_the_worker_does_not_start(models: dict[str, str]) -> None:
    def init() -> None:
        raise LookupError("no tables here")

    with MultiDeviceSession(models["open"], devices=[0], init=init) as session, pytest.raises(WorkerStartError) as caught:
        session.start()
    assert isinstance(caught.value.__cause__, LookupError)
    assert "did not start: LookupError: no tables here" in str(caught.value)


# ---- how many threads ----

TABLE = {"a": 1}
SIZE = (3, 4)


def harmless(item: Any) -> Any:
    rows = [np.float32(item) for _ in range(SIZE[0])]
    return helper(rows)


def helper(rows: Any) -> Any:
    return rows if rows else harmless(0)


def reads_a_table(item: Any) -> Any:
    return TABLE["a"] + item


def keeps_a_global(item: Any) -> Any:
    global SIZE
    SIZE = item


def keeps_a_default(item: Any, seen: list[Any] = []) -> Any:  # noqa: B006
    seen.append(item)


def closure(value: Any) -> Callable[[Any], Any]:
    return lambda item: (item, value)


def counter() -> Callable[[Any], Any]:
    count = 0

    def function(item: Any) -> Any:
        nonlocal count
        count += 1

    return function


@functools.lru_cache
def remembers(item: Any) -> Any:
    return item


def test_a_function_that_keeps_nothing_is_called_by_two_threads_and_another_by_one() -> None:
    for function in (harmless, helper, closure(3), closure((1, "a", harmless)), functools.partial(harmless), lambda x: x * 2):
        assert keeps_no_state(function)
    assert threads_for(harmless, None) == 2
    keepers: list[Any] = [reads_a_table, keeps_a_global, keeps_a_default, counter(), remembers, closure([]), [].append]
    keepers += [closure(np.zeros(3)), functools.partial(reads_a_table), functools.partial(harmless, []), TABLE.get]
    for function in keepers:
        assert not keeps_no_state(function)
        assert threads_for(function, None) == 1
    assert threads_for(reads_a_table, 5) == 5
    assert threads_for(None, 5) == 0


@pytest.mark.parametrize("wrong", [-1, 65, 1.5, "many", True])
def test_what_is_no_number_of_threads_is_refused(models: dict[str, str], wrong: Any) -> None:
    with pytest.raises(ConfigError, match="callable_threads"):
        MultiDeviceSession(models["open"], preprocess=harmless, callable_threads=wrong)


def test_a_worker_without_callables_has_no_further_threads(models: dict[str, str]) -> None:
    with (
        MultiDeviceSession(models["open"], devices=[0]) as plain,
        MultiDeviceSession(models["open"], devices=[0], preprocess=pair) as staged,
    ):
        pids = []
        for session, item in ((plain, pair(1)), (staged, 1)):
            session.infer(item)
            (worker,) = session.report().workers
            pids.append(worker.pid)
        wait_until(lambda: len(os.listdir(f"/proc/{pids[0]}/task")) < len(os.listdir(f"/proc/{pids[1]}/task")))


SCRIPT = """
import numpy as np
from ais_bench.session import MultiDeviceSession

shift = None  # init sets it in the workers
seen = []

def init():
    global shift, late
    shift, late = 10, 100

def helper():
    return shift + late

def before(item):
    seen.append(item)
    return [np.full((1, 3), item + helper(), np.float32), np.zeros((1, 3), np.float32)]

def after(outputs):
    return float(outputs[0][0, 0]), len(seen)

class Both:
    def __init__(self):
        self.calls = 0
    def before(self, item):
        self.calls += 1
        return before(item)
    def after(self, outputs):
        return outputs[0][0, 0] - 110, self.calls

if __name__ == "__main__":
    import sys
    with MultiDeviceSession(sys.argv[1], devices=[0], preprocess=before, postprocess=after, init=init) as session:
        print([session.infer(item) for item in range(3)], shift)
    both = Both()
    with MultiDeviceSession(sys.argv[1], devices=[0], preprocess=both.before, postprocess=both.after, init=init) as session:
        print([tuple(map(int, session.infer(item))) for item in range(3)])
"""


def test_callables_of_a_script_share_globals_and_objects_in_a_worker(tmp_path: Path) -> None:
    open_model = add_model(tmp_path / "open.onnx", ["n", 3])
    printed = run_script(SCRIPT, open_model).splitlines()
    assert printed == ["[(110.0, 1), (111.0, 2), (112.0, 3)] None", "[(0, 1), (1, 2), (2, 3)]"]


class Transient(Exception):
    """An error that another attempt may avoid."""


class StillTransient(Transient):
    """A subclass of it."""


def fails_once(folder: Path, item: int, error: type[Exception]) -> None:
    """Raise `error` at the first call with this item, and record every call."""
    with open(folder / f"tries-{item}", "a") as file:
        file.write("x")
    if (folder / f"tries-{item}").stat().st_size == 1:
        raise error(f"item {item}")


@pytest.mark.parametrize(
    ("side", "threads"), [(side, n) for side in ("preprocess", "postprocess") for n in (0, 2)] + [("preprocess_workers", 0)]
)
def test_what_a_callable_raises_of_retry_on_is_tried_again(
    models: dict[str, str], tmp_path: Path, side: str, threads: int
) -> None:
    def before(item: int) -> Feeds:
        if item % 3 == 1 and side != "postprocess":
            fails_once(tmp_path, item, StillTransient)
        return feeds_of(item)

    def after(outputs: Feeds) -> int:
        item = number_of(outputs)
        if item % 3 == 1 and side == "postprocess":
            fails_once(tmp_path, item, Transient)
        return item

    more: dict[str, Any] = {"preprocess_workers": 1} if side == "preprocess_workers" else {"callable_threads": threads}
    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=after, retry_on=Transient, **more
    ) as session:
        results = list(session.map(range(30), details=True))
        report, ends = session.report(), session.progress()
    assert [outputs for outputs, _ in results] == list(range(30))
    assert [item.attempts for _, item in results] == [2 if index % 3 == 1 else 1 for index in range(30)]
    if side != "preprocess_workers":  # the retries of these workers are not retries of the devices
        assert report.total.retries == 10
    assert all((tmp_path / f"tries-{item}").stat().st_size == 2 for item in range(1, 30, 3))
    assert (report.total.tasks, report.total.failures) == (30, 0)
    assert ends["done"] == ends["accepted"] == 30


def test_the_attempts_of_cpu_workers_and_of_devices_count_together(models: dict[str, str], tmp_path: Path) -> None:
    def before(item: int) -> Feeds:
        if item == 3:
            raise Transient("always")
        if item == 4 and not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            os._exit(3)
        if item:
            fails_once(tmp_path, item, Transient)
        return feeds_of(item)

    def after(outputs: Feeds) -> int:
        item = number_of(outputs)
        if item == 2:
            raise Transient("in postprocess")
        return item

    def calls(item: int) -> int:
        return (tmp_path / f"tries-{item}").stat().st_size

    how: dict[str, Any] = {"retry_on": Transient, "preprocess_workers": 1, "max_attempts": 3, "on_error": "return"}
    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before, postprocess=after, **how) as session:
        results = list(session.map(range(5), details=True))
    assert [type(result).__name__ for result, _ in results] == ["int", "int", "Transient", "Transient", "int"]
    assert [item.attempts for _, item in results] == [1, 2, 3, 3, 3]
    assert [calls(item) for item in (1, 2, 4)] == [2, 2, 2]


@pytest.mark.parametrize("devices", [[0], DEVICES])
def test_retry_on_ends_with_the_attempts_and_is_about_its_types_alone(
    models: dict[str, str], tmp_path: Path, devices: list[int]
) -> None:
    def before(item: int) -> Feeds:
        with open(tmp_path / f"tries-{item}", "a") as file:
            file.write("x")
        raise {0: Transient, 1: LookupError}[item](f"item {item}")

    with MultiDeviceSession(
        models["open"], devices=devices, preprocess=before, retry_on=[Transient, OSError], max_attempts=3, on_error="return"
    ) as session:
        (first, one), (second, other) = session.map([0, 1], details=True)
        report = session.report()
    assert type(first).__name__ == "Transient"
    assert type(second) is LookupError
    assert (one.attempts, other.attempts) == (3, 1)
    assert (tmp_path / "tries-0").stat().st_size == 3
    assert (tmp_path / "tries-1").stat().st_size == 1
    assert (report.total.tasks, report.total.failures, report.total.retries) == (2, 2, 2)
    assert {worker.restarts for worker in report.workers} == {0}  # the device is not the reason


def test_retry_on_goes_to_another_device(models: dict[str, str], tmp_path: Path) -> None:
    def before(item: int) -> Feeds:
        with open(tmp_path / f"pids-{item}", "a") as file:
            print(os.getpid(), file=file)
        if len((tmp_path / f"pids-{item}").read_text().split()) < 2:
            raise Transient
        return feeds_of(item)

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before, retry_on=(Transient,)) as session:
        for item in range(5):
            session.infer(item)
            assert len(set((tmp_path / f"pids-{item}").read_text().split())) == 2


def test_retry_on_must_be_exception_types_and_needs_a_callable(models: dict[str, str]) -> None:
    for wrong in (3, "OSError", [OSError("made")], BaseException, KeyboardInterrupt, [int]):
        with pytest.raises(TypeError, match="retry_on must be"):
            MultiDeviceSession(models["open"], devices=[0], preprocess=feeds_of, retry_on=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a preprocess or a postprocess"):
        MultiDeviceSession(models["open"], devices=[0], retry_on=OSError)
