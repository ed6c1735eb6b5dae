"""Stopping: cancel and Ctrl-C end a run that hangs or takes long, if AscendCL can; and the memory of freed sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator
from ais_bench.errors import ConfigError, InferenceCancelled, SessionClosed
from ais_bench.session import InferSession, MultiDeviceSession
from support.acl import Packed, equal, floats
from support.scripts import run_script
from support.waiting import wait_until

PRELUDE = """
import faulthandler, os, signal, sys, threading
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.session import InferSession
faulthandler.dump_traceback_later(60, exit=True)
feeds = [np.ones((1, 4), np.float32)] * 2

def interrupt_at(emulator, function, count, number=signal.SIGINT):
    # Sends the signal once the call under test is on its way.
    def watch():
        while emulator.call_count(function) < count:
            pass
        os.kill(os.getpid(), number)
    threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.parametrize("pipeline", [False, True])
@pytest.mark.parametrize("name", ["static", "shape"])
def test_cancel_ends_a_hang(npu: Emulator, packed: Callable[[str], Packed], name: str, pipeline: bool) -> None:
    """Every run in progress returns, the session stays usable, and nothing leaks."""
    model = packed(name)
    feeds, mode = model.case.feeds, model.case.mode
    with InferSession(0, model.om) as session, ThreadPoolExecutor(1) as thread:
        wanted = session.infer_pipeline(feeds, mode)
        npu.set_faults("device.execute:2=hang")
        before = npu.call_count("aclmdlExecuteAsync")

        def run() -> object:
            return session.infer_pipeline(feeds, mode) if pipeline else [session.infer(one, mode) for one in feeds]

        running = thread.submit(run)
        wait_until(lambda: npu.faults_fired() > 0, 30)
        assert npu.call_count("aclmdlExecuteAsync") > before
        assert not running.done()
        session.cancel()
        with pytest.raises(InferenceCancelled):
            running.result(30)
        assert npu.call_count("aclrtStreamAbort") > 0
        npu.set_faults()
        for got, want in zip(session.infer_pipeline(feeds, mode), wanted, strict=True):
            equal(got, want)
        equal(session.infer(feeds[0], mode), wanted[0])


