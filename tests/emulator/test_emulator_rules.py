"""The rules of CANN in docs/emulator.md: what the emulator refuses or reports."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from ais_bench.emulator import npus, pack
from ais_bench.emulator.machine import PRODUCTS
from ais_bench.errors import ConfigError
from support import emulator_models as models
from support.emulator_abi import H2D, Acl
from support.scripts import run_script

SYNC, TIME_LINE = 0x1, 0x8
FEATURE, TIMESTAMP, NO_EVENT = 207000, 107006, 207007


def flagged(acl: Acl, flags: int) -> int:
    event = ctypes.c_void_p()
    acl.ok("aclrtCreateEventWithFlag", ctypes.byref(event), flags)
    assert event.value is not None
    return event.value


def asked(acl: Acl, start: int, end: int) -> int:
    return int(acl.aclrtEventElapsedTime(ctypes.byref(ctypes.c_float()), start, end))


def work(acl: Acl, stream: int) -> Callable[[], bool]:
    """Submit work that takes a while to the stream. Return a function that tells whether it has ended."""
    device, pinned, end = acl.malloc(64), acl.malloc_host(64), flagged(acl, TIME_LINE)
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtRecordEvent", end, stream)

    def ended() -> bool:
        acl.ok("aclrtQueryEventStatus", end, ctypes.byref(status := ctypes.c_int32(7)))
        return status.value == 1

    return ended


@pytest.fixture
def machine(make_acl: Callable[..., Acl]) -> Acl:
    """Make a machine with copies of 100 ms, and set device 0."""
    acl = make_acl(faults="device.copy=delay(100)")
    acl.ok("aclrtSetDevice", 0)
    return acl


# E: events for which a stream may wait


@pytest.mark.parametrize("flags", [TIME_LINE, 0x2, TIME_LINE | 0x2])
def test_a_stream_waits_only_for_events_made_for_it(acl: Acl, flags: int) -> None:
    stream, event = acl.stream(), flagged(acl, flags)
    acl.ok("aclrtRecordEvent", event, stream)
    assert acl.aclrtStreamWaitEvent(stream, event) == FEATURE
    assert acl.aclrtStreamWaitEventWithTimeout(stream, event, 10) == FEATURE
    assert "without ACL_EVENT_SYNC" in str(acl.text())
    assert acl.aclrtResetEvent(event, stream) == FEATURE
    acl.ok("aclrtSynchronizeEvent", event)  # the host may


@pytest.mark.parametrize("flags", [SYNC, SYNC | TIME_LINE])
def test_a_stream_waits_for_events_with_the_flag(machine: Acl, flags: int) -> None:
    acl = machine
    first, second, event = acl.stream(), acl.stream(), flagged(acl, flags)
    ended = work(acl, first)
    acl.ok("aclrtRecordEvent", event, first)
    acl.ok("aclrtStreamWaitEvent", second, event)
    acl.ok("aclrtResetEvent", event, second)
    acl.ok("aclrtSynchronizeStream", second)
    assert ended()  # the second stream did not finish before the first one
    assert acl.emulator.report() == []


# R: events that may be recorded again


def test_an_event_of_create_event_is_recorded_again_and_again(machine: Acl) -> None:
    acl = machine
    first, second, event = acl.stream(), acl.stream(), acl.event()
    for _ in range(2):
        ended = work(acl, first)
        acl.ok("aclrtRecordEvent", event, first)
        acl.ok("aclrtStreamWaitEvent", second, event)
        acl.ok("aclrtSynchronizeStream", second)
        assert ended()
    assert acl.emulator.report() == []


def test_an_event_with_the_flag_stays_recorded_until_its_reset(machine: Acl) -> None:
    """A stream that waits for its second recording continues after the first one, as in CANN."""
    acl = machine
    first, second, event = acl.stream(), acl.stream(), flagged(acl, SYNC)
    acl.ok("aclrtRecordEvent", event, first)
    acl.ok("aclrtSynchronizeEvent", event)
    acl.emulator.set_faults("device.copy=delay(60000)")  # until the rules are replaced
    ended = work(acl, first)
    acl.ok("aclrtRecordEvent", event, first)
    acl.ok("aclrtStreamWaitEvent", second, event)
    acl.ok("aclrtSynchronizeStream", second)
    assert not ended()
    acl.emulator.set_faults()
    (line,) = acl.emulator.report()
    assert "recorded again without aclrtResetEvent" in line
    acl.emulator.clear_report()


def test_a_reset_makes_it_good_for_the_next_recording(machine: Acl) -> None:
    acl = machine
    first, second, event = acl.stream(), acl.stream(), flagged(acl, SYNC)
    for _ in range(2):
        ended = work(acl, first)
        acl.ok("aclrtRecordEvent", event, first)
        acl.ok("aclrtStreamWaitEvent", second, event)
        acl.ok("aclrtResetEvent", event, second)
        acl.ok("aclrtSynchronizeStream", second)
        assert ended()
    assert acl.emulator.report() == []


def test_a_reset_of_an_event_of_create_event_is_undefined(acl: Acl) -> None:
    stream, event = acl.stream(), acl.event()
    acl.ok("aclrtRecordEvent", event, stream)
    acl.ok("aclrtResetEvent", event, stream)
    acl.ok("aclrtSynchronizeStream", stream)
    assert "aclrtResetEvent" in acl.emulator.report()[0]
    acl.emulator.clear_report()


# T: when a time may be queried


def test_no_time_before_the_host_dealt_with_the_recordings(acl: Acl) -> None:
    """A wait of another stream for the event, and the end of that stream, do not count."""
    stream, other, start, end = acl.stream(), acl.stream(), acl.event(), acl.event()
    acl.ok("aclrtRecordEvent", start, stream)
    work(acl, stream)
    acl.ok("aclrtRecordEvent", end, stream)
    acl.ok("aclrtStreamWaitEvent", other, end)
    acl.ok("aclrtSynchronizeStream", other)
    assert asked(acl, start, end) == TIMESTAMP
    acl.ok("aclrtSynchronizeEvent", end)
    assert asked(acl, start, end) == TIMESTAMP  # the host has not synchronised with the start
    acl.ok("aclrtSynchronizeEvent", start)
    assert asked(acl, start, end) == 0
    acl.ok("aclrtRecordEvent", start, stream)  # a new recording has no time yet
    assert asked(acl, start, end) == TIMESTAMP


@pytest.mark.parametrize("how", ["stream", "stream in time", "device", "query", "query status"])
def test_what_deals_with_recordings(acl: Acl, how: str) -> None:
    stream, start, end = acl.stream(), acl.event(), flagged(acl, TIME_LINE)
    acl.ok("aclrtRecordEvent", start, stream)
    acl.ok("aclrtRecordEvent", end, stream)
    status = ctypes.c_int32()
    if how == "stream":
        acl.ok("aclrtSynchronizeStream", stream)
    elif how == "stream in time":
        acl.ok("aclrtSynchronizeStreamWithTimeout", stream, 10_000)
    elif how == "device":
        acl.ok("aclrtSynchronizeDevice")
    else:
        query, reached = ("aclrtQueryEvent", 0) if how == "query" else ("aclrtQueryEventStatus", 1)
        for event in (start, end):
            status.value = 1 - reached
            while status.value != reached:
                acl.ok(query, event, ctypes.byref(status))
    assert asked(acl, start, end) == 0


# Q: the number of events


@pytest.mark.parametrize("product", ["310P3", "910"])
def test_events_are_few(make_acl: Callable[..., Acl], product: str) -> None:
    many = {"310P3": 1023, "910": 65535}[product]
    acl = make_acl(soc=PRODUCTS.get(product, f"Ascend{product}"))
    acl.ok("aclrtSetDevice", 0)
    stream = acl.stream()
    numbered = [flagged(acl, SYNC) for _ in range(many - 1)]
    free = [acl.event() for _ in range(2)]  # these get their number when they are recorded
    timed = [flagged(acl, TIME_LINE) for _ in range(9)]  # these get no number
    for event in (free[0], free[0], *timed):
        acl.ok("aclrtRecordEvent", event, stream)
    assert acl.aclrtCreateEventWithFlag(ctypes.byref(ctypes.c_void_p()), SYNC) == NO_EVENT
    assert acl.aclrtRecordEvent(free[1], stream) == NO_EVENT
    assert f"all {many} events" in str(acl.text())
    acl.ok("aclrtDestroyEvent", numbered[0])
    acl.ok("aclrtRecordEvent", free[1], stream)
    acl.ok("aclrtResetDevice", 0)
    acl.ok("aclrtSetDevice", 0)
    acl.emulator.clear_report()
    flagged(acl, SYNC)  # the numbers were released


# W: a wait that times out is an error


def test_time_outs_are_counted_and_reported(machine: Acl) -> None:
    acl = machine
    stream, event = acl.stream(), acl.event()
    acl.emulator.set_faults("device.copy=delay(60000)")  # until the rules are replaced
    work(acl, stream)
    acl.ok("aclrtRecordEvent", event, stream)
    assert acl.aclrtSynchronizeStreamWithTimeout(stream, 1) == 507046
    assert acl.aclrtSynchronizeEventWithTimeout(event, 1) == 507047
    acl.emulator.set_faults()
    assert acl.emulator.timeouts() == 2
    assert [line.partition(":")[0] for line in acl.emulator.report()] == ["time-out"] * 2
    acl.ok("aclrtSynchronizeStreamWithTimeout", stream, 10_000)
    acl.ok("aclrtSynchronizeEventWithTimeout", event, 10_000)
    assert acl.emulator.timeouts() == 2
    acl.emulator.clear_report()
    assert acl.emulator.timeouts() == 0


# S, K: what a product and a kernel can do


@pytest.mark.parametrize(
    ("product", "works"),
    [("310P3", False), ("310B", False), ("910", False), ("A2", True), ("910B", True), ("A3", True), ("950", True)],
)
def test_products_differ(make_acl: Callable[..., Acl], product: str, works: bool) -> None:
    acl = make_acl(soc=PRODUCTS.get(product, f"Ascend{product}"))
    acl.ok("aclrtSetDevice", 0)
    memory = np.zeros(3 * 4096, np.uint8)
    page = -(-memory.ctypes.data // 4096) * 4096
    code = 0 if works else FEATURE
    assert acl.aclrtStreamAbort(acl.stream()) == code
    assert acl.aclrtHostRegisterV2(page, 4096, 0x10000000) == code
    assert acl.aclrtHostUnregister(page) == code
    if not works:
        assert product[:3] in str(acl.text())
    assert acl.emulator.report() == []


@pytest.mark.parametrize(
    ("kernel", "fine"), [("4.19.90-2003", False), ("5.10.0-60.18.0.50.oe2203", False), ("5.11", True), ("6.6.0", True)]
)
def test_old_kernels_do_not_pin(make_acl: Callable[..., Acl], monkeypatch: pytest.MonkeyPatch, kernel: str, fine: bool) -> None:
    monkeypatch.setenv("AIS_EMULATOR_KERNEL", kernel)
    acl = make_acl()
    acl.ok("aclrtSetDevice", 0)
    memory = np.zeros(3 * 4096, np.uint8)
    page = -(-memory.ctypes.data // 4096) * 4096
    acl.ok("aclrtHostRegisterV2", page, 4096, 0x10000000)
    acl.ok("aclrtHostUnregister", page)
    assert [kernel in line for line in acl.emulator.report()] == [] if fine else [True]
    acl.emulator.clear_report()


# F, J, J2: start and end


def test_a_second_initialisation_counts_whatever_its_file(bare_acl: Acl, tmp_path: Path) -> None:
    acl, other = bare_acl, tmp_path / "acl.json"
    other.write_text('{"err_msg_mode": "1"}')
    acl.ok("aclInit", None)
    assert acl.aclInit(str(other).encode()) == 100002
    assert acl.aclInit(b"/nowhere.json") == 100002  # the file is not read
    left = ctypes.c_uint64()
    acl.ok("aclFinalizeReference", ctypes.byref(left))
    assert left.value == 2


def test_the_first_configuration_of_a_process_stays(bare_acl: Acl, tmp_path: Path) -> None:
    acl, first, copy, other = bare_acl, tmp_path / "first", tmp_path / "copy", tmp_path / "other"
    for path, text in ((first, "{}"), (copy, "{}"), (other, '{"err_msg_mode": "0"}')):
        path.write_text(text)
    acl.ok("aclInit", str(first).encode())
    acl.ok("aclFinalize")
    assert acl.aclInit(str(other).encode()) == 100000
    assert acl.aclInit(None) == 100000  # no file means an empty text
    assert "another content" in str(acl.text())
    acl.ok("aclInit", str(copy).encode())  # the content counts, not the name
    acl.ok("aclFinalize")


def test_finalize_drops_every_reference(bare_acl: Acl) -> None:
    acl = bare_acl
    acl.ok("aclInit", None)
    assert acl.aclInit(None) == 100002  # as another library
    acl.ok("aclrtSetDevice", 0)
    acl.ok("aclFinalize")
    assert acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0) == 100001
    acl.emulator.clear_report()


# npus() several times in one process

PRELUDE = """
import os, sys
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.errors import AisBenchError, ConfigError
from ais_bench.session import InferSession
om = sys.argv[1]
feeds = [np.ones((1, 4), np.float32)] * 2

