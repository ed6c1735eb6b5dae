"""Functions of the emulator beyond AscendCL: faults, recordings, settings, libraries without symbols."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import library_path, library_without, npus
from ais_bench.emulator.binary import OPTIONAL
from ais_bench.emulator.machine import LIBRARY_VARIABLE
from support import TESTS
from support.emulator_abi import H2D, Acl, AclError, Dataset
from support.waiting import wait_until


def _script(body: str, opened: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a new process; if `opened`, with `acl` initialised and device 0 set."""
    head = "import ctypes, sys, os; sys.path.insert(0, sys.argv[1])\nfrom support.emulator_abi import Acl\nacl = Acl()\n"
    if opened:
        head += "acl.ok('aclInit', None); acl.ok('aclrtSetDevice', 0)\n"
    return subprocess.run(
        [sys.executable, "-c", head + body, str(TESTS)],
        capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=100,
    )  # fmt: skip


class TestRules:
    def test_counting(self, acl):
        pointer = ctypes.c_void_p()

        def codes(rules, calls=5):
            acl.emulator.set_faults(rules)
            return [acl.aclrtMalloc(ctypes.byref(pointer), 64, 0) for _ in range(calls)]

        assert codes("") == [0] * 5
        assert codes("aclrtMalloc:3=207001") == [0, 0, 207001, 0, 0]
        assert acl.emulator.faults_fired() == 1
        assert codes("aclrtMalloc:4+=oom") == [0, 0, 0, 207001, 207001]
        assert codes("aclrtMalloc:2-3=500000") == [0, 500000, 500000, 0, 0]
        assert codes("aclrtMalloc=500000") == [500000] * 5
        assert codes("aclrtFree=500000;aclrtMalloc:1=500001") == [500001, 0, 0, 0, 0]
        assert codes("*:2=500000") == [0, 500000, 0, 0, 0]
        assert codes("aclrtMalloc:1=500000@1") == [0] * 5
        acl.emulator.set_faults("aclrtMalloc:1=500000")
        acl.aclrtMalloc(ctypes.byref(pointer), 64, 0)
        assert "aclrtMalloc:1=500000" in acl.text()
        acl.emulator.set_faults()

    def test_per_device(self, acl):
        acl.emulator.set_faults("aclrtSetDevice:2=507033@1")
        assert [acl.aclrtSetDevice(device) for device in (0, 1, 0, 1, 1)] == [0, 0, 0, 507033, 0]

    def test_functions_without_a_code(self, acl):
        acl.emulator.set_faults("aclmdlCreateDataset=500000;aclmdlGetNumInputs=1")
        assert acl.aclmdlCreateDataset() is None
        assert acl.aclmdlGetNumInputs(None) == 0
        assert acl.emulator.faults_fired() == 2

    @pytest.mark.parametrize(
        "rule",
        [
            "x",
            "=1",
            "aclInit=",
            "aclInit=boom",
            "aclInit:0x=1",
            "aclInit:=1",
            "aclInit=1@",
            "aclInit=1@x",
            "aclInit=-5",
            "aclInit=delay(x)",
        ],
    )
    def test_rules_that_are_none(self, acl, rule):
        with pytest.raises(ValueError, match="fault rule"):
            acl.emulator.set_faults(rule)

    def test_delay(self, acl):
        acl.emulator.set_faults("aclrtFree:1=delay(1)")
        acl.ok("aclrtFree", acl.malloc(64))
        assert acl.emulator.faults_fired() == 1

    def test_a_delay_ends_when_the_rules_are_replaced(self, acl):
        acl.emulator.set_faults("aclrtGetDeviceCount=delay(600000)")
        counts = []
        thread = threading.Thread(target=lambda: counts.append(acl.fill(ctypes.c_uint32, "aclrtGetDeviceCount")))
        thread.start()
        wait_until(lambda: acl.emulator.faults_fired() == 1)
        assert counts == []
        acl.emulator.set_faults()
        thread.join(30)
        assert counts == [8]

    def test_a_lost_device(self, acl):
        device = acl.malloc(64)
        acl.ok("aclrtSetDevice", 1)
        acl.emulator.set_faults("aclrtMemset:1=lost@0")
        acl.ok("aclrtSetDevice", 0)
        assert acl.aclrtMemset(device, 64, 0, 64) == 507010
        acl.emulator.set_faults()
        assert acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0) == 507010  # permanently
        status = ctypes.c_int32()
        acl.ok("aclrtQueryDeviceStatus", 0, ctypes.byref(status))
        assert status.value == 1
        assert acl.aclrtSetDevice(0) == 507010
        acl.ok("aclrtFree", device)
        acl.ok("aclrtSetDevice", 1)  # the other devices still work
        acl.ok("aclrtFree", acl.malloc(64))

    def test_an_exception_poisons_the_context_until_the_reset(self, acl):
        acl.emulator.set_faults("aclrtSynchronizeDevice:1=507015")
        assert acl.aclrtSynchronizeDevice() == 507015
        assert acl.aclrtSynchronizeDevice() == 507015
        acl.ok("aclrtResetDevice", 0)
        acl.ok("aclrtSetDevice", 0)
        acl.ok("aclrtSynchronizeDevice")

    @pytest.mark.parametrize(("action", "status"), [("crash", -6), ("exit", 1)])
    def test_the_end_of_the_process(self, action, status):
        result = _script(
            "print('before', flush=True); acl.malloc(64); print('after')", AIS_EMULATOR_FAULTS=f"aclrtMalloc={action}"
        )
        assert (result.stdout, result.returncode) == ("before\n", status)

    def test_a_hang_is_for_ever(self):
        code = "import signal; print('before', flush=True); signal.setitimer(signal.ITIMER_REAL, 0.3); acl.malloc(64)"
        result = _script(code, AIS_EMULATOR_FAULTS="aclrtMalloc=hang")
        assert (result.stdout, result.returncode) == ("before\n", -14)  # SIGALRM

    def test_counting_over_all_processes(self, tmp_path):
        rules = {"AIS_EMULATOR_FAULTS": "aclrtMalloc:2=207001", "AIS_EMULATOR_FAULT_STATE": str(tmp_path / "state")}
        code = "print(acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0))"
        assert [_script(code, **rules).stdout.strip() for _ in range(3)] == ["0", "207001", "0"]


