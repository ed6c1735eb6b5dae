"""Models on the emulator: loading, describing, gears, shapes, executing, and every check on the way."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import emulator_models as models
import numpy as np
import pytest
from emulator_abi import AIPP, HW, MBATCH, Acl, AclError, Batch, Dataset, IODims, IODimsRange, Model

from ais_bench.emulator import pack

pytest_plugins = ("emulator_fixtures",)
ANY = 2**64 - 1  # (size_t)-1


@pytest.fixture
def static_om(tmp_path: Path) -> Path:
    return pack(models.add(tmp_path), tmp_path / "add.om")


@pytest.fixture
def batch_om(tmp_path: Path) -> Path:
    return pack(models.matmul(tmp_path), tmp_path / "matmul.om", dynamic_batch_size=[1, 2, 8])


@pytest.fixture
def hw_om(tmp_path: Path) -> Path:
    return pack(models.image(tmp_path), tmp_path / "image.om", input_shape="picture:1,3,-1,-1", dynamic_image_size="4,6;8,2")


@pytest.fixture
def dims_om(tmp_path: Path) -> Path:
    shapes = "data:1,1,40,-1;label:1,-1;mask:-1,-1"
    return pack(models.three(tmp_path), tmp_path / "three.om", input_shape=shapes, dynamic_dims="20,20,1,1;40,40,2,2;80,60,4,4")


@pytest.fixture
def shape_om(tmp_path: Path) -> Path:
    return pack(models.matmul(tmp_path), tmp_path / "shape.om")


@pytest.fixture
def range_om(tmp_path: Path) -> Path:
    return pack(models.matmul(tmp_path), tmp_path / "range.om", input_shape="x:2~8,3")


def _expected(x: np.ndarray) -> np.ndarray:
    return x @ np.arange(12, dtype=np.float32).reshape(3, 4)


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
            (b"AISEMUOM\2" + bytes(30), 145006, "another version"),
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

    def test_another_soc(self, make_acl, tmp_path):
        path = pack(models.add(tmp_path), tmp_path / "m.om", soc_version="Ascend910B3")
        acl = make_acl()
        acl.ok("aclrtSetDevice", 0)
        with pytest.raises(AclError, match="packed for Ascend910B3, this is a Ascend310P3") as error:
            acl.load(path)
        assert error.value.code == 507008
        other = make_acl(soc="Ascend910B3")
        other.ok("aclrtSetDevice", 0)
        other.load(path).close()

    def test_a_model_costs_memory(self, make_acl, static_om):
        acl = make_acl(memory_mb="1")
        acl.ok("aclrtSetDevice", 0)
        model = acl.load(static_om)
        used = acl.emulator.memory_used(0)
        assert used >= static_om.stat().st_size - 2000
        model.close()
        assert acl.emulator.memory_used(0) == 0
        block = acl.malloc((1 << 20) - 1000)
        with pytest.raises(AclError) as error:
            acl.load(static_om)
        assert error.value.code == 245000
        acl.ok("aclrtFree", block)

    def test_from_memory(self, acl, static_om):
        content = static_om.read_bytes()
        model_id = ctypes.c_uint32()
        acl.ok("aclmdlLoadFromMem", content_buffer := ctypes.create_string_buffer(content, len(content)), len(content), ctypes.byref(model_id))
        ctypes.memset(content_buffer, 0, len(content))  # it may be released after the call
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
        assert acl.aclmdlLoadFromFileWithMem(path, ctypes.byref(model_id), blocks[0], work.value - 1, blocks[1], weight.value) == 145000
        host = acl.malloc_host(weight.value)
        assert acl.aclmdlLoadFromMemWithMem(content, len(content), ctypes.byref(model_id), blocks[0], work.value, host, weight.value) == 145007
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
        acl.ok("aclrtDestroyContext", own)  # takes the model along, and says so
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
        assert [gear.shape() for gear in gears] == [(1, 1, 40, 20, 1, 20, 1, 1), (1, 1, 40, 40, 1, 40, 2, 2), (1, 1, 40, 80, 1, 60, 4, 4)]
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


class TestStaticExecution:
    def test_results(self, acl, static_om):
        model = acl.load(static_om)
        a, b = np.arange(4, dtype=np.float32), np.full(4, 10, np.float32)
        feeds, results = Dataset(acl, [a, b]), Dataset(acl, [16])
        for _ in range(3):  # datasets are for many runs
            assert model.run(feeds, results) == 0
        assert np.array_equal(acl.to_host(results.addresses[0], (4,)), a + b)
        assert results.result_shape(0) is None  # a static model sets no descs
        feeds.close()
        results.close()
        model.close()
        assert acl.emulator.living() == []

    def test_counts_of_buffers(self, acl, static_om):
        model = acl.load(static_om)
        one, two = Dataset(acl, [16]), Dataset(acl, [16, 16])
        assert model.run(one, one) == 100000
        assert model.run(two, two) == 100000
        assert acl.aclmdlExecute(model.id, None, one.handle) == 100000
        assert acl.aclmdlExecute(99, two.handle, one.handle) == 145003

    def test_sizes_and_the_slack(self, acl, tmp_path):
        model = acl.load(pack(models.add(tmp_path, (1, 64)), tmp_path / "m.om"))
        good, result = np.ones(64, np.float32), Dataset(acl, [256])
        assert model.run(Dataset(acl, [good, np.ones(47, np.float32)]), result) == 145000
        assert "needs 256 bytes, its buffer has 188" in acl.text()
        assert model.run(Dataset(acl, [good, np.ones(48, np.float32)]), result) == 0  # within 64 bytes: let pass, and noted
        assert "needs 256 bytes" in acl.emulator.report()[0]
        values = acl.to_host(result.addresses[0], (64,))
        assert (values[:48] == 2).all()
        assert (values[48:] != 2).all()
        acl.emulator.clear_report()
        assert model.run(Dataset(acl, [good, np.ones(200, np.float32)]), result) == 0  # too large is fine
        assert model.run(Dataset(acl, [good, good]), Dataset(acl, [100])) == 145000

    @pytest.mark.parametrize("memory", ["host", "pinned", "other device", "short", "freed"])
    def test_bad_memory_is_a_device_exception(self, acl, static_om, memory):
        model = acl.load(static_om)
        good = np.ones(4, np.float32)
        bad, code = (good.ctypes.data, 16), 507011
        if memory == "pinned":
            bad = (acl.malloc_host(16), 16)
        elif memory == "short":
            bad, code = (acl.malloc(8), 16), 507053
        elif memory == "freed":
            bad, code = (acl.malloc(16), 16), 507053
            acl.ok("aclrtFree", bad[0])
        elif memory == "other device":
            context = acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext")
            acl.ok("aclrtSetDevice", 1)
            bad, code = (acl.malloc(16), 16), 507053
            acl.ok("aclrtSetCurrentContext", context)
        assert model.run(Dataset(acl, [good, bad]), Dataset(acl, [16])) == code
        assert "input 1 ('b')" in acl.text()
        # The context is of no use from here on, until the device is reset.
        assert acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0) == code
        assert acl.aclmdlUnload(model.id) == 0
        acl.ok("aclrtResetDevice", 0)
        acl.ok("aclrtSetDevice", 0)
        acl.ok("aclrtFree", acl.malloc(64))
        acl.emulator.clear_report()

    def test_the_exception_callback(self, acl, static_om):
        seen = {}

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def callback(info):
            ids = {name: getattr(acl, f"aclrtGet{name}FromExceptionInfo")(info) for name in ("TaskId", "StreamId", "DeviceId", "ErrorCode")}
            name = ctypes.create_string_buffer(64)
            descs, counts = [ctypes.c_void_p(), ctypes.c_void_p()], [ctypes.c_size_t(), ctypes.c_size_t()]
            code = acl.aclmdlCreateAndGetOpDesc(ids["DeviceId"], ids["StreamId"], ids["TaskId"], name, 64, ctypes.byref(descs[0]),
                                                ctypes.byref(counts[0]), ctypes.byref(descs[1]), ctypes.byref(counts[1]))  # fmt: skip
            second = acl.aclGetTensorDescByIndex(descs[0], 1)
            seen.update(ids, code=code, name=name.value, counts=[c.value for c in counts], size=acl.aclGetTensorDescSize(second))
            for desc in descs:
                acl.aclDestroyTensorDesc(desc)
            assert acl.aclrtGetTaskIdFromExceptionInfo(None) == 0xFFFFFFFF

        acl.ok("aclrtSetExceptionInfoCallback", ctypes.cast(callback, ctypes.c_void_p))
        model = acl.load(static_om)
        host = np.ones(4, np.float32)
        assert model.run(Dataset(acl, [(host.ctypes.data, 16)] * 2), Dataset(acl, [16])) == 507011
        assert (seen["code"], seen["name"], seen["counts"], seen["size"]) == (0, b"add", [2, 1], 16)
        assert (seen["DeviceId"], seen["ErrorCode"]) == (0, 507011)
        assert not any("tensor desc" in name for name in acl.emulator.living())
        acl.ok("aclrtSetExceptionInfoCallback", None)

    def test_an_error_of_the_graph_leaves_the_context_good(self, acl, tmp_path):
        model = acl.load(pack(models.gather(tmp_path), tmp_path / "m.om"))
        results = Dataset(acl, [8])
        assert model.run(Dataset(acl, [np.array([1, 99], np.int64)]), results) == 500002
        assert "out of" in acl.text()
        assert model.run(Dataset(acl, [np.array([1, 3], np.int64)]), results) == 0
        assert acl.to_host(results.addresses[0], (2,)).tolist() == [1, 3]

    def test_outputs_that_the_library_allocates(self, acl, tmp_path):
        model = acl.load(pack(models.nonzero(tmp_path), tmp_path / "m.om"))
        assert (model.input_size(0), model.output_size(0)) == (32, 0)
        assert model.dims("aclmdlGetOutputDims", 0) == (1, -1)
        x = np.array([0, 1, 0, 1, 1, 0, 0, 2], np.float32)
        feeds, results = Dataset(acl, [x]), Dataset(acl, [(None, 0)])
        assert model.run(feeds, results) == 0
        address = acl.aclGetDataBufferAddr(results.buffers[0])
        assert acl.aclGetDataBufferSizeV2(results.buffers[0]) == acl.aclGetDataBufferSize(results.buffers[0]) == 32
        assert acl.to_host(address, (4,), np.int64).tolist() == [1, 3, 4, 7]
        acl.ok("aclrtFree", address)
        small = Dataset(acl, [24])
        assert model.run(feeds, small) == 145000
        assert "needs 32 bytes, its buffer has 24" in acl.text()
        large = Dataset(acl, [100])
        assert model.run(feeds, large) == 0

    def test_an_allocation_before_a_failing_run_stays_with_the_buffer(self, acl, static_om):
        model = acl.load(static_om)
        feeds, results = Dataset(acl, [np.ones(4, np.float32)] * 2), Dataset(acl, [(None, 0)])
        acl.emulator.set_faults("device.execute=500002")
        assert model.run(feeds, results) == 500002
        address = acl.aclGetDataBufferAddr(results.buffers[0])
        assert acl.aclGetDataBufferSizeV2(results.buffers[0]) == 16
        acl.ok("aclrtFree", address)

    def test_output_over_input_is_noted(self, acl, static_om):
        model = acl.load(static_om)
        feeds = Dataset(acl, [np.ones(4, np.float32), np.ones(4, np.float32)])
        assert model.run(feeds, Dataset(acl, [(feeds.addresses[0], 16)])) == 0
        assert "output 0 lies over input 0" in acl.emulator.report()[0]
        acl.emulator.clear_report()

    def test_one_model_runs_once_at_a_time(self, make_acl, static_om):
        acl = make_acl(exec_ms="200")
        acl.ok("aclrtSetDevice", 0)
        context = acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext")
        model = acl.load(static_om)
        stream = acl.stream()
        sets = [(Dataset(acl, [np.ones(4, np.float32)] * 2), Dataset(acl, [16])) for _ in range(2)]
        acl.ok("aclmdlExecuteAsync", model.id, sets[0][0].handle, sets[0][1].handle, stream)
        codes = []

        def other():
            acl.ok("aclrtSetCurrentContext", context)
            codes.append(model.run(*sets[1]))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert codes == [500002]
        acl.ok("aclrtSynchronizeStream", stream)
        assert "another execution of it is in flight" in acl.emulator.report()[0]
        assert model.run(*sets[1]) == 0


class TestGears:
    def _feeds(self, acl: Acl, model: Model, arrays: list[np.ndarray]) -> Dataset:
        return Dataset(acl, [*arrays, model.input_size(len(arrays))])

    def test_batch(self, acl, batch_om):
        model = acl.load(batch_om)
        index = model.index(MBATCH)
        x = np.arange(24, dtype=np.float32).reshape(8, 3)
        feeds, results = self._feeds(acl, model, [x]), Dataset(acl, [128])
        assert model.run(feeds, results) == 145012  # no gear was set
        for batch in (2, 8, 1):
            acl.ok("aclmdlSetDynamicBatchSize", model.id, feeds.handle, index, batch)
            assert model.run(feeds, results) == 0
            assert model.dims("aclmdlGetCurOutputDims", 0) == (batch, 4)
            assert np.array_equal(acl.to_host(results.addresses[0], (batch, 4)), _expected(x[:batch]))
        assert acl.aclmdlSetDynamicBatchSize(model.id, feeds.handle, index, 3) == 145013
        assert acl.aclmdlSetDynamicBatchSize(model.id, feeds.handle, index, 0) == 100000
        assert acl.aclmdlSetDynamicBatchSize(model.id, feeds.handle, 0, 2) == 100000
        assert acl.aclmdlSetDynamicBatchSize(99, feeds.handle, index, 2) == 145003
        assert acl.aclmdlSetDynamicHWSize(model.id, feeds.handle, index, 1, 1) == 145013

    def test_the_index_buffer(self, acl, batch_om):
        model = acl.load(batch_om)
        x, results = np.zeros((8, 3), np.float32), Dataset(acl, [128])
        only = Dataset(acl, [x])
        assert acl.aclmdlSetDynamicBatchSize(model.id, only.handle, 1, 2) == 100000  # no buffer yet
        assert acl.aclmdlSetDynamicBatchSize(model.id, Dataset(acl, [x, (None, 4)]).handle, 1, 2) == 145011
        assert acl.aclmdlSetDynamicBatchSize(model.id, Dataset(acl, [x, (acl.malloc(4), 3)]).handle, 1, 2) == 145012
        assert acl.aclmdlSetDynamicBatchSize(model.id, Dataset(acl, [x, (acl.malloc_host(4), 4)]).handle, 1, 2) == 145011
        wide = Dataset(acl, [x, 8])
        acl.ok("aclmdlSetDynamicBatchSize", model.id, wide.handle, 1, 2)
        assert acl.to_host(wide.addresses[1], (1,), np.uint64).tolist() == [2]
        assert model.run(wide, results) == 0
        narrow = Dataset(acl, [x, 4])
        acl.ok("aclmdlSetDynamicBatchSize", model.id, narrow.handle, 1, 8)
        assert acl.to_host(narrow.addresses[1], (1,), np.uint32).tolist() == [8]
        acl.ok("aclrtMemset", narrow.addresses[1], 4, 0, 4)  # whoever overwrites it
        assert model.run(narrow, results) == 145012
        assert "overwritten" in acl.text()

    def test_a_gear_set_through_another_dataset(self, acl, batch_om):
        model = acl.load(batch_om)
        x, results = np.zeros((8, 3), np.float32), Dataset(acl, [128])
        first, second = self._feeds(acl, model, [x]), self._feeds(acl, model, [x])
        acl.ok("aclmdlSetDynamicBatchSize", model.id, first.handle, 1, 2)
        acl.ok("aclmdlSetDynamicBatchSize", model.id, second.handle, 1, 8)
        assert model.run(first, results) == 145012
        acl.ok("aclmdlSetDynamicBatchSize", model.id, first.handle, 1, 2)
        assert model.run(first, results) == 0

    def test_memory_for_the_gear(self, acl, batch_om):
        model = acl.load(batch_om)
        feeds, results = self._feeds(acl, model, [np.zeros((2, 3), np.float32)]), Dataset(acl, [32])
        acl.ok("aclmdlSetDynamicBatchSize", model.id, feeds.handle, 1, 2)
        assert model.run(feeds, results) == 0
        acl.ok("aclmdlSetDynamicBatchSize", model.id, feeds.handle, 1, 8)
        assert model.run(feeds, results) == 507053
        assert len(acl.emulator.report()) == 2  # the sizes AscendCL does not look at
        acl.emulator.clear_report()

    def test_image_size(self, acl, hw_om):
        model = acl.load(hw_om)
        rng = np.random.default_rng(0)
        for height, width in ((8, 2), (4, 6)):
            picture = rng.random((1, 3, height, width), np.float32)
            padded = np.zeros(72, np.float32)
            padded[: picture.size] = picture.ravel()
            feeds, results = self._feeds(acl, model, [padded]), Dataset(acl, [288, 12])
            acl.ok("aclmdlSetDynamicHWSize", model.id, feeds.handle, 1, height, width)
            assert model.run(feeds, results) == 0
            assert model.dims("aclmdlGetCurOutputDims", 0) == picture.shape
            assert np.array_equal(acl.to_host(results.addresses[0], picture.shape), 2 * picture)
        assert acl.aclmdlSetDynamicHWSize(model.id, feeds.handle, 1, 6, 4) == 145013
        assert acl.aclmdlSetDynamicHWSize(model.id, feeds.handle, 1, 0, 4) == 100000

    def test_dims(self, acl, dims_om):
        model = acl.load(dims_om)
        gears = (IODims * 3)()
        acl.ok("aclmdlGetInputDynamicDims", model.desc, ANY, gears, 3)
        arrays = [np.ones(model.input_size(i) // 4, np.float32) for i in range(3)]
        feeds, results = self._feeds(acl, model, arrays), Dataset(acl, [4])
        index = model.index(MBATCH)
        for gear, total in zip(gears, (800 + 20 + 1, 1600 + 40 + 4, 3200 + 60 + 16), strict=True):
            acl.ok("aclmdlSetInputDynamicDims", model.id, feeds.handle, index, ctypes.byref(gear))
            assert model.run(feeds, results) == 0
            assert acl.to_host(results.addresses[0], (1,)).tolist() == [total]
        for dims, code in (((1, 1, 40, 20, 1, 20, 1), 145012), ((1, 1, 41, 20, 1, 20, 1, 1), 145012), ((1, 1, 40, 20, 1, 40, 1, 1), 145013), ((), 100000)):
            wrong = IODims(dimCount=len(dims))
            wrong.dims[: len(dims)] = dims
            assert acl.aclmdlSetInputDynamicDims(model.id, feeds.handle, index, ctypes.byref(wrong)) == code

    def test_dims_in_the_order_of_the_conversion(self, acl, tmp_path):
        path = pack(models.three(tmp_path), tmp_path / "m.om", input_shape="mask:-1,-1;data:1,1,40,-1;label:1,-1", dynamic_dims="1,2,20,5;3,4,40,6")
        model = acl.load(path)
        gears = (IODims * 2)()
        acl.ok("aclmdlGetInputDynamicDims", model.desc, ANY, gears, 2)
        assert gears[0].shape() == (1, 2, 1, 1, 40, 20, 1, 5)
        arrays = [np.ones(model.input_size(i) // 4, np.float32) for i in range(3)]
        feeds, results = self._feeds(acl, model, arrays), Dataset(acl, [4])
        acl.ok("aclmdlSetInputDynamicDims", model.id, feeds.handle, 3, ctypes.byref(gears[1]))
        assert acl.to_host(feeds.addresses[3], (4,), np.uint32).tolist() == [3, 4, 40, 6]
        assert model.run(feeds, results) == 0
        assert acl.to_host(results.addresses[0], (1,)).tolist() == [1600 + 6 + 12]


class TestDynamicShape:
    def test_results_and_shapes(self, acl, shape_om):
        model = acl.load(shape_om)
        for rows in (2, 5, 1):
            x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
            feeds, results = Dataset(acl, [x]), Dataset(acl, [(None, 0)])
            feeds.shape(0, x.shape)
            assert model.run(feeds, results) == 0
            assert results.result_shape(0) == (rows, 4)
            address = acl.aclGetDataBufferAddr(results.buffers[0])
            desc = acl.aclmdlGetDatasetTensorDesc(results.handle, 0)
            assert acl.aclGetTensorDescSize(desc) == acl.aclGetDataBufferSizeV2(results.buffers[0]) == rows * 16
            assert (acl.aclGetTensorDescType(desc), acl.aclGetTensorDescFormat(desc), acl.aclGetTensorDescElementCount(desc)) == (0, 2, rows * 4)
            assert np.array_equal(acl.to_host(address, (rows, 4)), _expected(x))
            acl.ok("aclrtFree", address)
            feeds.close()
            results.close()

    def test_an_execution_replaces_the_descs(self, acl, shape_om):
        model = acl.load(shape_om)
        feeds, results = Dataset(acl, [np.ones((2, 3), np.float32)]), Dataset(acl, [100])
        feeds.shape(0, (2, 3))
        assert model.run(feeds, results) == 0
        old = acl.aclmdlGetDatasetTensorDesc(results.handle, 0)
        assert model.run(feeds, results) == 0
        new = acl.aclmdlGetDatasetTensorDesc(results.handle, 0)
        assert acl.aclGetTensorDescNumDims(new) == 2
        assert acl.aclGetTensorDescNumDims(old) == 0
        assert "destroyed" in acl.text()

    def test_what_goes_wrong(self, acl, shape_om, range_om):
        model, bounded = acl.load(shape_om), acl.load(range_om)
        x = np.ones((2, 3), np.float32)
        feeds, results = Dataset(acl, [x]), Dataset(acl, [100])
        assert model.run(feeds, results) == 100000  # no shape was given
        feeds.shape(0, (3, 3))
        assert model.run(feeds, results) == 145000  # 36 bytes are not there
        feeds.shape(0, (2, 4))
        assert model.run(feeds, results) == 100000  # a static dimension differs
        feeds.shape(0, (1, 3))
        assert bounded.run(feeds, results) == 100000  # below the range
        feeds.shape(0, (2, 3))
        assert bounded.run(feeds, results) == 0
        assert bounded.run(feeds, Dataset(acl, [20])) == 145000
        assert "needs 32 bytes" in acl.text()

    def test_removing_a_shape(self, acl, shape_om):
        model = acl.load(shape_om)
        feeds, results = Dataset(acl, [np.ones((2, 3), np.float32)]), Dataset(acl, [100])
        feeds.shape(0, (2, 3))
        acl.ok("aclmdlSetDatasetTensorDesc", feeds.handle, None, 0)
        assert model.run(feeds, results) == 100000
        assert acl.aclmdlSetDatasetTensorDesc(feeds.handle, None, 1) == 100000


class TestObjects:
    def test_data_buffers_and_datasets(self, acl):
        buffer, dataset = acl.aclCreateDataBuffer(4096, 8), acl.aclmdlCreateDataset()
        acl.ok("aclUpdateDataBuffer", buffer, 8192, 5_000_000_000)
        assert (acl.aclGetDataBufferAddr(buffer), acl.aclGetDataBufferSizeV2(buffer), acl.aclGetDataBufferSize(buffer)) == (8192, 5_000_000_000, 705032704)
        acl.ok("aclmdlAddDatasetBuffer", dataset, buffer)
        assert acl.aclmdlGetDatasetNumBuffers(dataset) == 1
        assert acl.aclmdlGetDatasetBuffer(dataset, 0) == buffer
        assert acl.aclmdlGetDatasetBuffer(dataset, 1) is None
        assert acl.aclmdlAddDatasetBuffer(dataset, None) == 100000
        assert acl.aclmdlAddDatasetBuffer(buffer, buffer) == 100000  # a buffer is no dataset
        acl.ok("aclmdlDestroyDataset", dataset)
        assert acl.aclGetDataBufferSizeV2(buffer) == 5_000_000_000  # lives on
        assert acl.aclmdlDestroyDataset(dataset) == 100000
        acl.ok("aclDestroyDataBuffer", buffer)
        assert acl.aclDestroyDataBuffer(buffer) == 100000
        assert acl.aclGetDataBufferAddr(buffer) is None

    def test_tensor_descs(self, acl):
        dims = (ctypes.c_int64 * 3)(2, -1, 4)
        desc = acl.aclCreateTensorDesc(1, 3, dims, 0)
        value, span = ctypes.c_int64(), (ctypes.c_int64 * 2)()
        acl.ok("aclGetTensorDescDimV2", desc, 2, ctypes.byref(value))
        assert (value.value, acl.aclGetTensorDescDim(desc, 1), acl.aclGetTensorDescDim(desc, 3)) == (4, -1, -1)
        assert (acl.aclGetTensorDescNumDims(desc), acl.aclGetTensorDescElementCount(desc), acl.aclGetTensorDescSize(desc)) == (3, 0, 0)
        assert acl.aclGetTensorDescDimV2(desc, 3, ctypes.byref(value)) == 100000
        acl.aclSetTensorDescName(desc, b"name")
        assert acl.aclGetTensorDescName(desc) == b"name"
        acl.ok("aclSetTensorShapeRange", desc, 1, (ctypes.c_int64 * 2)(1, 9))
        acl.ok("aclGetTensorDescDimRange", desc, 0, 2, span)
        assert tuple(span) == (1, 9)
        assert acl.aclGetTensorDescDimRange(desc, 1, 2, span) == 100000
        acl.aclDestroyTensorDesc(desc)
        acl.aclDestroyTensorDesc(desc)
        assert "destroyed" in acl.text()
        scalar = acl.aclCreateTensorDesc(0, 0, None, 2)
        assert (acl.aclGetTensorDescElementCount(scalar), acl.aclGetTensorDescSize(scalar)) == (1, 4)
        unknown = acl.aclCreateTensorDesc(0, 1, (ctypes.c_int64 * 1)(-2), 2)
        assert acl.aclGetTensorDescNumDims(unknown) == 2**64 - 2
        assert acl.aclCreateTensorDesc(0, 129, dims, 2) is None
        acl.aclDestroyTensorDesc(scalar)
        acl.aclDestroyTensorDesc(unknown)

    def test_a_datasets_own_desc_is_a_copy(self, acl):
        dataset = Dataset(acl, [16])
        dataset.shape(0, (2, 2))  # destroys the desc that was given
        own = acl.aclmdlGetDatasetTensorDesc(dataset.handle, 0)
        assert acl.aclGetTensorDescNumDims(own) == 2
        acl.aclDestroyTensorDesc(own)
        assert "belongs to a dataset" in acl.text()
        dataset.close()
        assert acl.aclGetTensorDescNumDims(own) == 0
        assert acl.emulator.living() == []


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
        path = pack(models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape={"picture": [2, 3, 4, 6]}, insert_op_conf=config)
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
        model = acl.load(pack(models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape="picture:1,3,4,6", insert_op_conf=config))
        assert model.dims("aclmdlGetInputDims", 0) == (1, 4, 6, 3)
        assert model.dims("aclmdlGetInputDimsV2", 0) == (1, 6, 6, 1)
        assert model.input_size(0) == 36

    @pytest.fixture
    def dynamic(self, acl, tmp_path):
        config = tmp_path / "aipp.cfg"
        config.write_text("aipp_op { aipp_mode: dynamic related_input_rank: 0 max_src_image_size: 1000 }")
        return acl.load(pack(models.image(tmp_path, size=(4, 6)), tmp_path / "m.om", input_shape="picture:2,3,4,6", insert_op_conf=config))

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
        feeds, results = Dataset(acl, [(acl.to_device(yuv), 1000), dynamic.input_size(1)]), Dataset(acl, [dynamic.output_size(0), dynamic.output_size(1)])
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
            expected[n] = (rgb - np.float32(mean)[:, None, None] - np.float32(low)[:, None, None]) * np.float32(scale)[:, None, None]
        assert np.allclose(acl.to_host(results.addresses[0], (2, 3, 4, 6)), 2 * expected, atol=1e-3)

    def test_ranges(self, acl):
        settings = acl.aclmdlCreateAIPP(2)
        assert acl.aclmdlCreateAIPP(0) is None
        bad = [
            ("aclmdlSetAIPPInputFormat", 7), ("aclmdlSetAIPPSrcImageSize", 1, 4), ("aclmdlSetAIPPSrcImageSize", 4, 4097),
            ("aclmdlSetAIPPRbuvSwapSwitch", 2), ("aclmdlSetAIPPAxSwapSwitch", -1), ("aclmdlSetAIPPCropParams", 1, 4096, 0, 1, 1, 0),
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
