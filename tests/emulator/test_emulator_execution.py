"""Executions of static models on the emulator, with all checks; datasets and descriptions."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import Dataset


class TestStaticExecution:
    def test_results(self, acl, static_om):
        model = acl.load(static_om)
        a, b = np.arange(4, dtype=np.float32), np.full(4, 10, np.float32)
        feeds, results = Dataset(acl, [a, b]), Dataset(acl, [16])
        for _ in range(3):  # a dataset can be used for many runs
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
        assert model.run(Dataset(acl, [good, np.ones(48, np.float32)]), result) == 0  # within 64 bytes: accepted, and reported
        assert "needs 256 bytes" in acl.emulator.report()[0]
        values = acl.to_host(result.addresses[0], (64,))
        assert (values[:48] == 2).all()
        assert (values[48:] != 2).all()
        acl.emulator.clear_report()
        assert model.run(Dataset(acl, [good, np.ones(200, np.float32)]), result) == 0  # a larger buffer is accepted
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
        # The context cannot be used from here on, until the device is reset.
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
            ids = {
                name: getattr(acl, f"aclrtGet{name}FromExceptionInfo")(info)
                for name in ("TaskId", "StreamId", "DeviceId", "ErrorCode")
            }
            name = ctypes.create_string_buffer(64)
            descs, counts = [ctypes.c_void_p(), ctypes.c_void_p()], [ctypes.c_size_t(), ctypes.c_size_t()]
            places = [ctypes.byref(place) for pair in zip(descs, counts, strict=True) for place in pair]
            numbers = (ids["DeviceId"], ids["StreamId"], ids["TaskId"])
            code = acl.aclmdlCreateAndGetOpDesc(*numbers, name, 64, *places)
            second = acl.aclGetTensorDescByIndex(descs[0], 1)
            seen.update(
                ids, code=code, name=name.value, counts=[c.value for c in counts], size=acl.aclGetTensorDescSize(second)
            )
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
        acl = make_acl(faults="device.execute:1=delay(60000)")
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
        acl.emulator.set_faults()
        acl.ok("aclrtSynchronizeStream", stream)
        assert "another execution of it is in flight" in acl.emulator.report()[0]
        assert model.run(*sets[1]) == 0


class TestObjects:
    def test_data_buffers_and_datasets(self, acl):
        buffer, dataset = acl.aclCreateDataBuffer(4096, 8), acl.aclmdlCreateDataset()
        acl.ok("aclUpdateDataBuffer", buffer, 8192, 5_000_000_000)
        assert (acl.aclGetDataBufferAddr(buffer), acl.aclGetDataBufferSizeV2(buffer), acl.aclGetDataBufferSize(buffer)) == (
            8192,
            5_000_000_000,
            705032704,
        )
        acl.ok("aclmdlAddDatasetBuffer", dataset, buffer)
        assert acl.aclmdlGetDatasetNumBuffers(dataset) == 1
        assert acl.aclmdlGetDatasetBuffer(dataset, 0) == buffer
        assert acl.aclmdlGetDatasetBuffer(dataset, 1) is None
        assert acl.aclmdlAddDatasetBuffer(dataset, None) == 100000
        assert acl.aclmdlAddDatasetBuffer(buffer, buffer) == 100000  # a buffer is not a dataset
        acl.ok("aclmdlDestroyDataset", dataset)
        assert acl.aclGetDataBufferSizeV2(buffer) == 5_000_000_000  # still valid
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
        assert (acl.aclGetTensorDescNumDims(desc), acl.aclGetTensorDescElementCount(desc), acl.aclGetTensorDescSize(desc)) == (
            3,
            0,
            0,
        )
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
