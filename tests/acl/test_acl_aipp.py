"""Dynamic AIPP for several pictures, and with a resize."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

import aclruntime
from ais_bench.emulator import Emulator, pack
from ais_bench.errors import ConfigError, FeedError, UnsupportedError
from ais_bench.one_device.aipp import AippSettings
from ais_bench.session import InferSession
from support import emulator_models

SETTINGS = """
[aipp_op]
{more}
input_format : RGB888_U8
src_image_size_w : 8
src_image_size_h : 6
crop : true
load_start_pos_w : 2
load_start_pos_h : 1
crop_size_w : 4
crop_size_h : 4
mean_chn_0 : {mean}
"""


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """left_out = -left, right_out = -right; both pictures with dynamic AIPP, and a plain input between them."""
    folder = tmp_path_factory.mktemp("two")
    names = ["left", "scale", "right"]
    graph = helper.make_graph(
        [helper.make_node("Neg", [name], [f"{name}_out"]) for name in names],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1] if name == "scale" else [1, 3, 4, 4]) for name in names],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, folder / "two.onnx")
    (folder / "aipp.cfg").write_text(
        "".join(
            f"aipp_op {{\n aipp_mode: dynamic\n related_input_rank: {rank}\n max_src_image_size: 1024\n}}\n" for rank in (0, 2)
        )
    )
    return str(pack(folder / "two.onnx", folder / "two.om", insert_op_conf=folder / "aipp.cfg"))


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a feed, and its crop as the model gets it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    feed = np.zeros(1024, np.uint8)
    feed[: pixels.size] = pixels.ravel()
    return feed, pixels[1:5, 2:6].astype(np.float32).transpose(2, 0, 1)[None]


def without(values: np.ndarray, mean: int) -> np.ndarray:
    return values - np.float32([mean, 0, 0]).reshape(1, 3, 1, 1)


def settings_file(folder: Path, mean: int, more: str = "") -> Path:
    path = folder / f"{mean}.ini"
    path.write_text(SETTINGS.format(mean=mean, more=more))
    return path


@pytest.mark.parametrize("by", ["name", "number", "file"])
def test_each_picture_has_settings_of_its_own(npu: Emulator, two_pictures: str, tmp_path: Path, by: str) -> None:
    """Settings go to the parameter input that AscendCL attached to the picture."""
    (left, left_seen), (right, right_seen) = picture(1), picture(2)
    feeds = [left, np.float32([1]), right]
    ranks = {"name": ("left", "right"), "number": (0, 2), "file": (None, None)}[by]
    with InferSession(0, two_pictures) as session:
        assert session.session.get_dym_aipp_input_exist() == 2
        npu.start_recording()
        for mean, rank, number in ((10, ranks[0], 0), (99, ranks[1], 2)):
            with pytest.raises(ConfigError, match="preprocessed on the device"):
                session.infer(feeds)
            more = f"related_input_rank : {number}" if by == "file" else ""
            session.load_aipp_config_file(settings_file(tmp_path, mean, more), 1, rank)
        outputs = session.infer(feeds)
        set_for = [call["args"][2] for call in npu.stop_recording() if call["call"] == "aclmdlSetInputAIPP"]
        assert sorted(set(set_for)) == [3, 4]
        np.testing.assert_allclose(outputs[0], -without(left_seen, 10), rtol=1e-3)
        np.testing.assert_allclose(outputs[2], -without(right_seen, 99), rtol=1e-3)
        for several in session.infer_pipeline([feeds] * 3):
            np.testing.assert_array_equal(several[2], outputs[2])
        session.load_aipp_config_file(settings_file(tmp_path, 50), 1, 2)  # new settings for one of them
        again = session.infer(feeds)
        np.testing.assert_array_equal(again[0], outputs[0])
        np.testing.assert_allclose(again[2], -without(right_seen, 50), rtol=1e-3)


def test_which_picture_must_be_said(npu: Emulator, two_pictures: str, tmp_path: Path) -> None:
    path = settings_file(tmp_path, 1)
    with InferSession(0, two_pictures) as session:
        with pytest.raises(UnsupportedError, match="2 inputs of the model have dynamic AIPP.* unless `input` names it"):
            session.load_aipp_config_file(path, 1)
        for wrong in ("scale", 1, "middle", 7):
            with pytest.raises(ConfigError, match=r"has no dynamic AIPP; .*'left': 0, 'right': 2"):
                session.load_aipp_config_file(path, 1, wrong)
        with pytest.raises(ConfigError, match="has no dynamic AIPP"):
            session.load_aipp_config_file(settings_file(tmp_path, 2, "related_input_rank : 1"), 1)


def test_three_pictures(npu: Emulator, tmp_path: Path) -> None:
    """Only the first parameter input has the name from AscendCL's headers. All are found, and none is shown as an input."""
    config = "".join(
        f"aipp_op {{ aipp_mode: dynamic related_input_rank: {rank} max_src_image_size: 1024 }}\n" for rank in range(3)
    )
    (tmp_path / "aipp.cfg").write_text(config)
    om = pack(emulator_models.pictures(tmp_path, 3), tmp_path / "three.om", insert_op_conf=tmp_path / "aipp.cfg")
    feeds, seen = zip(*(picture(seed) for seed in range(3)), strict=True)
    with InferSession(0, str(om)) as session:
        assert [desc.name for desc in session.get_inputs()] == ["p0", "p1", "p2"]
        assert session.session.get_dym_aipp_input_exist() == 3
        for rank in range(3):
            session.load_aipp_config_file(settings_file(tmp_path, 10 * rank), 1, rank)
        outputs = session.infer(list(feeds))
    for rank in range(3):
        np.testing.assert_allclose(outputs[rank], -without(seen[rank], 10 * rank), rtol=1e-3)