def _session(acl: Acl, static_om: Path) -> list[float]:
    """Run a whole session, and release everything in any case."""
    undo = []
    stream = None
    try:
        acl.ok("aclInit", None)
        undo.append(lambda: acl.aclFinalize())
        acl.ok("aclrtSetDevice", 0)
        undo.append(lambda: acl.aclrtResetDevice(0))
        stream = acl.stream()
        pinned = acl.malloc_host(16)
        undo.append(lambda: acl.aclrtFreeHost(pinned))
        model_id = ctypes.c_uint32()
        acl.ok("aclmdlLoadFromFile", os.fspath(static_om).encode(), ctypes.byref(model_id))
        undo.append(lambda: acl.aclmdlUnload(model_id))
        desc = acl.aclmdlCreateDesc()
        if desc is None:
            raise AclError("aclmdlCreateDesc", -1, acl.text() or "")
        undo.append(lambda: acl.aclmdlDestroyDesc(desc))
        acl.ok("aclmdlGetDesc", desc, model_id)
        datasets = []
        for count in (2, 1):
            dataset = acl.aclmdlCreateDataset()
            if dataset is None:
                raise AclError("aclmdlCreateDataset", -1, acl.text() or "")
            datasets.append(dataset)
            undo.append(lambda dataset=dataset: acl.aclmdlDestroyDataset(dataset))
            for _ in range(count):
                address = acl.malloc(16)
                undo.append(lambda address=address: acl.aclrtFree(address))
                acl.ok("aclrtMemcpyAsync", address, 16, pinned, 16, H2D, stream)
                buffer = acl.aclCreateDataBuffer(address, 16)
                if buffer is None:
                    raise AclError("aclCreateDataBuffer", -1, acl.text() or "")
                undo.append(lambda buffer=buffer: acl.aclDestroyDataBuffer(buffer))
                acl.ok("aclmdlAddDatasetBuffer", dataset, buffer)
        acl.ok("aclmdlExecuteAsync", model_id, *datasets, stream)
        acl.ok("aclrtSynchronizeStream", stream)
        return acl.to_host(address, (4,)).tolist()
    finally:
        if stream is not None:
            acl.aclrtDestroyStreamForce(stream)  # first, because the objects below must not be in use
        for step in reversed(undo):
            step()


def test_failing_every_call_at_every_occurrence(bare_acl, static_om):
    """Run the sweep for runtimes on a correct program: each failure is noticed, none leaks."""
    acl = bare_acl
    acl.emulator.start_recording()
    assert len(_session(acl, static_om)) == 4
    calls = [call["call"] for call in acl.emulator.stop_recording()]
    giving_back = ("Destroy", "Free", "Reset", "Unload", "Finalize")
    swept = 0
    for function in sorted(set(calls)):
        if any(word in function for word in giving_back):
            continue  # a failed release is a leak
        occurrence = 0
        while True:
            occurrence += 1
            acl.emulator.set_faults(f"{function}:{occurrence}=500000")
            acl.emulator.clear_report()
            text = ""
            try:
                _session(acl, static_om)
            except AclError as error:
                text = str(error)
            if acl.emulator.faults_fired() == 0:
                assert text == ""
                break
            assert f"{function}:{occurrence}=500000" in text
            assert acl.emulator.report() == []
            assert acl.emulator.living() == []
            swept += 1
    assert swept == sum(not any(word in call for word in giving_back) for call in calls)


