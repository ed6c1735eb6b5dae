"""Gears and dynamic shapes on the emulator."""

from __future__ import annotations

import ctypes

import numpy as np

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import MBATCH, Acl, Dataset, IODims, Model

ANY = 2**64 - 1  # (size_t)-1


def _expected(x: np.ndarray) -> np.ndarray:
    return x @ np.arange(12, dtype=np.float32).reshape(3, 4)


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

    def test_gears_for_what_the_model_declares_as_fixed(self, acl, tmp_path):
        model = acl.load(pack(models.add(tmp_path), tmp_path / "m.om", input_shape="a:-1,4;b:-1,4", dynamic_batch_size="1,3"))
        feeds, results = self._feeds(acl, model, [np.ones((3, 4), np.float32)] * 2), Dataset(acl, [48])
        acl.ok("aclmdlSetDynamicBatchSize", model.id, feeds.handle, 2, 3)
        assert model.run(feeds, results) == 0
        assert acl.to_host(results.addresses[0], (12,)).tolist() == [2] * 12

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
        acl.ok("aclrtMemset", narrow.addresses[1], 4, 0, 4)  # something overwrites it
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
        assert len(acl.emulator.report()) == 2  # the sizes that AscendCL does not check
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
        for dims, code in (
            ((1, 1, 40, 20, 1, 20, 1), 145012),
            ((1, 1, 41, 20, 1, 20, 1, 1), 145012),
            ((1, 1, 40, 20, 1, 40, 1, 1), 145013),
            ((), 100000),
        ):
            wrong = IODims(dimCount=len(dims))
            wrong.dims[: len(dims)] = dims
            assert acl.aclmdlSetInputDynamicDims(model.id, feeds.handle, index, ctypes.byref(wrong)) == code

    def test_dims_in_the_order_of_the_conversion(self, acl, tmp_path):
        path = pack(
            models.three(tmp_path),
            tmp_path / "m.om",
            input_shape="mask:-1,-1;data:1,1,40,-1;label:1,-1",
            dynamic_dims="1,2,20,5;3,4,40,6",
        )
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
            assert (
                acl.aclGetTensorDescType(desc),
                acl.aclGetTensorDescFormat(desc),
                acl.aclGetTensorDescElementCount(desc),
            ) == (0, 2, rows * 4)
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
        assert model.run(feeds, results) == 145000  # 36 bytes are missing
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
