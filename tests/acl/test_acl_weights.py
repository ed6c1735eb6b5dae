"""Models with weights in separate files, and models that a session cannot run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import aclruntime
from ais_bench import _native
from ais_bench.emulator import Emulator, pack
from ais_bench.errors import ConfigError, DeviceMemoryError, ModelLoadError, UnsupportedError, WorkerStartError
from ais_bench.session import InferSession, MultiDeviceSession, system_info
from support import emulator_models
from support.acl import Packed, assert_clean, floats
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")
WIDTH = 5000
WEIGHT_BYTES = 3 * WIDTH * 4
FEED = [floats(2, 3)]
WANTED = FEED[0] @ np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)


@pytest.fixture
def om(tmp_path: Path) -> Path:
    """Return the model x @ w with w in a separate file beside it."""
    onnx_file = emulator_models.matmul(tmp_path, WIDTH)
    return pack(onnx_file, tmp_path / "large.om", input_shape="x:2,3", external_weight=True)


def right(outputs: list[Any]) -> None:
    np.testing.assert_allclose(outputs[0], WANTED, rtol=1e-5)


def used(device: int = 0) -> int:
    """Return the bytes of device memory that are not free, as the device reports them."""
    free, total = _native.device_memory("acl", device)
    return total - free


def test_the_weights_are_not_in_the_model(om: Path) -> None:
    files = list((om.parent / "weight").iterdir())
    assert [file.stat().st_size for file in files] == [WEIGHT_BYTES]
    assert om.stat().st_size < WEIGHT_BYTES


def test_two_sessions_load_them_once(npu: Emulator, om: Path) -> None:
    with InferSession(0, str(om)) as first:
        one = used()
        npu.start_recording()
        with InferSession(0, str(om)) as second, InferSession(1, str(om)) as elsewhere:
            assert one > WEIGHT_BYTES
            assert used() - one < WEIGHT_BYTES < used(1)
            made = npu.stop_recording()
            given = [call["args"][1:] for call in made if call["call"] == "aclmdlSetExternalWeightAddress"]
            (name,) = [file.name for file in (om.parent / "weight").iterdir()]
            assert [(args[0], args[2]) for args in given] == [(name, (WEIGHT_BYTES + 31) // 32 * 32)] * 2
            for session in (first, second, elsewhere):
                right(session.infer(FEED))
            first.free_resource()
            right(second.infer(FEED))  # they stay as long as a session uses them
            right(second.infer_pipeline([FEED])[0])
    assert used() == 0


def test_finalize_ends_sessions_that_share(npu: Emulator, om: Path) -> None:
    sessions = [InferSession(0, str(om)) for _ in range(2)]
    InferSession.finalize()
    assert_clean(npu)
    with InferSession(0, str(om)) as again:
        right(again.infer(FEED))
    del sessions


def test_a_file_that_changed_is_loaded_anew(npu: Emulator, om: Path) -> None:
    (weights,) = (om.parent / "weight").iterdir()
    with InferSession(0, str(om)) as first:
        changed = np.fromfile(weights, np.float32) * 2
        weights.unlink()
        changed.tofile(weights)
        with InferSession(0, str(om)) as second:
            np.testing.assert_allclose(second.infer(FEED)[0], 2 * WANTED, rtol=1e-5)
            right(first.infer(FEED))


@pytest.mark.parametrize("way", ["path", "bytes"])
def test_from_another_folder(npu: Emulator, om: Path, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "elsewhere"
    shutil.move(om.parent / "weight", folder)
    model: Any = str(om) if way == "path" else om.read_bytes()
    with pytest.raises(ModelLoadError, match=r"weights in files of their own, such as 'weight_[0-9a-f]{64}'.*weight_dir says"):
        InferSession(0, model)
    with InferSession(0, model, weight_dir=folder) as session:
        right(session.infer(FEED))
    options = aclruntime.session_options()
    options.weight_dir = str(folder)
    session = aclruntime.InferenceSession(model, 0, options)
    feed = aclruntime.Tensor(FEED[0])
    outputs = session.run([session.get_outputs()[0].name], [feed])
    outputs[0].to_host()
    right([np.array(outputs[0])])
    session.free_resource()
    with pytest.raises(ModelLoadError, match="looked for in weight_dir"):
        InferSession(0, model, weight_dir=tmp_path)
    with pytest.raises(ConfigError, match="weight_dir must be the path of a folder, got '/nowhere'"):
        InferSession(0, model, weight_dir="/nowhere")


def test_workers_find_them(npu: Emulator, om: Path) -> None:
    with MultiDeviceSession(om.read_bytes(), devices=[0, 1], weight_dir=om.parent / "weight") as session:
        for outputs in session.map([FEED] * 4):
            right(outputs)


OLDER = """
    import sys
    import numpy as np
    from ais_bench.emulator import npus
    from ais_bench.errors import UnsupportedError
    from ais_bench.session import InferSession
    om, folder, *without = sys.argv[1:]
    def loads(model, **options):
        with InferSession(0, model, **options) as session:
            assert session.infer([np.ones((2, 3), np.float32)])[0][0, 1] == 1 + 5001 + 10001
    with npus(1, without=without):
        loads(om)  # AscendCL finds them beside the model
        for model in (om, open(om, "rb").read()):
            try:
                loads(model, weight_dir=folder)
            except UnsupportedError as error:
                assert "no aclmdlLoadWithConfig" in str(error) and "aclmdlLoadWithConfig" in without, error
            else:
                assert "aclmdlLoadWithConfig" not in without
