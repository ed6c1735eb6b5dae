"""A pool on 8 emulated NPUs, dynamic AIPP, and files that are not libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from ais_bench.emulator import Emulator, npus, pack
from ais_bench.errors import AisBenchError, ConfigError, DeviceLost, DeviceUnavailable, UnsupportedError, WorkerStartError
from ais_bench.pool import interpreter
from ais_bench.session import InferSession, MultiDeviceSession, system_info
from support import emulator_models
from support.acl import Packed, equal, floats
from support.scripts import environment, run_script
from support.waiting import gone, wait_until


@pytest.mark.parametrize("name", ["batch", "shape"])
def test_a_pool_of_eight(packed: Callable[[str], Packed], tmp_path: Path, name: str) -> None:
    """Every item is returned once, in order, from all devices. No worker violates a rule or leaks."""
    model = packed(name)
    report = tmp_path / "report"
    feeds = [[np.full((1, 3), i, np.float32)] for i in range(160)]
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    with npus(8, exec_ms=2, report=report), MultiDeviceSession(model.om) as session:
        assert list(session.devices) == list(range(8))
        results = list(session.map(feeds, mode=model.case.mode))
    for one, outputs in zip(feeds, results, strict=True):
        equal(outputs, [one[0] @ weights])
    assert not report.exists() or report.read_text() == ""


def test_modules_in_the_working_directory_do_not_disturb_the_counting(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    code = """
    import os, sys
    from ais_bench.session.count_devices import count_devices
    sys.path.remove("")  # as of a script that lies elsewhere
    os.chdir(sys.argv[1])
    print(count_devices("acl"))
    """
    with npus(3):
        assert run_script(code, str(tmp_path)) == "3\n"


def test_a_driver_that_does_not_answer_is_an_error(packed: Callable[[str], Packed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "ASK_TIMEOUT_S", 2)
    with npus(2, faults="aclrtGetDeviceCount=hang"):
        with (
            MultiDeviceSession(packed("static").om) as session,
            pytest.raises(DeviceUnavailable, match=r"has no devices to offer: it did not answer within 2 s; pass devices="),
        ):
            session.start()
        (about,) = (one for one in system_info().runtimes if one.name == "acl")
        assert about.error == "it did not answer within 2 s"


def test_a_process_that_asks_a_driver_ends_with_its_parent() -> None:
    code = "from ais_bench.session.count_devices import count_devices; count_devices('acl')"
    with npus(2, faults="aclrtGetDeviceCount=hang"):
        parent = subprocess.Popen([sys.executable, "-c", code], env=environment())
    try:
        (child,) = wait_until(lambda: psutil.Process(parent.pid).children())
        wait_until(lambda: "libascendcl_emulator" in Path(f"/proc/{child.pid}/maps").read_text(), what="its question")
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: gone(child.pid))


def test_a_worker_that_cannot_load_says_why(packed: Callable[[str], Packed]) -> None:
    with (
        npus(2, faults="aclmdlLoadFromFile=oom"),
        pytest.raises((WorkerStartError, AisBenchError), match="207001"),
        MultiDeviceSession(packed("static").om, devices=range(2)) as session,
    ):
        list(session.map([packed("static").case.feeds[0]]))


def test_a_lost_device_is_named(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    npu.set_faults("aclmdlExecuteAsync:1=507015")
    with InferSession(4, model.om) as session, pytest.raises(DeviceLost, match=r"device 4: .*507015.*AICORE_EXCEPTION"):
        session.infer(model.case.feeds[0])
    npu.set_faults()
    with InferSession(4, model.om) as session:
        session.infer(model.case.feeds[0])


def test_a_library_that_is_none_is_explained(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    code = """
    import sys
    from ais_bench.errors import DeviceUnavailable
    from ais_bench.session import InferSession
    try:
        InferSession(0, sys.argv[1])
    except DeviceUnavailable as error:
        print(error)
    """
    text = run_script(code, packed("static").om, AIS_BENCH_ACL_LIBRARY=f"{tmp_path}/libascendcl.so")
    assert f"{tmp_path}/libascendcl.so" in text
    assert "AIS_BENCH_ACL_LIBRARY" in text
    text = run_script(code, packed("static").om, AIS_BENCH_ACL_LIBRARY="libc.so.6")
    assert "it lacks aclInit" in text


def test_a_stub_library_is_named(packed: Callable[[str], Packed]) -> None:
    code = """
    import sys
    from ais_bench.emulator import npus
    from ais_bench.errors import DeviceUnavailable
    from ais_bench.session import InferSession
    with npus(1, faults="aclInit=100039"):
        try:
            InferSession(0, sys.argv[1])
        except DeviceUnavailable as error:
            print(error)
    """
    assert "stub" in run_script(code, packed("static").om)


AIPP_CONF = """
aipp_op {
  aipp_mode: dynamic
  related_input_rank: 0
  max_src_image_size: 1024
}
"""

SETTINGS = """
[aipp_op]
input_format : RGB888_U8
src_image_size_w : 8
src_image_size_h : 6
crop : true
load_start_pos_w : 2
load_start_pos_h : 1
crop_size_w : 4
crop_size_h : 4
mean_chn_0 : 10
mean_chn_1 : 20
mean_chn_2 : 30
var_reci_chn_0 : 0.5
"""


@pytest.fixture(scope="module")
def picture_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("aipp")
    (folder / "aipp.cfg").write_text(AIPP_CONF)
    onnx = emulator_models.image(folder, size=(4, 4))
    return str(pack(onnx, folder / "aipp.om", input_shape="picture:1,3,4,4", insert_op_conf=folder / "aipp.cfg"))


def test_dynamic_aipp(npu: Emulator, picture_model: str, tmp_path: Path) -> None:
    """Pictures are cropped and normalised. A reciprocal that is not set is 1."""
    (tmp_path / "aipp.ini").write_text(SETTINGS)
    pixels = np.random.default_rng(1).integers(0, 255, (6, 8, 3), np.uint8)
    feed = np.zeros(1024, np.uint8)
    feed[: pixels.size] = pixels.ravel()
    with InferSession(0, picture_model) as session:
        assert session.session.get_dym_aipp_input_exist() == 1
        with pytest.raises(ConfigError, match="load_aipp_config_file"):
            session.infer([feed])
        session.load_aipp_config_file(tmp_path / "aipp.ini", 1)
        twice, _ = session.infer([feed])
        (other, _), _ = session.infer_pipeline([[feed], [feed]])
    wanted = pixels[1:5, 2:6].astype(np.float32).transpose(2, 0, 1)
    wanted = (wanted - np.float32([10, 20, 30]).reshape(3, 1, 1)) * np.float32([0.5, 1, 1]).reshape(3, 1, 1)
    np.testing.assert_allclose(twice[0], 2 * wanted, rtol=1e-3)
    np.testing.assert_array_equal(other, twice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("matrix_r2c2 : 40000", "matrix_r2c2 must be an integer from -32768 to 32767, got 40000"),
        ("input_bias_2 : 256", "input_bias_2 must be .*, got 256"),
        ("csc_switch : 2", "csc_switch must be .*, got 2"),
        ("top_padding_size : -1", "top_padding_size"),
        ("mean_chn_3 : 1.5", "mean_chn_3 must be an integer .*, got '1.5'"),
        ("crop_size_w : 9", "the crop must be within 8 x 6, got 9 x "),
        ("load_starts : 1", "unknown setting 'load_starts'"),
        ("input_format : NV12", "input_format must be one of .*, got 'NV12'"),
    ],
)
def test_aipp_settings_are_checked(npu: Emulator, picture_model: str, tmp_path: Path, change: str, message: str) -> None:
    key = change.split(" :")[0]
    lines = [line for line in SETTINGS.splitlines() if not line.startswith(f"{key} ")]
    (tmp_path / "aipp.ini").write_text("\n".join([*lines, change]))
    with InferSession(0, picture_model) as session, pytest.raises(ConfigError, match=message):
        session.load_aipp_config_file(tmp_path / "aipp.ini", 1)


def test_csc_may_be_switched_on(npu: Emulator, picture_model: str, tmp_path: Path) -> None:
    matrix = [f"matrix_r{i // 3}c{i % 3} : {256 if i % 4 == 0 else 0}" for i in range(9)]
    (tmp_path / "aipp.ini").write_text("\n".join([SETTINGS, "csc_switch : 1", *matrix]))
    with InferSession(0, picture_model) as session:
        session.load_aipp_config_file(tmp_path / "aipp.ini", 1)
        assert session.infer([np.zeros(1024, np.uint8)])[0].shape == (1, 3, 4, 4)


def test_a_model_without_aipp_says_so(npu: Emulator, packed: Callable[[str], Packed], tmp_path: Path) -> None:
    for path in (packed("static").om, packed("static").onnx):
        with InferSession(0, path) as session, pytest.raises(UnsupportedError, match="0 inputs"):
            session.load_aipp_config_file(tmp_path / "aipp.ini", 1)


def test_tensors_of_two_runtimes_are_not_mixed(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    with InferSession(0, model.onnx) as cpu, InferSession(0, model.om) as session:
        (tensor,) = cpu.infer([floats(1, 4), floats(1, 4)], out_array=False)
        with pytest.raises(AisBenchError, match="this session's device 0 of runtime 'acl', got a tensor on .* 'ort'"):
            session.infer([tensor, floats(1, 4)])