def test_files_may_begin_with_a_byte_order_mark(npu: Emulator, two_pictures: str, tmp_path: Path) -> None:
    """Editors on Windows write one. The settings and the compiler's configuration are accepted with it."""
    path = settings_file(tmp_path, 10)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    with InferSession(0, two_pictures) as session:
        session.load_aipp_config_file(path, 1, "left")
    config = tmp_path / "aipp.cfg"
    config.write_text("aipp_op { aipp_mode: dynamic max_src_image_size: 1024 }", encoding="utf-8-sig")
    om = pack(emulator_models.pictures(tmp_path, 1), tmp_path / "one.om", insert_op_conf=config)
    with InferSession(0, str(om)) as session:
        assert session.session.get_dym_aipp_input_exist() == 1


def test_a_resize_reaches_the_device(npu: Emulator, two_pictures: str, tmp_path: Path) -> None:
    """The arguments are those of AscendCL, and begin with the crop. If the SoC cannot resize, its own error is shown."""
    path = settings_file(tmp_path, 1, "resize : 1\nresize_output_w : 32\nresize_output_h : 64")
    path.write_text(path.read_text().replace("_size_w : 8", "_size_w : 64").replace("_size_h : 6", "_size_h : 64")
                    .replace("crop_size_w : 4", "crop_size_w : 16").replace("crop_size_h : 4", "crop_size_h : 20"))  # fmt: skip
    with InferSession(0, two_pictures) as session:
        npu.start_recording()
        with pytest.raises(ConfigError, match=r"aclmdlSetAIPPScfParams failed with 100000.*resizing exists on some SoCs only"):
            session.load_aipp_config_file(path, 1, "left")
        (resize,) = [call["args"] for call in npu.stop_recording() if call["call"] == "aclmdlSetAIPPScfParams"]
        assert resize[1:] == [1, 16, 20, 32, 64, 0]
        path.write_text(path.read_text().replace("resize : 1", "resize : 0"))  # a resize that is switched off is accepted
        session.load_aipp_config_file(path, 1, "left")
        session.session.aipp_set_scf_params([0, 0, 0, 0, 0])
        session.session.set_dym_aipp_info_set("left")