class TestRecording:
    def test_names_do_not_depend_on_addresses(self, acl, static_om):
        def record():
            acl.emulator.start_recording()
            model = acl.load(static_om)
            feeds, results = Dataset(acl, [16, 16]), Dataset(acl, [16])
            assert model.run(feeds, results) == 0
            return [(call["call"], call["args"], call["result"], call["device"]) for call in acl.emulator.stop_recording()]

        calls = record()
        assert calls[0] == ("aclmdlLoadFromFile", [str(static_om), 1], 0, 0)
        assert ("aclmdlCreateDesc", [], "model desc#1", 0) in calls
        assert ("aclrtMalloc", ["device 0 memory#1", 16, 0], 0, 0) in calls
        assert ("aclmdlAddDatasetBuffer", ["dataset#1", "data buffer#1"], 0, 0) in calls
        assert calls[-1] == ("aclmdlExecute", [1, "dataset#1", "dataset#2"], 0, 0)
        assert acl.emulator.call_count("aclmdlExecute") == 1
        assert acl.emulator.call_count("aclmdlNone") == 0

    def test_failures_and_offsets(self, acl):
        acl.emulator.start_recording()
        address = acl.malloc(64)
        host = np.zeros(64, np.uint8)
        acl.aclrtMemcpy(address + 32, 32, host.ctypes.data, 64, H2D)
        acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 0, 0)
        calls = acl.emulator.stop_recording()
        assert calls[1]["args"] == ["device 0 memory#1+32", 32, "host", 64, 1]
        assert calls[1]["result"] == 107000
        assert calls[2]["args"][0] == "unfilled"

    def test_to_a_file(self, tmp_path):
        result = _script("acl.malloc(64)", AIS_EMULATOR_RECORD=str(tmp_path / "calls-%p.jsonl"))
        assert result.returncode == 0
        (path,) = tmp_path.glob("calls-*.jsonl")
        calls = [json.loads(line)["call"] for line in path.read_text().splitlines()]
        assert calls == ["aclInit", "aclrtSetDevice", "aclrtMalloc"]


class TestReport:
    def test_to_a_file_and_to_stderr(self, tmp_path):
        code = "acl.malloc(64); acl.ok('aclFinalize')"
        assert "leak at aclFinalize: device memory of device 0 #1 (64 bytes)" in _script(code).stderr
        path = tmp_path / "report"
        assert _script(code, AIS_EMULATOR_REPORT=str(path)).stderr == ""
        assert "(64 bytes)" in path.read_text()

    def test_abort_at_a_violation(self):
        code = (
            "import numpy as np; p = acl.malloc_host(64); d = acl.malloc(64); s = acl.stream()\n"
            "acl.emulator.set_faults('device.copy=delay(20000)')\n"
            "acl.ok('aclrtMemcpyAsync', d, 64, p, 64, 1, s); print('before', flush=True); acl.aclrtFree(d); print('after')"
        )
        result = _script(code, AIS_EMULATOR_ON_VIOLATION="abort")
        assert (result.stdout, result.returncode) == ("before\n", -6)
        assert "violation" in result.stderr


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("DEVICES", "many", "0 to 1024"),
            ("EXEC_MS", "triangular:1,2", "lognormal"),
            ("EXEC_MS", "-1", "number"),
            ("EXEC_MS", "9=5", "0 to 7"),
            ("MEMORY_MB", "0", "1 to"),
            ("COPY_GBPS", "x", "number"),
            ("RUN_MODE", "both", "'host' or 'device'"),
            ("FAULTS", "nonsense", "fault rule"),
            ("ON_VIOLATION", "ignore", "'report' or 'abort'"),
        ],
    )
    def test_what_cannot_be_is_an_error_of_every_call(self, name, value, text):
        """The process never ends, and the machine is either complete or missing."""
        body = (
            "codes = [acl.aclInit(None), acl.aclrtSetDevice(0), acl.aclrtGetDeviceCount(ctypes.byref(ctypes.c_uint32()))]\n"
            "print(codes, acl.text())"
        )
        result = _script(body, opened=False, **{f"AIS_EMULATOR_{name}": value})
        assert result.stderr == ""
        assert result.stdout.startswith("[100000, 100000, 100000]")
        assert f"AIS_EMULATOR_{name}" in result.stdout
        assert text in result.stdout

    @pytest.mark.parametrize("text", ["uniform:4,6", "normal:5,1", "lognormal:5,0.2", "exponential:5"])
    def test_distributions(self, make_acl, static_om, text):
        """Draws differ, and their mean is right: it is never less, and more only if the machine is busy."""
        acl = make_acl(exec_ms=text)
        times = []
        for device in (0, 0):
            acl.ok("aclrtSetDevice", device)
            model, stream = acl.load(static_om), acl.stream()
            feeds, results = Dataset(acl, [16, 16]), Dataset(acl, [16])
            events = [acl.event() for _ in range(31)]
            acl.ok("aclrtRecordEvent", events[0], stream)
            for event in events[1:]:
                acl.ok("aclmdlExecuteAsync", model.id, feeds.handle, results.handle, stream)
                acl.ok("aclrtRecordEvent", event, stream)
            acl.ok("aclrtSynchronizeStream", stream)
            for start, end in pairwise(events):
                elapsed = ctypes.c_float()
                acl.ok("aclrtEventElapsedTime", ctypes.byref(elapsed), start, end)
                times.append(elapsed.value)
        assert len({round(time, 3) for time in times}) > 20
        assert np.mean(times) > 5 * 0.4
        assert min(times) < 2 * 5


