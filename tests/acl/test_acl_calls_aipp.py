"""The calls of models with AIPP, their order and arguments. tests/acl/test_acl_calls.py has the other kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator, pack
from ais_bench.session import InferSession
from support import emulator_models
from support.acl_transcript import Recorder, Transcript, opening


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a model of 4 x 6 pixels with AIPP of the given mode."""
    folder = tmp_path_factory.mktemp("picture")
    model = emulator_models.image(folder, size=(4, 6))
    settings = {
        "static": "input_format: RGB888_U8 src_image_size_w: 6 src_image_size_h: 4",
        "dynamic": "max_src_image_size: 1024",
    }

    def packed(mode: str) -> str:
        config = folder / f"{mode}.cfg"
        config.write_text(f"aipp_op {{ aipp_mode: {mode} {settings[mode]} }}")
        return str(pack(model, folder / f"{mode}.om", input_shape="picture:1,3,4,6", insert_op_conf=config))

    return packed


def test_static_aipp(npu: Emulator, picture: Callable[[str], str]) -> None:
    """The calls are those of any static model: the pixels are copied in, and nothing is set."""
    om = picture("static")
    recorder = Recorder(npu)
    with InferSession(0, om) as session:
        assert recorder.look() == opening(om, [], 1)
        session.infer([np.zeros((4, 6, 3), np.uint8)])
        assert recorder.look() == [
            "copy in m1 72", "CreateStream s1", "execute [m1:72] -> [m2:288, m3:12]", "copy out m2 288", "copy out m3 12"
        ]  # fmt: skip


AIPP_INI = """
[aipp_op]
input_format : RGB888_U8
src_image_size_w : 8
src_image_size_h : 6
crop : true
load_start_pos_w : 2
load_start_pos_h : 1
crop_size_w : 6
crop_size_h : 4
rbuv_swap_switch : true
mean_chn_0 : 10
min_chn_1 : 0.5
var_reci_chn_2 : 0.25
"""


def test_dynamic_aipp(npu: Emulator, picture: Callable[[str], str], tmp_path: Path) -> None:
    """New settings are passed as an object to their own input. The object lives as long as it may be needed."""
    (tmp_path / "aipp.ini").write_text(AIPP_INI)
    transcript = Transcript()
    npu.start_recording()
    with InferSession(0, picture("dynamic")) as session:
        transcript.read(npu.stop_recording())
        npu.start_recording()
        session.load_aipp_config_file(tmp_path / "aipp.ini", 1)
        calls = npu.stop_recording()
        setters = {call["call"]: call["args"][1:] for call in calls if call["call"].startswith("aclmdlSetAIPP")}
        assert setters == {
            "aclmdlSetAIPPInputFormat": [3],  # RGB888_U8
            "aclmdlSetAIPPSrcImageSize": [8, 6],
            "aclmdlSetAIPPRbuvSwapSwitch": [1],
            "aclmdlSetAIPPAxSwapSwitch": [0],
            "aclmdlSetAIPPCropParams": [1, 2, 1, 6, 4, 0],
            "aclmdlSetAIPPDtcPixelMean": [10, 0, 0, 0, 0],
            "aclmdlSetAIPPDtcPixelMin": [0, 0.5, 0, 0, 0],
            "aclmdlSetAIPPPixelVarReci": [1, 1, 0.25, 1, 0],  # 1 if the file does not set it
        }
        first_index = next(index for index, call in enumerate(calls) if call["call"] == "aclmdlCreateAIPP")
        assert calls[first_index]["args"] == [1]
        for expected in (["aipp at 1"], []):
            npu.start_recording()
            session.infer([np.zeros(1024, np.uint8)])
            lines = transcript.read(npu.stop_recording())
            assert [line for line in lines if not line.startswith(("copy", "execute", "CreateStream"))] == expected
            assert lines[0] == "copy in m1 1024"
            assert lines[-3].startswith("execute [m1:1024, m2:")
        npu.start_recording()
    closing = transcript.read(npu.stop_recording())
    (destroyed,) = [index for index, line in enumerate(closing) if line.startswith("DestroyAIPP")]
    assert destroyed < closing.index("unload")