def answer(device):
    with InferSession(device, om) as session:
        return session.infer(feeds)[0].tolist()

def failure(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except AisBenchError as error:
        return ("ConfigError" if isinstance(error, ConfigError) else type(error).__name__) + ": " + str(error)

def enter(*arguments, **more):
    with npus(*arguments, **more):
        pass
"""


@pytest.fixture(scope="module")
def om(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rules")
    return str(pack(models.add(folder), folder / "add.om"))


def test_npus_can_be_entered_again(om: str) -> None:
    code = """
    with npus(2):
        print(answer(1), failure(answer, 2))
    with npus(4, memory_mb=64, product="310P3"):
        print(answer(3), failure(answer, 4))
        with npus(3):
            print(answer(2), failure(answer, 3))
        print(answer(3), failure(answer, 4))
    """
    lines = run_script(PRELUDE + dedent(code), om).splitlines()
    assert len(lines) == 4
    for line, seen in zip(lines, (2, 4, 3, 4), strict=True):
        assert line.startswith("[[2.0, 2.0, 2.0, 2.0]] DeviceUnavailable")
        assert f"this process sees {seen} NPUs" in line


def test_npus_in_use_stay_what_they_are(om: str) -> None:
    """While a session is open, another machine is refused with the reason; the same machine and other faults are accepted."""
    code = """
    with npus(2):
        session = InferSession(0, om)
        print(failure(enter, 3))
        print(failure(enter, 2), Emulator().faults_fired())
        with npus(2, faults="aclmdlExecuteAsync=507899"):
            print(failure(session.infer, feeds)[:14])
        print(session.infer(feeds)[0].tolist())
    print(session.infer(feeds)[0].tolist())  # the block is over, the session is not
    print(failure(enter, 5) is not None)
    session.free_resource()
    with npus(5):
        print(answer(4))
    """
    lines = run_script(PRELUDE + dedent(code), om).splitlines()
    assert lines[0].startswith("ConfigError: the emulated NPUs of this process are in use")
    assert "free the sessions first" in lines[0]
    assert lines[1:] == ["None 0", "InferenceError", *["[[2.0, 2.0, 2.0, 2.0]]"] * 2, "True", "[[2.0, 2.0, 2.0, 2.0]]"]


def test_another_library_needs_another_process(om: str) -> None:
    code = """
    with npus(1):
        answer(0)
    with npus(1, without=["aclrtStreamAbort"]) as library:
        print(failure(answer, 0))
    """
    text = run_script(PRELUDE + dedent(code), om)
    assert text.startswith("ConfigError: AIS_BENCH_ACL_LIBRARY names ")
    assert "a process loads AscendCL once" in text


def test_a_bad_setting_is_an_error_and_ends_nothing(om: str) -> None:
    code = """
    for more in ({"exec_ms": "fast"}, {"exec_ms": -1}, {"exec_ms": "normal:5"}, {"exec_ms": {0: "x"}}, {"copy_gbps": "many"},
                 {"memory_mb": 0}, {"faults": "nonsense"}, {"on_violation": "ignore"}, {"product": "H200"}, {"kernel": "new"},
                 {"count": 0}, {"exec_ms": {9: 1}}):
        before = dict(os.environ)
        print(failure(enter, **{"count": 2, **more}))
        assert dict(os.environ) == before
    with npus(2):
        print(answer(0))
    os.environ["AIS_EMULATOR_EXEC_MS"] = "fast"
    """
    lines = run_script(PRELUDE + dedent(code), om).splitlines()
    assert lines[-1] == "[[2.0, 2.0, 2.0, 2.0]]"
    assert all(line.startswith("ConfigError: ") for line in lines[:-1])
    assert len(lines) == 13
    assert "'fast'" in lines[0]
    with pytest.raises(ConfigError, match="AIS_EMULATOR_EXEC_MS"), npus(1, exec_ms="uniform:1"):
        pass


def test_a_bad_environment_is_an_error_and_ends_nothing(om: str) -> None:
    code = """
    from ais_bench.emulator import library_path
    os.environ["AIS_BENCH_ACL_LIBRARY"] = str(library_path())
    print(failure(answer, 0))
    del os.environ["AIS_EMULATOR_EXEC_MS"]
    with npus(1):
        print(answer(0))
    """
    first, second = run_script(PRELUDE + dedent(code), om, AIS_EMULATOR_EXEC_MS="fast").splitlines()
    assert first.startswith("ConfigError")
    assert "AIS_EMULATOR_EXEC_MS is 'fast'" in first
    assert second == "[[2.0, 2.0, 2.0, 2.0]]"
