"""`acl_json_path`: profiling and dump settings reach AscendCL unchanged, and the error of an invalid file names it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator, npus
from ais_bench.errors import ConfigError, WorkerStartError
from ais_bench.session import InferSession, MultiDeviceSession
from support.acl import Packed, equal
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")
FEEDS = [np.ones((1, 4), np.float32)] * 2
PROFILER = {"switch": "on", "output": "FOLDER", "aicpu": "on", "aic_metrics": "PipeUtilization"}
DUMP = {"dump_path": "FOLDER", "dump_mode": "all", "dump_list": [{"model_name": "add"}]}


def written(folder: Path, content: str) -> str:
    path = folder / "acl.json"
    path.write_text(content.replace("FOLDER", str(folder)))
    return str(path)


PRELUDE = """
import json, sys
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.errors import ConfigError
from ais_bench.session import InferSession
om, folder, *paths = sys.argv[1:]
feeds = [np.ones((1, 4), np.float32)] * 2

def opened(path=None, device=0):
    with InferSession(device, om, acl_json_path=path) as session:
        assert np.array_equal(session.infer(feeds)[0], np.full((1, 4), 2, np.float32))

def refused(path, *words):
    try:
        opened(path)
    except ConfigError as error:
        assert all(word in str(error) for word in ("acl_json_path", path, *words)), error
    else:
        raise AssertionError(f"{path} was taken")

def inits(emulator):
    return [call["args"] for call in emulator.stop_recording() if call["call"] == "aclInit"]
"""


@pytest.mark.parametrize("section", [{"profiler": PROFILER}, {"dump": DUMP}, {"profiler": PROFILER, "dump": DUMP}])
def test_settings_are_passed_on_and_the_results_are_the_same(
    packed: Callable[[str], Packed], tmp_path: Path, section: dict[str, object]
) -> None:
    code = """
with npus(2):
    emulator = Emulator()
    emulator.start_recording()
    opened(paths[0])
    InferSession.finalize()
    assert inits(emulator) == [paths]
    """
    run_script(PRELUDE + code, packed("static").om, str(tmp_path), written(tmp_path, json.dumps(section)))


def test_a_process_has_one_configuration(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """AscendCL reads the first session's file and uses its content, even after a finalize."""
    path = written(tmp_path, '{"err_msg_mode": "0"}')
    copy = tmp_path / "copy.json"
    copy.write_text('{"err_msg_mode": "0"}')
    other = tmp_path / "other.json"
    other.write_text("{}")
    code = """
with npus(2):
    emulator = Emulator()
    path, copy, other, missing = paths
    emulator.start_recording()
    with InferSession(0, om, acl_json_path=path):
        opened()
        opened(path, 1)
        opened(copy)
        refused(other, "one file per process", f"that had '{path}'", "another process")
        refused(missing)
    assert inits(emulator) == [[path]]
    emulator.start_recording()
    InferSession.finalize()
    opened()  # asks for nothing, and takes what AscendCL takes
    assert inits(emulator) == [[path]]
    InferSession.finalize()
    refused(other, "also after finalize()", f"that had '{path}'")
    refused(missing)
    opened(copy)
    InferSession.finalize()
    open(copy, "w").write("{ }")
    refused(copy, "with other content")
    """
    run_script(PRELUDE + code, packed("static").om, str(tmp_path), path, str(copy), str(other), str(tmp_path / "missing.json"))


def test_a_process_whose_first_session_had_no_file(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    code = """
with npus(2):
    with InferSession(0, om):
        refused(paths[0], "that had none")
    InferSession.finalize()
    refused(paths[0], "that had none")
    opened()
    """
    run_script(PRELUDE + code, packed("static").om, str(tmp_path), written(tmp_path, '{"err_msg_mode": "0"}'))


def test_a_file_after_another_library(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """The other library's initialisation counts, and our reference is released."""
    code = """
import ctypes, os
with npus(2):
    other = ctypes.CDLL(os.environ["AIS_BENCH_ACL_LIBRARY"])
    assert other.aclInit(None) == 0
    refused(paths[0], "another library of this process was first")
    left = ctypes.c_uint64(99)
    opened()
    InferSession.finalize()
    assert other.aclFinalizeReference(ctypes.byref(left)) == 0 and left.value == 0
    """
    run_script(PRELUDE + code, packed("static").om, str(tmp_path), written(tmp_path, '{"err_msg_mode": "0"}'))


def test_a_file_may_begin_with_a_byte_order_mark(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeff{"err_msg_mode": "0"}')
    code = """
with npus(2):
    opened(paths[0])
    """
    run_script(PRELUDE + code, packed("static").om, str(tmp_path), path)


def test_a_cpu_device_takes_any(packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("static").onnx, acl_json_path="/nowhere") as session:
        assert session._native.runtime == "ort"


WRONG = {
    "missing": (None, "100003 (ACL_ERROR_INVALID_FILE)", "cannot be read"),
    "no JSON": ("{'profiler'", "100006 (ACL_ERROR_PARSE_FILE)", "acl.json"),
    "no object": ("[1]", "100006 (ACL_ERROR_PARSE_FILE)", "not a JSON object"),
    "an unknown key": ('{"profiler": {"switch": "on", "aicore": "on"}}', "100010", "unknown key 'aicore'"),
    "no such folder": ('{"profiler": {"switch": "on", "output": "/nowhere"}}', "100010", "/nowhere"),
    "no dump path": ('{"dump": {"dump_list": []}}', "100009 (ACL_ERROR_INVALID_DUMP_CONFIG)", "dump_path is missing"),
    "a dump mode": ('{"dump": {"dump_path": "FOLDER", "dump_list": [], "dump_mode": "some"}}', "100009", "dump_mode"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_and_the_next_session_works(
    npu: Emulator, packed: Callable[[str], Packed], tmp_path: Path, name: str
) -> None:
    content, *words = WRONG[name]
    path = str(tmp_path / "acl.json") if content is None else written(tmp_path, content)
    om = packed("static").om
    with pytest.raises(ConfigError) as caught:
        InferSession(0, om, acl_json_path=path)
    assert all(word in str(caught.value) for word in ("acl_json_path", path, *words)), caught.value
    with InferSession(0, om) as session:
        assert len(session.infer(FEEDS)) == 1


def test_workers_read_the_file_wherever_the_parent_has_gone(
    packed: Callable[[str], Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, json.dumps({"dump": DUMP}))
    monkeypatch.chdir(tmp_path)
    with npus(2, record=tmp_path / "calls.%p"), MultiDeviceSession(packed("static").om, "acl.json") as session:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        equal(session.infer(FEEDS), [np.full((1, 4), 2, np.float32)])
        pids = [line.pid for line in session.report().workers]
    for pid in pids:
        calls = [json.loads(line) for line in (tmp_path / f"calls.{pid}").read_text().splitlines()]
        assert [call["args"] for call in calls if call["call"] == "aclInit"] == [[str(tmp_path / "acl.json")]]


def test_a_wrong_file_of_a_pool_is_one_error(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    path = written(tmp_path, '{"dump": {}}')
    with npus(2), pytest.raises(WorkerStartError, match="dump_path is missing") as caught:
        MultiDeviceSession(packed("static").om, path).start()
    assert isinstance(caught.value.__cause__, ConfigError)
    assert path in str(caught.value)


def test_a_cpu_device_says_that_it_reads_none(packed: Callable[[str], Packed], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), InferSession(0, packed("static").onnx, acl_json_path="/nowhere/acl.json") as session:
        assert len(session.infer(FEEDS)) == 1
    assert "acl_json_path has no effect" in caplog.text
