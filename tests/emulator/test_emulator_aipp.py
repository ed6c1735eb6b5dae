"""Static and dynamic AIPP on the emulator, compared with numpy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import AIPP, Dataset


class TestAipp:
    STATIC = """
        aipp_op {
            aipp_mode: static  input_format: RGB888_U8  # the picture
            src_image_size_w: 8  src_image_size_h: 6
            crop: true load_start_pos_w: 1 load_start_pos_h: 2 crop_size_w: 4 crop_size_h: 3
            padding: true left_padding_size: 1 right_padding_size: 1 top_padding_size: 1 bottom_padding_size: 0
            mean_chn_0: 10 mean_chn_1: 20 mean_chn_2: 30 var_reci_chn_0: 0.5 var_reci_chn_1: 1 var_reci_chn_2: 2
        }
    """

    def test_static(self, acl, tmp_path):
        config = tmp_path / "aipp.cfg"
        config.write_text(self.STATIC)
        path = pack(
            models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape={"picture": [2, 3, 4, 6]}, insert_op_conf=config
        )
        model = acl.load(path)
        assert (model.inputs, model.input_size(0)) == (1, 2 * 8 * 6 * 3)
        assert (acl.aclmdlGetInputDataType(model.desc, 0), acl.aclmdlGetInputFormat(model.desc, 0)) == (4, 1)
        assert model.dims("aclmdlGetInputDims", 0) == (2, 6, 8, 3)
        kind, attached = ctypes.c_int32(), ctypes.c_size_t()
        acl.ok("aclmdlGetAippType", model.id, 0, ctypes.byref(kind), ctypes.byref(attached))
        assert (kind.value, attached.value) == (1, 0xFFFFFFFF)
        pictures = np.random.default_rng(1).integers(0, 256, (2, 6, 8, 3), np.uint8)
        results = Dataset(acl, [model.output_size(0), model.output_size(1)])
        assert model.run(Dataset(acl, [pictures]), results) == 0
        expected = np.zeros((2, 3, 4, 6), np.float32)
        cropped = pictures[:, 2:5, 1:5].astype(np.float32).transpose(0, 3, 1, 2)
        expected[:, :, 1:, 1:5] = (cropped - np.float32([10, 20, 30])[:, None, None]) * np.float32([0.5, 1, 2])[:, None, None]
        assert np.array_equal(acl.to_host(results.addresses[0], (2, 3, 4, 6)), 2 * expected)

    def test_static_yuv_dims(self, acl, tmp_path):
        config = tmp_path / "aipp.cfg"
        config.write_text("aipp_op { aipp_mode: static input_format: YUV420SP_U8 csc_switch: false }")
        model = acl.load(
            pack(models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape="picture:1,3,4,6", insert_op_conf=config)
        )
        assert model.dims("aclmdlGetInputDims", 0) == (1, 4, 6, 3)
        assert model.dims("aclmdlGetInputDimsV2", 0) == (1, 6, 6, 1)
        assert model.input_size(0) == 36

    @pytest.fixture
    def dynamic(self, acl, tmp_path):
        config = tmp_path / "aipp.cfg"
        config.write_text("aipp_op { aipp_mode: dynamic related_input_rank: 0 max_src_image_size: 1000 }")
        return acl.load(
            pack(models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape="picture:2,3,4,6", insert_op_conf=config)
        )

    def test_dynamic_description(self, acl, dynamic):
        assert acl.aclmdlGetInputNameByIndex(dynamic.desc, 1) == AIPP
        size = ctypes.c_size_t()
        acl.ok("aclmdlGetAippDataSize", 2, ctypes.byref(size))
        assert (dynamic.input_size(0), dynamic.input_size(1)) == (1000, size.value)
        kind, attached = ctypes.c_int32(), ctypes.c_size_t()
        acl.ok("aclmdlGetAippType", dynamic.id, 0, ctypes.byref(kind), ctypes.byref(attached))
        assert (kind.value, attached.value) == (2, 1)
        acl.ok("aclmdlGetAippType", dynamic.id, 1, ctypes.byref(kind), ctypes.byref(attached))
        assert (kind.value, attached.value) == (3, 0xFFFFFFFF)
        assert acl.aclmdlGetFirstAippInfo(dynamic.id, 0, None) == 100038

    def test_parameter_inputs_are_named_as_the_compiler_does(self, acl, tmp_path):
        """The first one has a fixed name, the others are named after their AIPP nodes."""
        config = tmp_path / "aipp.cfg"
        op = "aipp_op {{ aipp_mode: {mode} related_input_rank: {rank} {more} }}\n"
        dynamic, fixed = "max_src_image_size: 1000", "input_format: RGB888_U8"
        config.write_text(
            op.format(mode="static", rank=1, more=fixed)
            + op.format(mode="dynamic", rank=0, more=dynamic)
            + op.format(mode="dynamic", rank=2, more=dynamic)
        )
        model = acl.load(pack(models.pictures(tmp_path, 3), tmp_path / "m.om", insert_op_conf=config))
        names = [acl.aclmdlGetInputNameByIndex(model.desc, index) for index in range(model.inputs)]
        assert names == [b"p0", b"p1", b"p2", AIPP, AIPP + b"_aipp_node2"]
        kinds = []
        for index in range(model.inputs):
            kind, attached = ctypes.c_int32(), ctypes.c_size_t()
            acl.ok("aclmdlGetAippType", model.id, index, ctypes.byref(kind), ctypes.byref(attached))
            kinds.append((kind.value, attached.value))
        assert kinds == [(2, 3), (1, 0xFFFFFFFF), (2, 4), (3, 0xFFFFFFFF), (3, 0xFFFFFFFF)]

    @pytest.mark.parametrize("by_picture", [False, True])
    def test_dynamic_yuv(self, acl, dynamic, by_picture):
        rng = np.random.default_rng(2)
        yuv = rng.integers(0, 256, (2, 6 * 6), np.uint8)
        settings = acl.aclmdlCreateAIPP(2)
        matrix = (256, 0, 359, 256, -88, -183, 256, 454, 0)
        acl.ok("aclmdlSetAIPPInputFormat", settings, 1)
        acl.ok("aclmdlSetAIPPSrcImageSize", settings, 6, 4)
        acl.ok("aclmdlSetAIPPCscParams", settings, 1, *matrix, 0, 0, 0, 0, 128, 128)
        acl.ok("aclmdlSetAIPPDtcPixelMean", settings, 1, 2, 3, 0, 0)
        acl.ok("aclmdlSetAIPPDtcPixelMean", settings, 4, 5, 6, 0, 1)
        acl.ok("aclmdlSetAIPPDtcPixelMin", settings, 0.5, 0, 0, 0, 0)
        acl.ok("aclmdlSetAIPPPixelVarReci", settings, 0.5, 1, 2, 1, 0)
        feeds, results = (
            Dataset(acl, [(acl.to_device(yuv), 1000), dynamic.input_size(1)]),
            Dataset(acl, [dynamic.output_size(0), dynamic.output_size(1)]),
        )
        assert dynamic.run(feeds, results) == 145000  # nothing was set for this dataset
        if by_picture:
            acl.ok("aclmdlSetAIPPByInputIndex", dynamic.id, feeds.handle, 0, settings)
        else:
            assert acl.aclmdlSetInputAIPP(dynamic.id, feeds.handle, 0, settings) == 145015
            acl.ok("aclmdlSetInputAIPP", dynamic.id, feeds.handle, 1, settings)
        acl.ok("aclmdlDestroyAIPP", settings)
        assert acl.aclmdlDestroyAIPP(settings) == 100000
        acl.ok("aclUpdateDataBuffer", feeds.buffers[0], feeds.addresses[0], 71)
        assert dynamic.run(feeds, results) == 145000  # the pictures have 72
        acl.ok("aclUpdateDataBuffer", feeds.buffers[0], feeds.addresses[0], 1000)
        assert dynamic.run(feeds, results) == 0
        expected = np.empty((2, 3, 4, 6), np.float32)
        for n in range(2):
            luma = yuv[n, :24].reshape(4, 6).astype(np.int64)
            chroma = yuv[n, 24:].reshape(2, 3, 2).repeat(2, axis=0).repeat(2, axis=1).astype(np.int64)
            planes = np.stack([luma, chroma[..., 0] - 128, chroma[..., 1] - 128])
            rgb = np.clip((np.tensordot(np.reshape(matrix, (3, 3)), planes, 1) + 128) >> 8, 0, 255).astype(np.float32)
            mean, low, scale = (([1, 2, 3], [0.5, 0, 0], [0.5, 1, 2]), ([4, 5, 6], [0, 0, 0], [1, 1, 1]))[n]
            expected[n] = (rgb - np.float32(mean)[:, None, None] - np.float32(low)[:, None, None]) * np.float32(scale)[
                :, None, None
            ]
        assert np.allclose(acl.to_host(results.addresses[0], (2, 3, 4, 6)), 2 * expected, atol=1e-3)

    def test_ranges(self, acl):
        settings = acl.aclmdlCreateAIPP(2)
        assert acl.aclmdlCreateAIPP(0) is None
        bad = [
            ("aclmdlSetAIPPInputFormat", 7), ("aclmdlSetAIPPSrcImageSize", 1, 4), ("aclmdlSetAIPPSrcImageSize", 4, 4097),
            ("aclmdlSetAIPPRbuvSwapSwitch", 2), ("aclmdlSetAIPPAxSwapSwitch", -1),
            ("aclmdlSetAIPPCropParams", 1, 4096, 0, 1, 1, 0),
            ("aclmdlSetAIPPCropParams", 1, 0, 0, 0, 1, 0), ("aclmdlSetAIPPCropParams", 1, 0, 0, 1, 1, 2),
            ("aclmdlSetAIPPPaddingParams", 1, 33, 0, 0, 0, 0), ("aclmdlSetAIPPDtcPixelMean", 256, 0, 0, 0, 0),
            ("aclmdlSetAIPPDtcPixelMin", 0, 0, -1, 0, 0), ("aclmdlSetAIPPPixelVarReci", 65505, 0, 0, 0, 0),
            ("aclmdlSetAIPPScfParams", 1, 16, 16, 16, 16, 0), ("aclmdlSetAIPPCscParams", 2, *[0] * 15),
        ]  # fmt: skip
        for name, *arguments in bad:
            assert getattr(acl, name)(settings, *arguments) == 100000, (name, arguments)
        good = [
            ("aclmdlSetAIPPInputFormat", 1), ("aclmdlSetAIPPRbuvSwapSwitch", 1), ("aclmdlSetAIPPAxSwapSwitch", 1),
            ("aclmdlSetAIPPCropParams", 1, 4095, 0, 4096, 1, 1), ("aclmdlSetAIPPPaddingParams", 1, 32, 0, 0, 32, 1),
            ("aclmdlSetAIPPScfParams", 0, 0, 0, 0, 0, 0), ("aclmdlSetAIPPSrcImageSize", 4096, 2),
        ]  # fmt: skip
        for name, *arguments in good:
            acl.ok(name, settings, *arguments)
        assert acl.aclmdlSetAIPPSrcImageSize(settings, 5, 4) == 100000  # odd, and the format is YUV420SP
        acl.ok("aclmdlDestroyAIPP", settings)

    def test_the_picture_must_come_out_as_the_model_takes_it(self, acl, dynamic):
        settings = acl.aclmdlCreateAIPP(2)
        feeds = Dataset(acl, [1000, dynamic.input_size(1)])

        def apply():
            return acl.aclmdlSetInputAIPP(dynamic.id, feeds.handle, 1, settings)

        assert apply() == 100000
        acl.ok("aclmdlSetAIPPInputFormat", settings, 3)
        assert apply() == 100000
        acl.ok("aclmdlSetAIPPSrcImageSize", settings, 8, 4)
        assert apply() == 100000
        assert "comes out as 8x4, the model takes 6x4" in acl.text()
        for picture in (0, 1):
            acl.ok("aclmdlSetAIPPCropParams", settings, 1, 4, 0, 6, 4, picture)
        assert apply() == 100000
        assert "within the source image" in acl.text()
        for picture in (0, 1):
            acl.ok("aclmdlSetAIPPCropParams", settings, 1, 2, 0, 6, 4, picture)
        assert apply() == 0
        acl.ok("aclmdlDestroyAIPP", settings)
