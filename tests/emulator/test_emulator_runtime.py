"""AscendCL on the emulator: initialisation, devices, contexts, errors, profiling."""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np
import pytest

from ais_bench.emulator import library_path
from ais_bench.emulator.binary import _dynamic_strings
from support.emulator_abi import SIGNATURES, Acl, in_thread


def test_every_function_of_the_abi_is_exported_and_known():
    image = library_path().read_bytes()
    offset, size = _dynamic_strings(image)
    names = {name.decode() for name in image[offset : offset + size].split(b"\0")}
    assert {name for name in names if name.startswith("acl")} == set(SIGNATURES)
    assert not any(name.startswith("_ZN3ais") for name in names)  # two copies in one process share nothing


class TestInit:
    def test_order_of_calls(self, bare_acl):
        assert bare_acl.aclFinalize() == 100001
        assert bare_acl.aclrtSetDevice(0) == 100001
        assert bare_acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0) == 100001
        assert bare_acl.aclInit(None) == 0
        assert bare_acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0) == 107002
        assert bare_acl.aclInit(None) == 100002
        assert bare_acl.aclInit(b"") == 100002
        assert bare_acl.aclFinalize() == 0
        assert bare_acl.aclFinalize() == 100037
        assert bare_acl.aclInit(b"") == 0  # supported after a finalise
        assert bare_acl.aclFinalize() == 0

    def test_references(self, bare_acl):
        count = ctypes.c_uint64(99)
        bare_acl.ok("aclInit", None)
        assert bare_acl.aclInit(None) == 100002
        assert bare_acl.aclFinalizeReference(ctypes.byref(count)) == 0
        assert count.value == 1
        assert bare_acl.aclFinalizeReference(ctypes.byref(count)) == 0
        assert count.value == 0
        assert bare_acl.aclrtSetDevice(0) == 100001

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("{}", 0),
            ('\ufeff{"err_msg_mode": "1"}', 0),
            ('{"err_msg_mode": "1"}', 0),
            ('{"err_msg_mode": "2"}', 100000),
            ("{", 100006),
            ("[]", 100006),
            ('{"a": [[[[[[[[[[1]]]]]]]]]]}', 100006),
            ('{"dump": {"dump_path": "FOLDER", "dump_list": [{"model_name": "m", "layer": ["a"]}], "dump_mode": "all"}}', 0),
            ('{"dump": {"dump_path": "FOLDER", "dump_list": []}}', 0),
            ('{"dump": {"dump_list": []}}', 100009),
            ('{"dump": {"dump_path": "/nowhere", "dump_list": []}}', 100009),
            ('{"dump": {"dump_path": "FOLDER", "dump_list": [], "dump_mode": "some"}}', 100009),
            ('{"dump": {"dump_path": "FOLDER", "dump_list": [{"layer": "a"}]}}', 100009),
            ('{"dump": {"dump_scene": "lite_exception"}}', 0),
            ('{"dump": {"dump_scene": "lite_exception", "dump_debug": "on", "dump_path": "FOLDER"}}', 100009),
            ('{"profiler": {"switch": "on", "output": "FOLDER", "aicpu": "on", "aic_metrics": "", "sys_cpu_freq": 50}}', 0),
            ('{"profiler": {"switch": "off", "nonsense": 1}}', 0),
            ('{"profiler": {"switch": "on", "nonsense": "on"}}', 100010),
            ('{"profiler": {"switch": "on", "aicpu": 1}}', 100010),
            ('{"profiler": {"switch": "on", "aic_metrics": "Everything"}}', 100010),
            ('{"profiler": {"switch": "on", "output": "/nowhere"}}', 100010),
        ],
    )
    def test_configuration(self, bare_acl, tmp_path, text, code):
        path = tmp_path / "acl.json"
        path.write_text(text.replace("FOLDER", str(tmp_path)))
        assert bare_acl.aclInit(str(path).encode()) == code
        if code != 0:
            assert str(path) in bare_acl.text()
            assert bare_acl.aclInit(None) == 0  # the failure left nothing behind

    def test_a_missing_configuration(self, bare_acl, tmp_path):
        assert bare_acl.aclInit(str(tmp_path / "none.json").encode()) == 100003
        bare_acl.ok("aclInit", None)
        path = tmp_path / "acl.json"
        path.write_text("{}")
        assert bare_acl.aclInit(str(path).encode()) == 100002  # counted; the first configuration stays
        assert bare_acl.aclInit(b"/nowhere.json") == 100002  # the file is not read
        left = ctypes.c_uint64()
        for expected in (2, 1, 0):
            bare_acl.ok("aclFinalizeReference", ctypes.byref(left))
            assert left.value == expected
        assert bare_acl.aclInit(str(path).encode()) == 100000  # the first content is kept permanently
        assert bare_acl.aclInit(b"") == 0

    def test_a_forked_child_is_refused(self, acl):
        pid = os.fork()
        if pid == 0:
            codes = [acl.aclrtSetDevice(0), acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0), acl.aclFinalize()]
            os._exit(0 if codes == [507000] * 3 and "forked" in (acl.text() or "") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert acl.malloc(64)  # the parent still works

    def test_a_child_forked_before_init_is_not(self, bare_acl):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if (bare_acl.aclInit(None), bare_acl.aclrtSetDevice(0)) == (0, 0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestDevices:
    def test_count_and_range(self, make_acl):
        acl = make_acl(devices="3")
        assert acl.fill(ctypes.c_uint32, "aclrtGetDeviceCount") == 3
        assert acl.aclrtSetDevice(3) == 107001
        assert acl.aclrtSetDevice(-1) == 107001
        assert "3 devices" in acl.text()

    def test_visible_devices_are_renumbered(self, make_acl):
        acl = make_acl(devices="8", visible="5,3", memory_mb="64;5=16;3=32")
        assert acl.fill(ctypes.c_uint32, "aclrtGetDeviceCount") == 2
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        totals = []
        for device in (0, 1):
            acl.ok("aclrtSetDevice", device)
            acl.ok("aclrtGetMemInfo", 1, ctypes.byref(free), ctypes.byref(total))
            totals.append(total.value >> 20)
        assert totals == [16, 32]

    def test_set_is_counted_and_the_last_reset_destroys_the_default_context(self, acl):
        default = acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext")
        acl.ok("aclrtSetDevice", 0)
        assert acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext") == default
        assert acl.fill(ctypes.c_int32, "aclrtGetDevice") == 0
        acl.ok("aclrtResetDevice", 0)
        assert acl.aclrtSetCurrentContext(default) == 0
        acl.ok("aclrtResetDevice", 0)
        assert acl.aclrtSetCurrentContext(default) == 107017
        assert acl.aclrtGetDevice(ctypes.byref(ctypes.c_int32())) == 107002
        assert acl.aclrtResetDevice(0) == 107000

    def test_force_resets_whatever_the_count(self, acl):
        acl.ok("aclrtSetDevice", 0)
        acl.ok("aclrtResetDeviceForce", 0)
        assert acl.aclrtResetDevice(0) == 107000

    def test_queries(self, make_acl):
        acl = make_acl(soc="Ascend910B3")
        acl.ok("aclrtSetDevice", 0)
        assert acl.aclrtGetSocName() == b"Ascend910B3"
        assert acl.fill(ctypes.c_int32, "aclrtGetRunMode") == 1
        version = [ctypes.c_int32() for _ in range(3)]
        acl.ok("aclrtGetVersion", *map(ctypes.byref, version))
        assert version[0].value == 1
        acl.ok("aclrtSetDeviceSatMode", 1)
        assert acl.fill(ctypes.c_int32, "aclrtGetDeviceSatMode") == 1
        assert acl.aclrtSetDeviceSatMode(2) == 100000
        status = ctypes.c_int32(7)
        acl.ok("aclrtQueryDeviceStatus", 0, ctypes.byref(status))
        assert status.value == 0
        assert acl.aclrtQueryDeviceStatus(99, ctypes.byref(status)) == 107001
        assert acl.aclrtGetDeviceCount(None) == 100000
        usage = (ctypes.c_int64 * 3)()
        acl.ok("aclrtGetDeviceUtilizationRate", 0, usage)
        usage[2] = 1
        assert acl.aclrtGetDeviceUtilizationRate(0, usage) == 100000


class TestContexts:
    def test_create_makes_current_and_destroy_takes_away(self, acl):
        default = acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext")
        made = acl.context(1)
        assert acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext") == made
        assert acl.fill(ctypes.c_int32, "aclrtGetDevice") == 1
        acl.ok("aclrtDestroyContext", made)
        assert acl.aclrtGetCurrentContext(ctypes.byref(ctypes.c_void_p())) == 107002
        assert acl.aclrtDestroyContext(made) == 107017
        assert acl.aclrtSetCurrentContext(made) == 107017
        assert acl.aclrtDestroyContext(default) == 107000
        assert acl.aclrtCreateContext(ctypes.byref(ctypes.c_void_p()), 99) == 107001
        assert acl.aclrtCreateContext(None, 0) == 100000

    def test_each_thread_has_its_own(self, acl):
        made = acl.context(1)
        pointer = ctypes.c_void_p()
        assert in_thread(lambda: acl.aclrtMalloc(ctypes.byref(pointer), 64, 0)) == 107002
        assert in_thread(lambda: (acl.aclrtSetCurrentContext(made), acl.aclrtMalloc(ctypes.byref(pointer), 64, 0))) == (0, 0)

    def test_destroyed_while_current_elsewhere(self, acl):
        made = acl.context(0)
        ready, go = threading.Event(), threading.Event()
        codes = []

        def other():
            acl.ok("aclrtSetCurrentContext", made)
            ready.set()
            go.wait(60)
            codes.append(acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0))

        thread = threading.Thread(target=other)
        thread.start()
        assert ready.wait(60)
        acl.ok("aclrtDestroyContext", made)
        go.set()
        thread.join()
        assert codes == [107017]


class TestErrorText:
    def test_it_is_the_threads_own_and_cleared_by_reading(self, acl):
        assert acl.text() is None
        assert acl.aclrtFree(None) == 100000
        assert in_thread(acl.text) is None
        assert acl.text().startswith("E100000: ACL_ERROR_INVALID_PARAM: ")
        assert acl.text() is None

    def test_process_wide_mode(self, bare_acl, tmp_path):
        path = tmp_path / "acl.json"
        path.write_text('{"err_msg_mode": "1"}')
        bare_acl.ok("aclInit", str(path).encode())
        bare_acl.aclrtFree(None)
        assert "NULL" in in_thread(bare_acl.text)
        assert bare_acl.text() is None
        bare_acl.ok("aclFinalize")


def test_scalar_functions(bare_acl):
    numbers = (-1, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 27, 29, 30, 33, 35, 38, 99)
    sizes = [0, 4, 2, 1, 4, 1, 2, 2, 4, 8, 8, 8, 1, 0, 8, 16, 2, 1, 1, 4, 1, 8, 8]
    assert [bare_acl.aclDataTypeSize(number) for number in numbers] == sizes
    halves = np.arange(65536, dtype=np.uint16)
    floats = halves.view(np.float16).astype(np.float32)
    for half, value in zip(halves[::97].tolist(), floats[::97].tolist(), strict=True):
        if np.isfinite(value):
            assert bare_acl.aclFloat16ToFloat(half) == value
            assert bare_acl.aclFloatToFloat16(value) == half
    assert bare_acl.aclFloat16ToFloat(0x7C00) == 65536.0
    assert bare_acl.aclFloat16ToFloat(0xFC00) == -65536.0
    assert bare_acl.aclFloat16ToFloat(0x7E00) == 98304.0
    assert bare_acl.aclFloatToFloat16(float("inf")) == 0x7BFF
    assert bare_acl.aclFloatToFloat16(float("-inf")) == 0xFBFF
    assert bare_acl.aclFloatToFloat16(float("nan")) == 0x7BFF
    values = np.random.default_rng(0).uniform(-65503, 65503, 500).astype(np.float32).tolist()
    for value in [*values, 1e-8, 6.1e-5, 3e-8, 65503.9]:
        expected = int(np.float32(value).astype(np.float16).view(np.uint16))
        assert bare_acl.aclFloatToFloat16(value) == expected


def test_profiling_and_dump_states(acl, tmp_path):
    folder = str(tmp_path).encode()
    assert acl.aclprofStart(None) == 100000
    assert acl.aclprofFinalize() == 100043
    devices = (ctypes.c_uint32 * 1)(0)
    config = acl.aclprofCreateConfig(devices, 1, 0, None, 0x3)
    assert acl.aclprofStart(config) == 100043
    acl.ok("aclprofInit", folder, len(folder))
    assert acl.aclprofInit(folder, len(folder)) == 100042
    acl.ok("aclprofStart", config)
    assert acl.aclprofStart(config) == 100042
    assert acl.aclprofFinalize() == 100042
    acl.ok("aclprofStop", config)
    acl.ok("aclprofDestroyConfig", config)
    stamp = acl.aclprofCreateStamp()
    acl.ok("aclprofSetStampTraceMessage", stamp, b"x", 1)
    acl.ok("aclprofPush", stamp)
    acl.ok("aclprofPop")
    acl.aclprofDestroyStamp(stamp)
    assert acl.aclprofPush(stamp) == 100000
    acl.ok("aclprofFinalize")
    assert acl.aclmdlSetDump(b"x") == 100045
    acl.ok("aclmdlInitDump")
    assert acl.aclmdlInitDump() == 100044
    assert acl.aclmdlSetDump(str(tmp_path / "none").encode()) == 100003
    acl.ok("aclmdlFinalizeDump")
    assert acl.aclmdlFinalizeDump() == 100045


def test_profiling_by_configuration_excludes_calls(bare_acl, tmp_path):
    path = tmp_path / "acl.json"
    path.write_text('{"profiler": {"switch": "on", "output": "FOLDER"}}'.replace("FOLDER", str(tmp_path)))
    bare_acl.ok("aclInit", str(path).encode())
    assert bare_acl.aclprofInit(str(tmp_path).encode(), len(str(tmp_path))) == 148047


def test_two_copies_are_two_machines(acl):
    other = Acl()
    assert other.aclrtSetDevice(0) == 100001
