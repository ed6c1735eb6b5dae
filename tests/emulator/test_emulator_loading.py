"""Loading models on the emulator, and their descriptions."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import HW, MBATCH, AclError, Batch, Dataset, IODims, IODimsRange

ANY = 2**64 - 1  # (size_t)-1


class TestLoading:
    def test_ids_count_up_and_are_not_reused(self, acl, static_om):
        first = acl.load(static_om)
        second = acl.load(static_om)
        first.close()
        third = acl.load(static_om)
        assert [first.id, second.id, third.id] == [1, 2, 3]
        assert acl.aclmdlUnload(first.id) == 145003
        assert acl.aclmdlUnload(99) == 145003
        second.close()
        third.close()

    @pytest.mark.parametrize(
        ("content", "code", "text"),
        [
            (None, 100003, "no such file"),
            (b"", 100003, "empty"),
            (b"nonsense", 145006, "not a model packed for the emulator"),
            (b"IMOD" + bytes(300), 507008, "compiled by ATC"),
            (b"PK\3\4" + bytes(300), 507008, "python -m ais_bench.emulator pack"),
            (b"AISEMUOM\1", 145006, "ends inside its header"),
            (b"AISEMUOM\3" + bytes(30), 145006, "version must be 1 or 2"),
            (b"AISEMUOM\1" + bytes(7) + b"\xff" * 8 + bytes(8), 145006, "promises"),
        ],
    )
    def test_what_is_refused(self, acl, tmp_path, content, code, text):
        path = tmp_path / "model.om"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(AclError, match=f"(?i){text}") as error:
            acl.load(path)
        assert error.value.code == code

    def test_every_truncation_is_refused(self, acl, static_om):
        content = static_om.read_bytes()
        for size in [*range(0, 200, 7), len(content) - 1]:
            model_id = ctypes.c_uint32()
            data = ctypes.create_string_buffer(content[:size], max(size, 1))
            assert acl.aclmdlLoadFromMem(data, size, ctypes.byref(model_id)) in (100000, 145006)
        assert acl.emulator.living() == []

    def test_damaged_descriptions(self, acl, static_om, batch_om, dims_om):
        """A randomly changed description is refused, or gives a model that can be described and unloaded."""
        rng = np.random.default_rng(0)
        refused = 0
        for path in (static_om, batch_om, dims_om):
            content = np.frombuffer(path.read_bytes(), np.uint8)
            description = int.from_bytes(content[16:24].tobytes(), "little")
            for _ in range(60):
                damaged = content.copy()
                at = rng.integers(32, 32 + description, 2)
                damaged[at] = rng.choice(np.frombuffer(b'0123456789-[]{},:"x', np.uint8), 2)
                model_id = ctypes.c_uint32()
                data = damaged.tobytes()
                if acl.aclmdlLoadFromMem(data, len(data), ctypes.byref(model_id)) != 0:
                    refused += 1
                    continue
                desc = acl.aclmdlCreateDesc()
                acl.ok("aclmdlGetDesc", desc, model_id)
                for index in range(acl.aclmdlGetNumInputs(desc)):
                    acl.ok("aclmdlGetInputDims", desc, index, ctypes.byref(IODims()))
                acl.aclmdlGetInputDynamicDims(desc, ANY, (IODims * 128)(), 128)
                acl.ok("aclmdlGetDynamicBatch", desc, ctypes.byref(Batch()))
                acl.ok("aclmdlDestroyDesc", desc)
                acl.ok("aclmdlUnload", model_id)
        assert refused > 30
        assert acl.emulator.living() == []

    def test_another_soc(self, make_acl, tmp_path):
        path = pack(models.add(tmp_path), tmp_path / "m.om", soc_version="Ascend310P3")
        acl = make_acl()
        acl.ok("aclrtSetDevice", 0)
        with pytest.raises(AclError, match="packed for Ascend310P3, this is a Ascend910B3") as error:
            acl.load(path)
        assert error.value.code == 507008
        other = make_acl(soc="Ascend310P3")
        other.ok("aclrtSetDevice", 0)
        other.load(path).close()

    def test_a_model_costs_memory(self, make_acl, static_om, tmp_path):
        acl = make_acl(memory_mb="1")
        acl.ok("aclrtSetDevice", 0)
        model = acl.load(static_om)
        used = acl.emulator.memory_used(0)
        assert used >= (tmp_path / "add.onnx").stat().st_size  # its weights, and a workspace
        model.close()
        assert acl.emulator.memory_used(0) == 0
        block = acl.malloc((1 << 20) - 128)
        with pytest.raises(AclError) as error:
            acl.load(static_om)
        assert error.value.code == 245000
        acl.ok("aclrtFree", block)

    def test_from_memory(self, acl, static_om):
        content = static_om.read_bytes()
        model_id = ctypes.c_uint32()
        acl.ok(
            "aclmdlLoadFromMem",
            content_buffer := ctypes.create_string_buffer(content, len(content)),
            len(content),
            ctypes.byref(model_id),
        )
        ctypes.memset(content_buffer, 0, len(content))  # the content may be released after the call
        desc = acl.aclmdlCreateDesc()
        acl.ok("aclmdlGetDesc", desc, model_id)
        assert acl.aclmdlGetNumInputs(desc) == 2
        acl.ok("aclmdlDestroyDesc", desc)
        acl.ok("aclmdlUnload", model_id)
        device = acl.to_device(np.frombuffer(content, np.uint8))
        assert acl.aclmdlLoadFromMem(device, len(content), ctypes.byref(model_id)) == 145007
        assert acl.aclmdlLoadFromMem(None, 10, ctypes.byref(model_id)) == 100000
        acl.ok("aclrtFree", device)

    def test_with_memory_of_the_programs_own(self, acl, static_om):
        work, weight = ctypes.c_size_t(), ctypes.c_size_t()
        path = os.fspath(static_om).encode()
        acl.ok("aclmdlQuerySize", path, ctypes.byref(work), ctypes.byref(weight))
        content = static_om.read_bytes()
        again = ctypes.c_size_t(), ctypes.c_size_t()
        acl.ok("aclmdlQuerySizeFromMem", content, len(content), ctypes.byref(again[0]), ctypes.byref(again[1]))
        assert (again[0].value, again[1].value) == (work.value, weight.value)
        blocks = acl.malloc(work.value), acl.malloc(weight.value)
        model_id = ctypes.c_uint32()
        before = acl.emulator.memory_used(0)
        acl.ok("aclmdlLoadFromFileWithMem", path, ctypes.byref(model_id), blocks[0], work.value, blocks[1], weight.value)
        assert acl.emulator.memory_used(0) == before
        acl.ok("aclmdlUnload", model_id)
        assert (
            acl.aclmdlLoadFromFileWithMem(path, ctypes.byref(model_id), blocks[0], work.value - 1, blocks[1], weight.value)
            == 145000
        )
        host = acl.malloc_host(weight.value)
        assert (
            acl.aclmdlLoadFromMemWithMem(
                content, len(content), ctypes.byref(model_id), blocks[0], work.value, host, weight.value
            )
            == 145007
        )
        acl.ok("aclrtFreeHost", host)
        for block in blocks:
            acl.ok("aclrtFree", block)

    def test_with_config(self, acl, static_om):
        handle = acl.aclmdlCreateConfigHandle()
        model_id = ctypes.c_uint32()

        def option(attr, value):
            return acl.aclmdlSetConfigOpt(handle, attr, ctypes.byref(value), ctypes.sizeof(value))

        assert acl.aclmdlLoadWithConfig(handle, ctypes.byref(model_id)) == 100000  # no type
        assert option(1, ctypes.c_int32(1)) == 100000  # of the wrong size
        assert option(1, ctypes.c_size_t(1)) == 0
        assert acl.aclmdlLoadWithConfig(handle, ctypes.byref(model_id)) == 100000  # no path
        assert option(0, ctypes.c_int32(9)) == 100000
        assert option(0, ctypes.c_int32(1)) == 0
        assert option(77, ctypes.c_int32(1)) == 100000
        path = ctypes.c_char_p(os.fspath(static_om).encode())
        assert option(2, path) == 0
        del path  # it was copied
        acl.ok("aclmdlLoadWithConfig", handle, ctypes.byref(model_id))
        acl.ok("aclmdlUnload", model_id)
        content = static_om.read_bytes()
        assert option(1, ctypes.c_size_t(3)) == 0
        assert acl.aclmdlLoadWithConfig(handle, ctypes.byref(model_id)) == 100000
        assert option(3, ctypes.c_char_p(content)) == 0
        assert option(4, ctypes.c_size_t(len(content))) == 0
        acl.ok("aclmdlLoadWithConfig", handle, ctypes.byref(model_id))
        acl.ok("aclmdlUnload", model_id)
        acl.ok("aclmdlDestroyConfigHandle", handle)
        assert acl.aclmdlDestroyConfigHandle(handle) == 100000

    def test_external_weights(self, acl, tmp_path):
        """A file's weights are beside it. For a model in memory, the program names a folder, or gives their memory."""
        (tmp_path / "made").mkdir()
        path = pack(models.matmul(tmp_path), tmp_path / "made" / "m.om", input_shape="x:2,3", external_weight=True)
        (weights,) = (tmp_path / "made" / "weight").iterdir()
        wanted = np.ones((2, 3), np.float32) @ np.arange(12, dtype=np.float32).reshape(3, 4)
        content, name, model_id = path.read_bytes(), weights.name.encode(), ctypes.c_uint32()
        handles = []

        def load(kind, *, folder=None, memory=None, size=64):
            handle = acl.aclmdlCreateConfigHandle()
            handles.append(handle)
            options = [(1, ctypes.c_size_t(kind))]
            options += [(3, ctypes.c_char_p(content)), (4, ctypes.c_size_t(len(content)))] if kind in (3, 4) else []
            options += [(2, ctypes.c_char_p(os.fspath(path).encode()))] if kind in (1, 2) else []
            options += [(14, ctypes.c_char_p(os.fspath(folder).encode()))] if folder else []
            for attr, value in options:
                acl.ok("aclmdlSetConfigOpt", handle, attr, ctypes.byref(value), ctypes.sizeof(value))
            if memory is not None:
                acl.ok("aclmdlSetExternalWeightAddress", handle, name, memory, size)
            return acl.aclmdlLoadWithConfig(handle, ctypes.byref(model_id))

        def run():
            feeds, results = Dataset(acl, [np.ones((2, 3), np.float32)]), Dataset(acl, [32])
            code = acl.aclmdlExecute(model_id, feeds.handle, results.handle)
            if code == 0:
                assert np.array_equal(acl.to_host(results.addresses[0], (2, 4)), wanted)
            feeds.close(), results.close()
            return code

        assert acl.aclmdlLoadFromMem(content, len(content), ctypes.byref(model_id)) == 500002
        text = acl.text()
        assert weights.name in text
        assert "ACL_MDL_WEIGHT_PATH_PTR" in text
        assert load(3) == 500002
        for kind, folder in ((1, None), (3, weights.parent)):
            assert load(kind, folder=folder) == 0
            assert run() == 0
            acl.ok("aclmdlUnload", model_id)
        for kind in (1, 2, 4):  # the folder is only for models from memory, without memory of the program
            assert load(kind, folder=weights.parent) == 100000
        assert load(3, folder=tmp_path) == 500002
        memory = acl.to_device(np.fromfile(weights, np.uint8))
        short = acl.malloc(32)
        assert acl.aclmdlSetExternalWeightAddress(handles[0], name, memory, 48) == 100000  # not a multiple of 32
        assert acl.aclmdlSetExternalWeightAddress(handles[0], name, None, 64) == 100000
        assert load(3, memory=short, size=32) == 145000
        assert load(3, memory=memory, size=64) == 107000  # more than exists
        acl.ok("aclrtFree", memory)
        memory = acl.to_device(np.concatenate([np.fromfile(weights, np.uint8), np.zeros(16, np.uint8)]))
        weights.rename(tmp_path / "away")
        assert load(1) == 500002
        assert load(1, memory=memory) == 0
        assert run() == 0
        acl.ok("aclrtFree", memory)
        assert run() == 507053  # the model reads them for as long as it is loaded
        for handle in handles:
            acl.ok("aclmdlDestroyConfigHandle", handle)

    def test_a_model_belongs_to_its_context(self, acl, static_om):
        own = acl.context(0)
        model = acl.load(static_om)
        other = acl.context(0)
        assert acl.aclmdlUnload(model.id) == 107004
        assert acl.aclmdlGetDesc(model.desc, model.id) == 107004
        feeds, results = Dataset(acl, [np.ones(4, np.float32)] * 2), Dataset(acl, [16])
        assert model.run(feeds, results) == 107004
        acl.ok("aclrtSetCurrentContext", own)
        assert model.run(feeds, results) == 0
        acl.ok("aclrtDestroyContext", own)  # it unloads the model, and reports this
        assert any("model#1 (add)" in line for line in acl.emulator.report())
        acl.ok("aclrtSetCurrentContext", other)
        assert acl.aclmdlUnload(model.id) == 145003
        acl.ok("aclrtDestroyContext", other)