"""


@pytest.mark.parametrize(
    "without", [["aclmdlSetExternalWeightAddress"], ["aclmdlSetExternalWeightAddress", "aclmdlLoadWithConfig"]]
)
def test_without_the_functions(om: Path, tmp_path: Path, without: list[str]) -> None:
    """Without a function only its purpose is missing: sharing, or folders that are not beside the model."""
    folder = tmp_path / "copy"
    shutil.copytree(om.parent / "weight", folder)
    run_script(OLDER, str(om), str(folder), *without)


def test_a_cpu_device_reads_them_where_it_is_told(tmp_path: Path) -> None:
    model = onnx.load(emulator_models.matmul(tmp_path, WIDTH))
    onnx.save(model, tmp_path / "large.onnx", save_as_external_data=True, location="weights.bin")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "weights.bin", tmp_path / "elsewhere")
    content = (tmp_path / "large.onnx").read_bytes()
    with pytest.raises(ModelLoadError):
        InferSession(0, content)
    with InferSession(0, content, weight_dir=tmp_path / "elsewhere") as session:
        right(session.infer(FEED))


def test_a_bundle_is_refused_by_name(npu: Emulator, tmp_path: Path) -> None:
    """The header shows the kind of the file; AscendCL would only report that it does not load."""
    header = bytearray(b"IMOD" + (256).to_bytes(4, "little") + bytes(400))
    header[82] = 5
    path = tmp_path / "bundle.om"
    path.write_bytes(header)
    for model in (str(path), bytes(header)):
        with pytest.raises(UnsupportedError, match=r"bundle of several models .*a session runs one"):
            InferSession(0, model)
    with pytest.raises(WorkerStartError, match="bundle of several models"):
        MultiDeviceSession(str(path), devices=[0]).start()


@pytest.mark.parametrize("function", ["aclrtMalloc", "aclmdlLoadFromFile", "device.execute"])
def test_what_is_left_of_the_memory(npu: Emulator, packed: Callable[[str], Packed], function: str) -> None:
    with InferSession(0, packed("static").om):
        npu.set_faults(f"{function}=oom")
        says = r"207001.*\(device 0 has \d+ MiB free of 32768 MiB\)"
        with pytest.raises(DeviceMemoryError, match=says) as caught, InferSession(0, packed("static").om) as session:
            session.infer(packed("static").case.feeds[0])
        assert str(caught.value).count("MiB free") == 1


def test_the_report_and_the_list_of_devices_tell_of_the_memory(npu: Emulator, om: Path) -> None:
    with MultiDeviceSession(str(om), devices=[0, 1]) as session:
        session.start()
        report = session.report()
        assert set(report.memory) == {0, 1}
        assert all(WEIGHT_BYTES < memory.total - memory.free < memory.total for memory in report.memory.values())
        assert "memory of device 1: " in str(report)
        assert report.to_dict()["memory"][0]["total"] == 32768 << 20
    info = system_info()
    assert [runtime.name for runtime in info.runtimes] == ["ort", "acl"]
    ort, acl = info.runtimes
    assert len(ort.devices) == len(os.sched_getaffinity(0))
    assert (acl.version, acl.toolkit, acl.chip) == ("AscendCL 1.17.0", "CANN 8.5.0", "Ascend910B3")
    assert [(device.id, device.free) for device in acl.devices] == [(id, 32768 << 20) for id in range(8)]
    assert "acl: AscendCL 1.17.0, CANN 8.5.0, Ascend910B3, 8 devices" in str(info)
    counted = system_info(devices=False).runtimes[1]
    assert [(device.id, device.free, device.error) for device in counted.devices] == [(id, None, "") for id in range(8)]


def test_a_runtime_that_is_not_there_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_BENCH_ACL_LIBRARY", "/nowhere/libascendcl.so")
    acl = system_info().runtimes[1]
    assert (acl.name, acl.version, acl.devices) == ("acl", "", [])
    assert acl.error in str(system_info())