@pytest.mark.parametrize(
    ("resize", "message"),
    [
        ([1, 20, 20, 2000, 20], "resize_output_w must be an integer from 16 to 1920, got 2000"),
        ([1, 20, 15, 20, 20], "resize_input_h must be an integer from 16 to 4096, got 15"),
        ([2, 20, 20, 20, 20], "resize must be an integer from 0 to 1, got 2"),
        ([1, 30, 20, 20, 20], "the resize must begin with the size after the crop, 20 x 20, got 30 x 20"),
        ([1, 20, 20, 20, 400], "the factor of a resize must be from 1/16 to 16, got 20 to 400"),
        ([1, 20, 20], "resize must be a list of 5 numbers"),
    ],
)
def test_a_resize_is_checked(resize: list[int], message: str) -> None:
    settings = AippSettings(format=3, size=(64, 64))
    settings.set_list("crop", [1, 0, 0, 20, 20])

    def use() -> None:
        settings.set_list("resize", resize)
        settings.check()

    with pytest.raises(ConfigError, match=message):
        use()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """out = -picture, with dynamic AIPP of up to 1024 bytes for the largest gear: fixed size, batch gears, image size gears."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "aipp.cfg").write_text("aipp_op { aipp_mode: dynamic related_input_rank: 0 max_src_image_size: 1024 }")
    kinds: dict[str, tuple[list[Any], dict[str, str]]] = {
        "fixed": ([1, 3, 4, 4], {}),
        "batch": (["n", 3, 4, 4], {"dynamic_batch_size": "1,2,4"}),
        "image": ([1, 3, "h", "w"], {"dynamic_image_size": "4,4;4,8"}),
        "pair": ([2, 3, 4, 4], {}),
        "pairs": ([2, 3, "h", "w"], {"dynamic_image_size": "4,4;4,8"}),
        "dims": (["n", 3, 4, 4], {"dynamic_dims": "1;2"}),
    }
    made = {}
    for kind, (shape, options) in kinds.items():
        value = helper.make_tensor_value_info
        node = helper.make_node("Neg", ["picture"], ["out"])
        sides = [value("picture", TensorProto.FLOAT, shape)], [value("out", TensorProto.FLOAT, shape)]
        model = helper.make_model(
            helper.make_graph([node], "g", *sides), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        save(model, folder / f"{kind}.onnx")
        options["insert_op_conf"] = str(folder / "aipp.cfg")
        made[kind] = str(pack(folder / f"{kind}.onnx", folder / f"{kind}.om", **options))
    return made


@pytest.mark.parametrize(
    ("kind", "prepare", "batch", "realsize"),
    [
        ("fixed", lambda session: session.set_staticbatch(), 1, 1024),
        ("batch", lambda session: session.set_dynamic_batchsize(2), 2, 512),
        ("image", lambda session: session.set_dynamic_hw(4, 4), 1, 512),
    ],
)
def test_a_picture_is_fed_in_its_own_size(
    npu: Emulator, pictures: dict[str, str], tmp_path: Path, kind: str, prepare: Any, batch: int, realsize: int
) -> None:
    """Programs feed `realsize` bytes of any type. The pictures of 8 x 6 are at the beginning."""
    with InferSession(0, pictures[kind]) as session:
        session.load_aipp_config_file(settings_file(tmp_path, 10), 4 if kind == "batch" else 1)
        prepare(session)
        assert session.get_inputs()[0].realsize == realsize
        feed, seen = picture(1)
        pixels = feed[: 6 * 8 * 3]
        fed = np.zeros(realsize, np.uint8)
        fed[: batch * pixels.size] = np.tile(pixels, batch)
        for given in (fed, fed.view(np.float64)):
            (output,) = session.run([given], out_array=True)
            np.testing.assert_allclose(output, np.tile(-without(seen, 10), (batch, 1, 1, 1)), rtol=1e-3)


def test_a_batch_of_pictures_says_its_gear(npu: Emulator, pictures: dict[str, str], tmp_path: Path) -> None:
    (one, one_seen), (two, two_seen) = picture(1), picture(2)
    fed = np.stack([values[: 6 * 8 * 3].reshape(6, 8, 3) for values in (one, two)])
    with InferSession(0, pictures["batch"]) as session:
        session.load_aipp_config_file(settings_file(tmp_path, 10), 4)
        for (output,) in (session.infer([fed], "dymbatch"), *session.infer_pipeline([[fed]] * 2, "dymbatch")):
            np.testing.assert_allclose(output, -without(np.concatenate([one_seen, two_seen]), 10), rtol=1e-3)
        with pytest.raises(FeedError, match="gear 3"):
            session.infer([np.concatenate([fed, fed[:1]])], "dymbatch")


FORMATS = {"YUV420SP_U8": 72, "XRGB8888_U8": 192, "RGB888_U8": 144, "YUV400_U8": 48}  # bytes of a picture of 8 x 6
RUNS: dict[str, tuple[str, Any, int]] = {  # the kind of model, what sets its shape, and how many pictures a run takes
    "fixed": ("fixed", lambda session: session.set_staticbatch(), 1),
    "fixed batch": ("pair", lambda session: session.set_staticbatch(), 2),
    "smallest batch gear": ("batch", lambda session: session.set_dynamic_batchsize(1), 1),
    "batch gear": ("batch", lambda session: session.set_dynamic_batchsize(2), 2),
    "largest batch gear": ("batch", lambda session: session.set_dynamic_batchsize(4), 4),
    "image gear": ("image", lambda session: session.set_dynamic_hw(4, 4), 1),
    "image gear of a batch": ("pairs", lambda session: session.set_dynamic_hw(4, 4), 2),
    "dims gear": ("dims", lambda session: session.set_dynamic_dims("picture:2,3,4,4"), 2),
}


def too_few(session: Any, run: Any, wanted: int, says: str = "", before: int = 0) -> None:
    """`run` takes at least `wanted` bytes. It refuses one byte less, and no bytes, before an execution.

    `before`: the number of valid pictures that it executes before.
    """
    for given in (wanted - 1, 0):
        executed = len(session.sumary().exec_time_list)
        with pytest.raises(FeedError, match=rf"input 'picture' takes at least {wanted} bytes: {says}.*given {given} bytes"):
            run(np.zeros(given, np.uint8))
        assert len(session.sumary().exec_time_list) == executed + before
    for given in (wanted, wanted + 1):
        run(np.zeros(given, np.uint8))


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("name", FORMATS)
def test_too_few_bytes_for_the_pictures_are_refused(
    npu: Emulator, pictures: dict[str, str], tmp_path: Path, name: str, kind: str
) -> None:
    """Otherwise the device would read beyond them, because AscendCL does not compare their size with the settings."""
    model, prepare, count = RUNS[kind]
    path = settings_file(tmp_path, 10)
    path.write_text(path.read_text().replace("RGB888_U8", name))
    says = f"{count} pictures? with the AIPP settings src_image_size_w 8, src_image_size_h 6 and input_format {name};"
    with InferSession(0, pictures[model]) as session:
        session.load_aipp_config_file(path, 4 if model == "batch" else count)
        prepare(session)
        npu.start_recording()
        too_few(session, lambda feed: session.run([feed], out_array=True), count * FORMATS[name], says)
        executed = [call for call in npu.stop_recording() if call["call"].startswith("aclmdlExecute")]
        assert len(executed) == 2  # those with enough bytes


@pytest.mark.parametrize("way", ["infer", "pipeline", "iteration", "tensor", "aclruntime"])
def test_every_way_to_run_refuses_them(npu: Emulator, pictures: dict[str, str], tmp_path: Path, way: str) -> None:
    """This holds for any memory, and for the settings at the start of the run."""
    path = settings_file(tmp_path, 10)

    def tensors(feed: np.ndarray) -> list[aclruntime.Tensor]:
        tensor = aclruntime.Tensor(feed)
        tensor.to_device(0)
        return [tensor]

    with InferSession(0, pictures["pair"]) as session:
        runs = {
            "infer": lambda feed: session.infer([feed]),
            "pipeline": lambda feed: session.infer_pipeline([[np.zeros(1024, np.uint8)], [feed]]),
            "iteration": lambda feed: session.infer_iteration([feed], [-1], 2),
            "tensor": lambda feed: session.run([session.create_tensor_from_arrays_to_device(feed)], out_array=True),
            "aclruntime": lambda feed: session.session.run([], tensors(feed)),
        }
        session.load_aipp_config_file(path, 2)
        before = 1 if way == "pipeline" else 0
        too_few(session, runs[way], 2 * FORMATS["RGB888_U8"], before=before)
        path.write_text(path.read_text().replace("size_h : 6", "size_h : 9"))
        session.load_aipp_config_file(path, 2)
        too_few(
            session,
            runs[way],
            2 * 8 * 9 * 3,
            "2 pictures with the AIPP settings src_image_size_w 8, src_image_size_h 9",
            before,
        )


def test_exactly_enough_bytes_are_right(npu: Emulator, pictures: dict[str, str], tmp_path: Path) -> None:
    (one, one_seen), (two, two_seen) = picture(1), picture(2)
    fed = np.concatenate([values[: FORMATS["RGB888_U8"]] for values in (one, two)])
    with InferSession(0, pictures["pair"]) as session:
        session.load_aipp_config_file(settings_file(tmp_path, 10), 2)
        wanted = -without(np.concatenate([one_seen, two_seen]), 10)
        for (output,) in (session.infer([fed]), *session.infer_pipeline([[fed]] * 2)):
            np.testing.assert_allclose(output, wanted, rtol=1e-3)