class TestDescription:
    def test_static(self, acl, static_om):
        model = acl.load(static_om)
        desc = model.desc
        assert (model.inputs, model.outputs) == (2, 1)
        assert [acl.aclmdlGetInputNameByIndex(desc, i) for i in range(3)] == [b"a", b"b", b""]
        assert acl.aclmdlGetOutputNameByIndex(desc, 0) == b"sum"
        assert model.dims("aclmdlGetInputDims", 0) == (1, 4)
        assert model.dims("aclmdlGetInputDimsV2", 0) == (1, 4)
        assert model.dims("aclmdlGetOutputDims", 0) == model.dims("aclmdlGetCurOutputDims", 0) == (1, 4)
        assert (model.input_size(0), model.input_size(2), model.output_size(0), model.output_size(1)) == (16, 0, 16, 0)
        assert (acl.aclmdlGetInputDataType(desc, 0), acl.aclmdlGetInputDataType(desc, 9)) == (0, -1)
        assert (acl.aclmdlGetInputFormat(desc, 0), acl.aclmdlGetOutputFormat(desc, 9)) == (2, -1)
        index = ctypes.c_size_t()
        acl.ok("aclmdlGetInputIndexByName", desc, b"b", ctypes.byref(index))
        assert index.value == 1
        assert acl.aclmdlGetInputIndexByName(desc, MBATCH, ctypes.byref(index)) == 100000
        acl.ok("aclmdlGetOutputIndexByName", desc, b"sum", ctypes.byref(index))
        assert index.value == 0
        batch, hw, count, span = Batch(), HW(), ctypes.c_size_t(7), IODimsRange()
        acl.ok("aclmdlGetDynamicBatch", desc, ctypes.byref(batch))
        acl.ok("aclmdlGetDynamicHW", desc, ANY, ctypes.byref(hw))
        acl.ok("aclmdlGetInputDynamicGearCount", desc, ANY, ctypes.byref(count))
        acl.ok("aclmdlGetInputDimsRange", desc, 0, ctypes.byref(span))
        assert (batch.batchCount, hw.hwCount, count.value) == (0, 0, 0)
        assert [tuple(span.range[i]) for i in range(span.rangeCount)] == [(1, 1), (4, 4)]
        assert acl.aclmdlGetDynamicHW(desc, 0, ctypes.byref(hw)) == 100000
        assert acl.aclmdlGetInputDynamicGearCount(desc, 0, ctypes.byref(count)) == 100000
        assert acl.aclmdlGetInputDims(desc, 2, ctypes.byref(IODims())) == 100000
        assert acl.aclmdlGetInputDims(desc, 0, None) == 100000
        model.close()

    def test_nothing_described_and_destroyed_descs(self, acl):
        desc = acl.aclmdlCreateDesc()
        for handle in (desc, None, 12345):
            assert acl.aclmdlGetNumInputs(handle) == 0
            assert acl.aclmdlGetInputSizeByIndex(handle, 0) == 0
            assert acl.aclmdlGetInputNameByIndex(handle, 0) == b""
            assert acl.aclmdlGetInputDataType(handle, 0) == -1
            assert acl.aclmdlGetInputDims(handle, 0, ctypes.byref(IODims())) == 100000
        acl.ok("aclmdlDestroyDesc", desc)
        assert acl.aclmdlDestroyDesc(desc) == 100000
        assert "destroyed before" in acl.text()
        assert acl.aclmdlGetNumInputs(desc) == 0

    def test_batch_gears(self, acl, batch_om):
        model = acl.load(batch_om)
        assert model.inputs == 2
        assert acl.aclmdlGetInputNameByIndex(model.desc, 1) == MBATCH
        assert (model.input_size(0), model.input_size(1), model.output_size(0)) == (96, 4, 128)
        assert model.dims("aclmdlGetInputDims", 0) == (-1, 3)
        assert model.dims("aclmdlGetOutputDims", 0) == model.dims("aclmdlGetCurOutputDims", 0) == (8, 4)
        batch, span = Batch(), IODimsRange(rangeCount=9)
        acl.ok("aclmdlGetDynamicBatch", model.desc, ctypes.byref(batch))
        assert batch.batch[: batch.batchCount] == [1, 2, 8]
        acl.ok("aclmdlGetInputDimsRange", model.desc, 0, ctypes.byref(span))
        assert span.rangeCount == 0
        model.close()

    def test_image_size_gears(self, acl, hw_om):
        model = acl.load(hw_om)
        hw = HW()
        acl.ok("aclmdlGetDynamicHW", model.desc, ANY, ctypes.byref(hw))
        assert [tuple(hw.hw[i]) for i in range(hw.hwCount)] == [(4, 6), (8, 2)]
        assert model.dims("aclmdlGetInputDims", 0) == (1, 3, -1, -1)
        assert model.dims("aclmdlGetOutputDims", 0) == (1, 3, 4, 6)
        assert (model.input_size(0), model.output_size(0), model.output_size(1)) == (288, 288, 12)
        assert acl.aclmdlGetInputFormat(model.desc, 0) == 0
        model.close()

    def test_dims_gears(self, acl, dims_om):
        model = acl.load(dims_om)
        count = ctypes.c_size_t()
        acl.ok("aclmdlGetInputDynamicGearCount", model.desc, ANY, ctypes.byref(count))
        gears = (IODims * count.value)()
        acl.ok("aclmdlGetInputDynamicDims", model.desc, ANY, gears, count.value)
        assert [gear.shape() for gear in gears] == [
            (1, 1, 40, 20, 1, 20, 1, 1),
            (1, 1, 40, 40, 1, 40, 2, 2),
            (1, 1, 40, 80, 1, 60, 4, 4),
        ]
        assert acl.aclmdlGetInputDynamicDims(model.desc, ANY, gears, 2) == 100000
        assert acl.aclmdlGetInputDynamicDims(model.desc, 0, gears, 3) == 100000
        assert [model.dims("aclmdlGetInputDims", i) for i in range(3)] == [(1, 1, 40, -1), (1, -1), (-1, -1)]
        assert [model.input_size(i) for i in range(4)] == [12800, 240, 64, 16]
        model.close()

    def test_open_and_bounded_shapes(self, acl, shape_om, range_om):
        model = acl.load(shape_om)
        span = IODimsRange()
        assert (model.inputs, model.input_size(0), model.output_size(0)) == (1, 0, 0)
        assert model.dims("aclmdlGetInputDims", 0) == (-1, 3)
        assert model.dims("aclmdlGetOutputDims", 0) == (-1, 4)
        acl.ok("aclmdlGetInputDimsRange", model.desc, 0, ctypes.byref(span))
        assert [tuple(span.range[i]) for i in range(span.rangeCount)] == [(1, -1), (3, 3)]
        assert acl.aclmdlGetCurOutputDims(model.desc, 0, ctypes.byref(IODims())) == 200001
        model.close()
        model = acl.load(range_om)
        acl.ok("aclmdlGetInputDimsRange", model.desc, 0, ctypes.byref(span))
        assert [tuple(span.range[i]) for i in range(span.rangeCount)] == [(2, 8), (3, 3)]
        assert (model.input_size(0), model.output_size(0)) == (96, 128)
        model.close()

    def test_from_a_file_without_loading(self, acl, batch_om):
        desc = acl.aclmdlCreateDesc()
        acl.ok("aclmdlGetDescFromFile", desc, os.fspath(batch_om).encode())
        assert acl.aclmdlGetNumInputs(desc) == 2
        assert acl.aclmdlGetCurOutputDims(desc, 0, ctypes.byref(IODims())) == 145003
        content = batch_om.read_bytes()
        acl.ok("aclmdlGetDescFromMem", desc, content, len(content))
        assert acl.emulator.memory_used(0) == 0
        acl.ok("aclmdlDestroyDesc", desc)

    def test_long_names(self, acl, tmp_path):
        model = acl.load(pack(models.long_name(tmp_path), tmp_path / "m.om"))
        dims = IODims()
        acl.ok("aclmdlGetInputDims", model.desc, 0, ctypes.byref(dims))
        assert dims.name == b"acl_modelId_1_input_0"
        assert acl.aclmdlGetTensorRealName(model.desc, dims.name) == b"x" * 200
        assert acl.aclmdlGetTensorRealName(model.desc, b"x" * 200) == b"x" * 200
        assert acl.aclmdlGetTensorRealName(model.desc, b"none") is None
        assert acl.aclmdlGetInputNameByIndex(model.desc, 0) == b"x" * 200
        model.close()
