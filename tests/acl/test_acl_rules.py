"""The driver follows CANN's rules, which the emulator enforces: events, waits, stopping, registering of memory, error numbers,
products. docs/emulator.md has the table of rules; tests/emulator/test_emulator_rules.py tests the emulator.

The tests of pipelines and pools run under the same rules. They cover the rules about waits for events and repeated recordings.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator, npus, pack
from ais_bench.errors import (
    ConfigError,
    DeviceLost,
    DeviceMemoryError,
    InferenceCancelled,
    InferenceError,
    TimesWarning,
)
from ais_bench.session import InferSession, MemorySummary, MultiDeviceSession
from support import emulator_models
from support.acl import Packed, equal
from support.scripts import run_script
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")

FEEDS = [np.full((1, 4), 3, np.float32), np.arange(4, dtype=np.float32)[None]]
WANTED = [FEEDS[0] + FEEDS[1]]


# Times


def test_every_run_of_a_pipeline_has_its_times(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    MemorySummary.reset()
    with warnings.catch_warnings(), InferSession(0, packed("static").om) as session:
        warnings.simplefilter("error")
        session.infer_pipeline([FEEDS] * 9)
        assert len(session.summary()) == 9
    assert len(MemorySummary.get_h2d_time_list()) == len(MemorySummary.get_d2h_time_list()) == 9


@pytest.mark.parametrize("name", ["static", "shape"])
def test_a_time_that_cannot_be_had_costs_no_result(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    """The third of six runs has no execution time: it is left out, with one warning for the session."""
    model = packed(name)
    feeds, mode = [model.case.feeds[0]] * 6, model.case.mode
    with InferSession(0, model.om) as session:
        wanted = session.infer(feeds[0], mode)
        session.infer_pipeline(feeds[:1], mode)  # now the sizes of a model with open shapes are known
        session.reset_summaryinfo()
        MemorySummary.reset()
        # The second rule does not count the call that the first rule answers: the fourth run's copy out.
        npu.set_faults("aclrtEventElapsedTime:8=107006;aclrtEventElapsedTime:11=107006")
        with pytest.warns(TimesWarning, match="did not report how long a run took.*107006") as caught:
            results = session.infer_pipeline(feeds, mode)
        for outputs in results:
            equal(outputs, wanted)
        assert npu.faults_fired() == 2
        assert len(caught) == 1
        assert len(session.summary()) == 5
        assert (len(MemorySummary.get_h2d_time_list()), len(MemorySummary.get_d2h_time_list())) == (6, 5)
        npu.set_faults("aclrtSynchronizeEvent:2=507899")  # in the first run, for its times
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the warning was given before
            for outputs in session.infer_pipeline(feeds, mode):
                equal(outputs, wanted)
        assert npu.faults_fired() == 1


def test_unknown_times_of_a_pool(packed: Callable[[str], Packed], caplog: pytest.LogCaptureFixture) -> None:
    with npus(1, faults="aclrtEventElapsedTime:4+=107006"), MultiDeviceSession(packed("static").om) as session:
        for outputs in session.map([FEEDS] * 20):
            equal(outputs, WANTED)
        report = session.report()
    assert (report.total.execute_ms.count, report.total.execute_ms.unknown) == (1, 19)
    assert (report.total.copy_in_ms.count, report.total.copy_out_ms.count) == (1, 1)
    assert (report.total.end_to_end_ms.count, report.total.end_to_end_ms.unknown) == (20, 0)
    assert report.to_dict()["total"]["execute_ms"]["unknown"] == 19
    assert sum("TimesWarning" in record.getMessage() for record in caplog.records) == 1


def test_a_report_without_any_time_says_unknown(packed: Callable[[str], Packed]) -> None:
    with npus(1, faults="aclrtEventElapsedTime=107006"), MultiDeviceSession(packed("static").om) as session:
        equal(session.infer(FEEDS), WANTED)
        assert str(session.report()).splitlines()[1].split()[-1] == "unknown"


# Waits


def test_long_runs_time_out_nowhere(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """This holds for single runs, pipelines and workers. The queries cost little."""
    code = """
    import sys
    import numpy as np
    from ais_bench.emulator import Emulator, npus
    from ais_bench.session import InferSession
    feeds = [np.ones((1, 4), np.float32)] * 2
    with npus(1, exec_ms=700):
        emulator = Emulator()
        with InferSession(0, sys.argv[1]) as session:
            session.infer(feeds)
            session.infer_pipeline([feeds] * 3)
            session.infer_iteration(feeds, [0, -1], 2)
        asked = emulator.call_count("aclrtStreamQuery") + emulator.call_count("aclrtQueryEventStatus")
        waits = sum(emulator.call_count(f"aclrtSynchronize{what}WithTimeout") for what in ("Stream", "Event", "Device"))
        print(emulator.timeouts(), emulator.report(), waits, asked < 6 * 700)
    """
    assert run_script(code, packed("static").om) == "0 [] 0 True\n"
    report = tmp_path / "report"
    with npus(2, exec_ms=400, report=report), MultiDeviceSession(packed("static").om) as session:
        for outputs in session.map([FEEDS] * 6):
            equal(outputs, WANTED)
    assert not report.exists()


# Events


def test_sixteen_sessions_have_events_enough(packed: Callable[[str], Packed]) -> None:
    """The product has the fewest events, and each of the sessions has a pipeline in use."""
    code = """
    import sys
    import numpy as np
    from ais_bench.emulator import Emulator, npus
    from ais_bench.session import InferSession
    feeds = [np.ones((1, 4), np.float32)] * 2
    with npus(1, product="310P3"):
        emulator = Emulator()
        sessions = [InferSession(0, sys.argv[1]) for _ in range(16)]
        print({len(session.infer_pipeline([feeds] * 5)) for session in sessions}, emulator.report())
        waitable = emulator.call_count("aclrtCreateEvent")
        print(waitable == 16 * 8, waitable < 1023 // 4)
    """
    assert run_script(code, packed("static").om) == "{5} []\nTrue True\n"


@pytest.mark.parametrize("function", ["aclrtCreateEvent", "aclrtCreateStream"])
def test_without_events_or_streams_runs_are_made_in_turn(npu: Emulator, packed: Callable[[str], Packed], function: str) -> None:
    code = {"aclrtCreateEvent": 207007, "aclrtCreateStream": 207008}[function]
    with InferSession(0, packed("static").om) as session:
        session.infer(FEEDS)
        npu.set_faults(f"{function}={code}")
        for outputs in session.infer_pipeline([FEEDS] * 3):
            equal(outputs, WANTED)
        assert npu.faults_fired() > 0


# Stopping

STOPPING = """
import logging, sys, threading
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.session import InferSession
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
feeds = [np.ones((1, 4), np.float32)] * 2

def cancelled(session, emulator, function, call):
    failures = []
    def run():
        try:
            call()
        except RuntimeError as error:
            failures.append(f"{type(error).__name__}: {error}")
    before = emulator.call_count(function)
    thread = threading.Thread(target=run)
    thread.start()
    while emulator.call_count(function) == before:
        pass
    session.cancel()
    thread.join()
    return failures
"""


@pytest.mark.parametrize("product", ["310P3", "310B", "910"])
@pytest.mark.parametrize("pipeline", [False, True])
def test_a_product_that_cannot_stop_says_what_it_does(packed: Callable[[str], Packed], product: str, pipeline: bool) -> None:
    code = f"""
with npus(1, exec_ms={400 if pipeline else 1200}, product="{product}"):  # a pipeline has three runs
    emulator = Emulator()
    session = InferSession(0, sys.argv[1])
    call = {"lambda: session.infer_pipeline([feeds] * 3)" if pipeline else "lambda: session.infer(feeds)"}
    function = {'"aclmdlExecuteAsync"' if pipeline else '"aclmdlExecute"'}
    print(*cancelled(session, emulator, function, call))
    print(session.infer(feeds)[0].tolist(), emulator.call_count("aclrtStreamAbort"), emulator.report())
"""
    warned, failed, after = run_script(STOPPING + code, packed("static").om).splitlines()
    assert warned.startswith("WARNING the runs under way end by themselves")
    assert "does not support aclrtStreamAbort" in warned
    assert failed.startswith("InferenceCancelled: ")
    assert "does not support aclrtStreamAbort, so it ended by itself" in failed
    assert after == "[[2.0, 2.0, 2.0, 2.0]] 0 []"


def test_a_stop_that_is_refused_is_asked_for_once(packed: Callable[[str], Packed]) -> None:
    """This happens on a product that the driver does not know."""
    code = """
with npus(1, exec_ms=700, faults="aclrtStreamAbort=207000"):
    emulator = Emulator()
    session = InferSession(0, sys.argv[1])
    for call in (lambda: session.infer_pipeline([feeds] * 3), lambda: session.infer_pipeline([feeds] * 2)):
        print(cancelled(session, emulator, "aclmdlExecuteAsync", call)[0])
    print(cancelled(session, emulator, "aclmdlExecute", lambda: session.infer(feeds))[0])
    print(session.infer(feeds)[0].tolist(), emulator.call_count("aclrtStreamAbort"), emulator.report())
"""
    lines = run_script(STOPPING + code, packed("static").om).splitlines()
    failures = [line for line in lines if line.startswith("InferenceCancelled")]
    assert ["so it ended by itself" in line for line in failures] == [True] * 3
    assert sum(line.startswith("WARNING") for line in lines) == 2  # the first time the driver did not know this
    assert lines[-1] == "[[2.0, 2.0, 2.0, 2.0]] 1 []"


def test_a_pool_on_a_product_that_cannot_stop(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    report = tmp_path / "report"
    with npus(2, product="310P3", report=report), MultiDeviceSession(packed("static").om) as session:
        for outputs in session.map([FEEDS] * 50):
            equal(outputs, WANTED)
    assert not report.exists()


# Registered memory


@pytest.fixture(scope="module")
def large_om(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model whose feeds and outputs of 256 KiB are large enough to be registered."""
    folder = tmp_path_factory.mktemp("large")
    return str(pack(emulator_models.add(folder, (1, 1 << 16)), folder / "add.om"))


def run_pool(om: str, folder: Path, host_register: str = "auto", **settings: str) -> tuple[str, int, list[str]]:
    """Return the report's text on host memory, the number of registrations, and violations of rules."""
    feeds = [np.ones((1, 1 << 16), np.float32)] * 2
    calls, report = folder / "calls", folder / "report"
    with (
        npus(1, record=calls, report=report, **settings),  # type: ignore[arg-type]
        MultiDeviceSession(om, host_register=host_register) as session,
    ):
        for outputs in session.map([feeds] * 30):
            assert np.array_equal(outputs[0], feeds[0] * 2)
        # A stream may use many slots, each of them a few times. Single calls use one again and again.
        for _ in range(5):
            session.infer(feeds)
        said = session.report()
    assert "host memory of device 0: " + said.host_memory[0] in str(said)
    names = [json.loads(line)["call"] for line in calls.read_text().splitlines()]
    found = report.read_text().splitlines() if report.exists() else []
    return said.host_memory[0], names.count("aclrtHostRegisterV2"), found


def test_slots_are_registered_where_that_works(large_om: str, tmp_path: Path) -> None:
    said, registered, found = run_pool(large_om, tmp_path)
    assert (said, found) == ("registered", [])
    assert registered > 1  # the trial, and slots


def test_registering_can_be_switched_off(large_om: str, tmp_path: Path) -> None:
    assert run_pool(large_om, tmp_path, "off") == ("page-locked (host_register is 'off')", 0, [])


@pytest.mark.parametrize("product", ["310P3", "910"])
def test_a_product_that_cannot_register(large_om: str, tmp_path: Path, product: str) -> None:
    said, registered, found = run_pool(large_om, tmp_path, product=product)
    assert said.startswith("page-locked (Ascend")
    assert "does not support aclrtHostRegisterV2" in said
    assert (registered, found) == (0, [])


def test_who_wants_it_all_the_same_is_answered_by_the_device(large_om: str, tmp_path: Path) -> None:
    said, registered, found = run_pool(large_om, tmp_path, "on", product="310P3")
    assert said.startswith("page-locked (aclrtHostRegisterV2 failed with 207000")
    assert found == []
    assert registered <= 2  # the trial, and one slot


@pytest.mark.parametrize(("choice", "registers"), [("auto", False), ("on", True)])
def test_an_old_kernel(large_om: str, tmp_path: Path, choice: str, registers: bool) -> None:
    """The processes see kernel 2.6, by personality(2): the driver registers nothing, unless an option demands it."""
    code = f"""
    import ctypes, os, sys
    from pathlib import Path
    from test_acl_rules import run_pool
    from ais_bench.pool import device_pool
    assert ctypes.CDLL(None).personality(0x0020000) >= 0  # UNAME26; new processes have it, too
    assert os.uname().release.startswith("2.6.")
    device_pool.check_kernel = lambda: None  # it is new enough for a pool
    print(*run_pool(sys.argv[1], Path(sys.argv[2]), "{choice}"), sep="\\n")
    """
    said, count, found = run_script(code, large_om, str(tmp_path)).splitlines()
    assert (int(count) > 0) is registers
    if registers:
        assert said == "registered"
        assert "violation: aclrtHostRegisterV2 of memory that is not page-locked on kernel 2.6" in found
    else:
        assert said.startswith("page-locked (kernel 2.6.")
        assert said.endswith("is not newer than 5.10)")
        assert found == "[]"


def test_the_option_is_checked(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    for make in (
        lambda: InferSession(0, model.om, host_register="yes"),
        lambda: InferSession(0, model.onnx, host_register="yes"),
        lambda: MultiDeviceSession(model.om, host_register="yes"),
        lambda: InferSession(0, model.om, provider_options={"host_register": "yes"}),
    ):
        with pytest.raises(ConfigError, match="host_register must be one of 'auto', 'off', 'on', got 'yes'"):
            make()
    for path in (model.om, model.onnx):
        with InferSession(0, path, host_register="off") as session:
            equal(session.infer(FEEDS), WANTED)


# Error numbers

LOST = [
    *(507010, 507011, 507014, 507015, 507016, 507017, 507018, 507034, 507035, 507036, 507042, 507043, 507044, 507045),
    *(507048, 507049, 507050, 507053, 507054, 507055, 507056, 507057, 507900, 507901, 507902),
]
NONE_LEFT = [207005, 207007, 207008, 207009, 207010, 207011, 207012]


@pytest.mark.parametrize("number", LOST)
@pytest.mark.parametrize("pipeline", [False, True])
def test_numbers_that_end_a_context(npu: Emulator, packed: Callable[[str], Packed], number: int, pipeline: bool) -> None:
    """The error says what to do, and this works."""
    with InferSession(0, packed("static").om) as session:
        npu.set_faults(f"device.execute:2={number}")
        equal(session.infer(FEEDS), WANTED)
        run = session.infer_pipeline if pipeline else session.infer
        with pytest.raises(DeviceLost) as caught:
            run([FEEDS] * 2 if pipeline else FEEDS)
        assert caught.value.code == number
        assert f"{number} (ACL_ERROR_RT_" in str(caught.value)
        of_device = number in (507010, 507901)
        assert ("use it from a new one" if of_device else "free the session and make a new one") in str(caught.value)
        with pytest.raises(DeviceLost):
            session.infer(FEEDS)
        npu.set_faults()
    if of_device:  # only a new process helps; here the end of AscendCL takes its place
        with pytest.raises(DeviceLost):
            InferSession(0, packed("static").om)
        InferSession.finalize()
    with InferSession(0, packed("static").om) as session:
        equal(session.infer(FEEDS), WANTED)


@pytest.mark.parametrize("number", NONE_LEFT)
def test_numbers_that_mean_none_left(npu: Emulator, packed: Callable[[str], Packed], number: int) -> None:
    with InferSession(0, packed("static").om) as session:
        npu.set_faults(f"aclmdlExecuteAsync:1={number}")
        with pytest.raises(DeviceMemoryError, match="free sessions on it or open fewer at a time") as caught:
            session.infer(FEEDS)
        assert caught.value.code == number
        equal(session.infer(FEEDS), WANTED)
        npu.set_faults(f"aclrtMemcpy:1={number}")
        with pytest.raises(DeviceMemoryError):
            session.infer(FEEDS)
    npu.set_faults(f"aclmdlLoadFromFile:1={number}")
    with pytest.raises(DeviceMemoryError, match="cannot load the model"):
        InferSession(0, packed("static").om)


@pytest.mark.parametrize("number", [107022, 107023])
def test_numbers_of_an_abort(npu: Emulator, packed: Callable[[str], Packed], number: int) -> None:
    with InferSession(0, packed("static").om) as session:
        npu.set_faults(f"device.execute:1={number}")
        with pytest.raises(InferenceCancelled) as caught:
            session.infer(FEEDS)
        assert caught.value.code == number
        equal(session.infer(FEEDS), WANTED)


@pytest.mark.parametrize("number", [507048, 507049, 507050, 507042, 507901, 507900])
def test_a_pool_starts_again_after_a_lost_context(packed: Callable[[str], Packed], number: int) -> None:
    """It starts again at once, not after several failures, and no item fails."""
    faults = f"device.execute:3={number}"
    with (
        npus(2, faults=faults, faults_across_processes=True),
        MultiDeviceSession(packed("static").om, restart_backoff=0) as session,
    ):
        for outputs in session.map([FEEDS] * 40):
            equal(outputs, WANTED)
        # The lost item ran on another device, and the stream may end before the new worker is ready.
        wait_until(lambda: session.report().total.restarts == 1)


def test_other_numbers_leave_the_session_good(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("static").om) as session:
        npu.set_faults("device.execute:1=507899")
        with pytest.raises(InferenceError, match="507899"):
            session.infer(FEEDS)
        equal(session.infer(FEEDS), WANTED)


def test_cancel_says_nothing_where_it_works(
    npu: Emulator, packed: Callable[[str], Packed], caplog: pytest.LogCaptureFixture
) -> None:
    with InferSession(0, packed("static").om) as session, caplog.at_level(logging.WARNING):
        session.cancel()
    assert not caplog.records