def test_a_pipeline_that_is_left_drops_what_hangs(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """The feeds raise an exception (Ctrl-C may be one) while a run hangs."""
    model = packed("static")

    def sets() -> Iterator[list[np.ndarray]]:
        yield from model.case.feeds[:2]
        wait_until(lambda: npu.faults_fired() > 0, 30)
        raise KeyError("no more")

    with InferSession(0, model.om) as session:
        wanted = session.infer_pipeline(model.case.feeds)
        npu.set_faults("device.execute:1=hang")
        with pytest.raises(KeyError, match="no more"):
            session.infer_pipeline(sets())
        npu.set_faults()
        for got, want in zip(session.infer_pipeline(model.case.feeds), wanted, strict=True):
            equal(got, want)


def test_cancel_leaves_later_runs_alone(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    with InferSession(0, model.om) as session:
        session.cancel()
        equal(session.infer(model.case.feeds[0]), [model.case.feeds[0][0] + model.case.feeds[0][1]])
        session.cancel()
        assert len(session.infer_pipeline(model.case.feeds)) == 3


def test_without_an_abort_a_cancel_is_answered_at_the_end(packed: Callable[[str], Packed]) -> None:
    code = (
        PRELUDE
        + """
with npus(1, exec_ms=1500, without=["aclrtStreamAbort"]) as library:
    session = InferSession(0, sys.argv[1])
    emulator = Emulator(library)
    failures = []
    def run():
        try:
            session.infer(feeds)
        except RuntimeError as error:
            failures.append(type(error).__name__)
    thread = threading.Thread(target=run)
    thread.start()
    while emulator.call_count("aclmdlExecute") == 0:
        pass
    session.cancel()
    thread.join()
    print(failures, emulator.call_count("aclmdlExecuteAsync"))
"""
    )
    assert run_script(code, packed("static").om) == "['InferenceCancelled'] 0\n"


@pytest.mark.parametrize(
    "call",
    [
        "session.infer(feeds)",
        "session.infer_pipeline([feeds] * 6)",
        "session.infer_iteration(feeds, [0, -1], 50)",
        "session.infer(feeds, out_array=False)",
    ],
)
def test_ctrl_c_ends_a_hang(packed: Callable[[str], Packed], call: str) -> None:
    """KeyboardInterrupt is raised at once, the session stays usable, and everything is released."""
    code = (
        PRELUDE
        + f"""
with npus(1) as library:
    session = InferSession(0, sys.argv[1])
    emulator = Emulator(library)
    session.infer(feeds)
    emulator.set_faults("device.execute=hang")
    interrupt_at(emulator, "aclmdlExecuteAsync", 2)
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted")
    emulator.set_faults()
    print(session.infer(feeds)[0].tolist(), len(session.infer_pipeline([feeds] * 3)))
    session.free_resource()
    InferSession.finalize()
    print(emulator.living(), emulator.report())
"""
    )
    assert run_script(code, packed("static").om) == "interrupted\n[[2.0, 2.0, 2.0, 2.0]] 3\n[] []\n"


def test_ctrl_c_in_the_callers_iterable_ends_what_is_under_way(packed: Callable[[str], Packed]) -> None:
    code = (
        PRELUDE
        + """
def sets():
    yield from [feeds] * 2
    raise KeyboardInterrupt
with npus(1) as library:
    session = InferSession(0, sys.argv[1])
    emulator = Emulator(library)
    emulator.set_faults("device.execute=hang")
    try:
        session.infer_pipeline(sets())
    except KeyboardInterrupt:
        print("interrupted", emulator.call_count("aclmdlExecuteAsync"))
    emulator.set_faults()
    print(len(session.infer_pipeline([feeds] * 3)))
"""
    )
    assert run_script(code, packed("static").om) == "interrupted 2\n3\n"


def test_ctrl_c_ends_an_execution_that_takes_a_minute(packed: Callable[[str], Packed]) -> None:
    code = (
        PRELUDE
        + """
with npus(1, exec_ms=60_000) as library:
    session = InferSession(0, sys.argv[1])
    interrupt_at(Emulator(library), "aclmdlExecuteAsync", 1)
    try:
        session.infer(feeds)
    except KeyboardInterrupt:
        print("interrupted")
"""
    )
    assert run_script(code, packed("static").om) == "interrupted\n"


LATENCY = (
    PRELUDE
    + """
import statistics, time
from ais_bench.session import MultiDeviceSession

def seconds_of(call, ready):
    # From Ctrl-C, in the middle of the call, to its end.
    pressed = []
    def watch():
        while not ready():
            time.sleep(0.01)
        time.sleep(0.3)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    except KeyboardInterrupt:
        took = time.monotonic() - pressed[0]
        thread.join()
        return took
    raise AssertionError("nobody interrupted it")
"""
)


@pytest.mark.parametrize("call", ["infer(feeds)", "infer_pipeline([feeds] * 6)", "infer_iteration(feeds, [0, -1], 50)"])
def test_ctrl_c_is_heard_within_half_a_second(packed: Callable[[str], Packed], call: str) -> None:
    """This holds for any duration of the run. A busy machine may delay a process, so most of some calls are checked."""
    code = f"""
with npus(1, exec_ms=60_000):
    session, emulator, taken = InferSession(0, sys.argv[1]), Emulator(), []
    while len(taken) < 3 or (statistics.median(taken) >= 0.5 and len(taken) < 15):
        before = emulator.call_count("aclmdlExecuteAsync")
        taken.append(seconds_of(lambda: session.{call}, lambda: emulator.call_count("aclmdlExecuteAsync") > before))
    print(statistics.median(taken))
"""
    assert float(run_script(LATENCY + code, packed("static").om)) < 0.5


@pytest.mark.parametrize("call", ["infer(feeds)", "infer({0: [feeds], 1: [feeds]})", "map([feeds] * 6)"])
def test_ctrl_c_ends_a_pool_within_half_a_second(packed: Callable[[str], Packed], call: str) -> None:
    """Its workers end, too, in the middle of long runs."""
    code = f"""
def work():
    with MultiDeviceSession(sys.argv[1]) as session:
        session.start()
        waiting.extend(worker.pid for worker in session.report().workers)
        list(session.{call})

with npus(2, exec_ms=60_000):
    taken = []
    while len(taken) < 3 or (statistics.median(taken) >= 0.5 and len(taken) < 11):
        waiting = []
        taken.append(seconds_of(work, lambda: waiting))
        assert len(waiting) == 2 and not any(os.path.exists(f"/proc/{{pid}}") for pid in waiting)
    print(statistics.median(taken))
"""
    assert float(run_script(LATENCY + code, packed("static").om)) < 0.5


@pytest.mark.parametrize("end", ["tensors.clear()", "tensors[0].to_host()", "tensors.clear(), others.clear()"])
def test_a_handler_may_let_go_of_what_is_on_another_device(packed: Callable[[str], Packed], end: str) -> None:
    """This makes another context current on the thread that waits for a run."""
    code = (
        PRELUDE
        + f"""
with npus(2, exec_ms=400) as library:
    session = InferSession(0, sys.argv[1])
    others = [InferSession(1, sys.argv[1])]
    tensors = others[0].infer(feeds, out_array=False)
    handled = []
    def handler(*_):
        {end}
        handled.append(1)
    signal.signal(signal.SIGUSR1, handler)
    interrupt_at(Emulator(library), "aclmdlExecuteAsync", 2, signal.SIGUSR1)
    print(session.infer(feeds)[0].tolist(), handled)
"""
    )
    assert run_script(code, packed("static").om) == "[[2.0, 2.0, 2.0, 2.0]] [1]\n"


def test_a_handler_that_raises_nothing_changes_nothing_and_cannot_run(packed: Callable[[str], Packed]) -> None:
    """A handler runs while the call waits. It cannot use the device, because the call holds the necessary locks."""
    code = (
        PRELUDE
        + """
told = []
def handler(number, frame):
    for use in (lambda: session.infer(feeds), lambda: session.infer_pipeline([feeds]), InferSession.finalize):
        try:
            use()
        except RuntimeError as error:
            told.append("signal handler" in str(error))

with npus(1, exec_ms=1500) as library:
    session = InferSession(0, sys.argv[1])
    session.infer(feeds)
    signal.signal(signal.SIGUSR1, handler)
    interrupt_at(Emulator(library), "aclmdlExecuteAsync", 2, signal.SIGUSR1)
    print(session.infer(feeds)[0].tolist(), told)
"""
    )
    assert run_script(code, packed("static").om) == "[[2.0, 2.0, 2.0, 2.0]] [True, True, True]\n"


@pytest.mark.parametrize("free", [lambda session: session._native.close(), lambda session: session.free_resource(),
                                  lambda _: InferSession.finalize()])  # fmt: skip
def test_a_kept_iteration_holds_nothing_of_a_freed_session(
    npu: Emulator, packed: Callable[[str], Packed], free: Callable[[InferSession], object]
) -> None:
    model = packed("static")
    session = InferSession(0, model.om)
    session.first_inner_run(model.case.feeds[0])
    session.inner_run([0, -1])
    kept = session.session._iteration
    assert kept is not None
    assert npu.memory_used(0) > 0
    free(session)
    assert npu.living() == []
    assert npu.memory_used(0) == 0
    with pytest.raises(SessionClosed):
        kept.step([0, -1])
    with pytest.raises(SessionClosed):
        kept.outputs()


@pytest.mark.parametrize("option", [{"threads": 2}, {"graph_optimization_level": "all"}, {"provider_options": {"depth": 1}}])
def test_options_that_an_npu_does_not_have(npu: Emulator, packed: Callable[[str], Packed], option: dict[str, object]) -> None:
    """One device and all devices refuse them in the same way, before anything starts."""
    (name,) = option if "provider_options" not in option else ("depth",)
    before = npu.call_count("aclmdlLoadFromFile")
    for kind in (
        lambda: InferSession(0, packed("static").om, **option),
        lambda: MultiDeviceSession(packed("static").om, **option),
    ):
        with pytest.raises(ConfigError, match=rf"unknown option '{name}' for a model on an NPU; use 'acl_json_path'"):
            kind()
    assert npu.call_count("aclmdlLoadFromFile") == before


@pytest.mark.parametrize(
    ("text", "number"),
    [("{", "100006|100000"), ('{"profiler": {"switch": "on", "strange": 1}}', "100010|100000"),
     ('{"dump": {"dump_path": "/nowhere/at/all", "dump_list": [{}]}}', "100009|100000")],
)  # fmt: skip
def test_a_wrong_acl_json_names_the_file_and_the_reason(
    npu: Emulator, packed: Callable[[str], Packed], tmp_path: Path, text: str, number: str
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"wrong\.json'.*aclInit failed with ({number})"):
        InferSession(0, packed("static").om, acl_json_path=str(path))
    with InferSession(0, packed("static").om):
        assert npu.living()


def test_a_relative_acl_json_is_one_file(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """AscendCL gets an absolute path, and two spellings mean one file. Only this file sets profiling and dump."""
    (tmp_path / "dump").mkdir()
    (tmp_path / "profiler").mkdir()
    (tmp_path / "acl.json").write_text(
        f'{{"dump": {{"dump_path": "{tmp_path}/dump", "dump_mode": "all", "dump_list": [{{}}]}},'
        f'"profiler": {{"switch": "on", "output": "{tmp_path}/profiler", "aic_metrics": ""}}}}'
    )
    code = """
with npus(1):
    os.chdir(sys.argv[2])
    emulator = Emulator()
    emulator.start_recording()
    with InferSession(0, sys.argv[1], acl_json_path="acl.json") as session:
        with InferSession(0, sys.argv[1], acl_json_path=f"{sys.argv[2]}/./acl.json"):
            session.infer(feeds)
        calls = emulator.stop_recording()
    print([call["args"] for call in calls if call["call"] == "aclInit"] == [[f"{sys.argv[2]}/acl.json"]])
    print(any(call["call"].startswith("aclprof") for call in calls))
"""
    assert run_script(PRELUDE + code, packed("static").om, str(tmp_path)) == "True\nFalse\n"


def test_a_pool_gives_its_workers_the_absolute_file(
    packed: Callable[[str], Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ais_bench.emulator import npus

    (tmp_path / "acl.json").write_text('{"err_msg_mode": "0"}')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with npus(1, record=tmp_path / "record"), MultiDeviceSession(packed("static").om, acl_json_path="acl.json") as session:
        monkeypatch.chdir(tmp_path / "elsewhere")
        session.infer([floats(1, 4), floats(1, 4)])
    assert f'"{tmp_path}/acl.json"' in (tmp_path / "record").read_text()