class TestLibraries:
    def test_optional_symbols_are_there(self):
        library = ctypes.CDLL(str(library_path()))
        assert [name for name in OPTIONAL if not hasattr(library, name)] == []

    @pytest.mark.parametrize("hidden", OPTIONAL)
    def test_one_at_a_time(self, hidden, tmp_path):
        path = library_without([hidden], tmp_path)
        library = ctypes.CDLL(str(path))
        assert [name for name in OPTIONAL if not hasattr(library, name)] == [hidden]
        assert hasattr(library, "aclrtMalloc")

    def test_it_works_without(self, tmp_path, static_om):
        acl = Acl(library_without(OPTIONAL, tmp_path))
        assert len(_session(acl, static_om)) == 4

    def test_none_hidden_and_unknown_ones(self, tmp_path):
        assert library_without([]) == library_path()
        with pytest.raises(ValueError, match="aclNonsense"):
            library_without(["aclNonsense"], tmp_path)

    def test_copies_are_shared(self, tmp_path):
        first = library_without(["acldvppMalloc", "acldvppFree"], tmp_path)
        stamp = first.stat().st_mtime_ns
        assert library_without(["acldvppFree", "acldvppMalloc"], tmp_path) == first
        assert first.stat().st_mtime_ns == stamp
        assert len(list(tmp_path.iterdir())) == 1


class TestNpus:
    def test_the_environment_is_set_and_put_back(self, monkeypatch, tmp_path):
        monkeypatch.setenv("AIS_EMULATOR_DEVICES", "3")
        monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
        before = dict(os.environ)
        with npus(
            4,
            exec_ms={0: 5, 2: "normal:1,0.1"},
            memory_mb=64,
            faults=["a=1", "b=2"],
            report=tmp_path / "r",
            without=["acldvppFree"],
        ) as path:
            assert os.environ[LIBRARY_VARIABLE] == str(path)
            assert not hasattr(ctypes.CDLL(str(path)), "acldvppFree")
            assert os.environ["AIS_EMULATOR_DEVICES"] == "4"
            assert os.environ["AIS_EMULATOR_EXEC_MS"] == "0=5;2=normal:1,0.1"
            assert os.environ["AIS_EMULATOR_FAULTS"] == "a=1;b=2"
        assert dict(os.environ) == before

    def test_they_are_there_for_child_processes(self):
        with npus(5, memory_mb={1: 32}, faults="aclrtMalloc:1=oom@1", faults_across_processes=True):
            code = "acl.ok('aclrtSetDevice', 1); print(acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0), end=' ')\n"
            code += "print(acl.fill(ctypes.c_uint32, 'aclrtGetDeviceCount'))"
            codes = [_script(code).stdout for _ in range(2)]
        assert codes == ["207001 5\n", "0 5\n"]

    @pytest.mark.parametrize(
        ("settings", "text"),
        [({"count": 0}, "at least 1"), ({"exec_ms": {9: 1}}, "devices 0 to 7"), ({"without": ["aclNonsense"]}, "aclNonsense")],
    )
    def test_settings_that_cannot_be(self, settings, text):
        with pytest.raises(ValueError, match=text), npus(**settings):
            pass

    def test_the_command_line_runs_a_command(self):
        code = "import os; print(os.environ['AIS_EMULATOR_DEVICES'], os.environ['AIS_EMULATOR_EXEC_MS'])"
        command = [
            sys.executable,
            "-m",
            "ais_bench.emulator",
            "run",
            "--npus",
            "2",
            "--exec-ms",
            "5",
            "--",
            sys.executable,
            "-c",
            code,
        ]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 5\n"
