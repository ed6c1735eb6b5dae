"""AscendCL on the emulator: initialisation, devices, contexts, memory, copies, errors."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from emulator_abi import D2D, D2H, DEFAULT, H2D, H2H, SIGNATURES, Acl, AclError

from ais_bench.emulator import library_path
from ais_bench.emulator.library import _dynamic_strings

pytest_plugins = ("emulator_fixtures",)


def _in_thread(work):
    """Runs `work` in a thread without a context and returns its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_every_function_of_the_abi_is_exported_and_known():
    image = library_path().read_bytes()
    offset, size = _dynamic_strings(image)
    names = {name.decode() for name in image[offset : offset + size].split(b"\0")}
    assert {name for name in names if name.startswith("acl")} == set(SIGNATURES)
    assert not any(name.startswith("_ZN3ais") for name in names)  # two copies in a process share nothing


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

    def test_a_missing_configuration_and_another_one(self, bare_acl, tmp_path):
        assert bare_acl.aclInit(str(tmp_path / "none.json").encode()) == 100003
        bare_acl.ok("aclInit", None)
        path = tmp_path / "acl.json"
        path.write_text("{}")
        assert bare_acl.aclInit(str(path).encode()) == 100000

    def test_a_forked_child_is_refused(self, acl):
        pid = os.fork()
        if pid == 0:
            codes = [acl.aclrtSetDevice(0), acl.aclrtMalloc(ctypes.byref(ctypes.c_void_p()), 64, 0), acl.aclFinalize()]
            os._exit(0 if codes == [507000] * 3 and "forked" in (acl.text() or "") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert acl.malloc(64)  # and the parent goes on

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
        assert _in_thread(lambda: acl.aclrtMalloc(ctypes.byref(pointer), 64, 0)) == 107002
        assert _in_thread(lambda: (acl.aclrtSetCurrentContext(made), acl.aclrtMalloc(ctypes.byref(pointer), 64, 0))) == (0, 0)

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
        assert _in_thread(acl.text) is None
        assert acl.text().startswith("E100000: ACL_ERROR_INVALID_PARAM: ")
        assert acl.text() is None

    def test_process_wide_mode(self, bare_acl, tmp_path):
        path = tmp_path / "acl.json"
        path.write_text('{"err_msg_mode": "1"}')
        bare_acl.ok("aclInit", str(path).encode())
        bare_acl.aclrtFree(None)
        assert "NULL" in _in_thread(bare_acl.text)
        assert bare_acl.text() is None
        bare_acl.ok("aclFinalize")


class TestMemory:
    def test_addresses_sizes_and_accounting(self, acl):
        before = acl.emulator.memory_used(0)
        for size, charged in ((1, 64), (32, 64), (33, 96), (4096, 4128)):
            address = acl.malloc(size)
            assert address % 64 == 0
            assert acl.emulator.memory_used(0) - before == charged
            acl.ok("aclrtFree", address)
        address = acl.fill(ctypes.c_void_p, "aclrtMallocAlign32", 33, 0)
        assert acl.emulator.memory_used(0) - before == 64
        acl.ok("aclrtFree", address)
        assert acl.emulator.memory_used(0) == before

    @pytest.mark.parametrize("function", ["aclrtMalloc", "aclrtMallocAlign32", "aclrtMallocCached"])
    def test_bad_sizes(self, acl, function):
        pointer = ctypes.c_void_p()
        assert getattr(acl, function)(ctypes.byref(pointer), 0, 0) == 100000
        assert getattr(acl, function)(ctypes.byref(pointer), 2**64 - 1, 0) == 100000
        assert getattr(acl, function)(None, 64, 0) == 100000
        assert acl.aclrtMallocHost(ctypes.byref(pointer), 0) == 100000
        assert pointer.value is None

    def test_capacity(self, make_acl):
        acl = make_acl(memory_mb="1;1=2")
        acl.ok("aclrtSetDevice", 0)
        pointer = ctypes.c_void_p()
        assert acl.aclrtMalloc(ctypes.byref(pointer), 1 << 20, 0) == 207001  # the padding does not fit
        assert re.search(r"device 0 has no room for 1048576 bytes; 0 of 1048576", acl.text())
        first = acl.malloc(1 << 19)
        assert acl.aclrtMalloc(ctypes.byref(pointer), 1 << 19, 0) == 207001
        acl.ok("aclrtFree", first)
        acl.ok("aclrtFree", acl.malloc((1 << 20) - 64))
        acl.ok("aclrtSetDevice", 1)
        acl.ok("aclrtFree", acl.malloc(1 << 20))

    def test_contents_are_a_pattern_and_survive_copies(self, acl):
        address = acl.malloc(1000)
        assert set(acl.to_host(address, (1000,), np.uint8)) == {0xCD}
        array = np.arange(250, dtype=np.float32)
        acl.ok("aclrtMemcpy", address, 1000, array.ctypes.data, 1000, H2D)
        second = acl.malloc(1000)
        acl.ok("aclrtMemcpy", second, 1000, address, 1000, D2D)
        assert np.array_equal(acl.to_host(second, (250,)), array)
        assert np.array_equal(acl.to_host(second + 400, (150,)), array[100:])
        host = np.empty_like(array)
        acl.ok("aclrtMemcpy", host.ctypes.data, 1000, array.ctypes.data, 1000, H2H)
        assert np.array_equal(host, array)

    @pytest.mark.parametrize("access", ["read", "write", "freed", "behind"])
    def test_host_code_cannot_touch_it(self, access):
        code = (
            "import ctypes, sys; sys.path.insert(0, sys.argv[1])\n"
            "from emulator_abi import Acl\n"
            "acl = Acl(); acl.ok('aclInit', None); acl.ok('aclrtSetDevice', 0); address = acl.malloc(4064)\n"
            "print('ready', flush=True)\n"
            f"access = {access!r}\n"
            "if access == 'write': ctypes.memset(address, 0, 1)\n"
            "if access == 'freed': acl.ok('aclrtFree', address)\n"
            "ctypes.string_at(address + (4096 if access == 'behind' else 0), 1)\n"
        )
        result = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=False)
        assert result.stdout == "ready\n"
        assert result.returncode == -signal.SIGSEGV

    def test_what_cannot_be_freed(self, acl):
        address = acl.malloc(64)
        host = acl.malloc_host(64)
        array = np.zeros(64, np.uint8)
        assert acl.aclrtFree(None) == 100000
        assert acl.aclrtFree(address + 32) == 100000
        assert "not at its start" in acl.text()
        assert acl.aclrtFree(host) == 100000
        assert acl.aclrtFreeHost(address) == 100000
        assert acl.aclrtFree(array.ctypes.data) == 100000
        assert acl.acldvppFree(address) == 100000
        acl.ok("aclrtFree", address)
        assert acl.aclrtFree(address) == 100000
        assert "double free" in acl.text()
        acl.ok("aclrtFreeHost", host)
        assert acl.aclrtFreeHost(host) == 100000

    def test_free_needs_no_context(self, acl):
        address, host = acl.malloc(64), acl.malloc_host(64)
        assert _in_thread(lambda: (acl.aclrtFree(address), acl.aclrtFreeHost(host))) == (0, 0)

    def test_freed_memory_is_known_as_freed(self, acl):
        address = acl.malloc(64)
        acl.ok("aclrtFree", address)
        for _ in range(100):
            acl.ok("aclrtFree", acl.malloc(64))  # its address is not given to others
        with pytest.raises(AclError, match="use after free"):
            acl.to_host(address, (4,))

    def test_leaks_are_reported_at_finalise(self, bare_acl):
        bare_acl.ok("aclInit", None)
        bare_acl.ok("aclrtSetDevice", 0)
        bare_acl.malloc(100)
        bare_acl.malloc_host(200)
        bare_acl.aclCreateDataBuffer(None, 0)
        bare_acl.stream()
        bare_acl.ok("aclFinalize")
        report = "\n".join(bare_acl.emulator.report())
        assert bare_acl.emulator.leaks() == 5
        for what in (r"device 0 \(set 1 times", r"device memory of device 0 #1 \(100 bytes\)", r"pinned .*200 bytes", "data buffer#1", "stream#1"):
            assert re.search(what, report)
        assert bare_acl.emulator.living() == []

    def test_a_clean_program_leaves_no_report(self, bare_acl):
        bare_acl.ok("aclInit", None)
        bare_acl.ok("aclrtSetDevice", 0)
        bare_acl.ok("aclrtFree", bare_acl.malloc(100))
        bare_acl.ok("aclrtResetDevice", 0)
        bare_acl.ok("aclFinalize")
        assert bare_acl.emulator.report() == []

    def test_reset_frees_and_reports(self, acl):
        address = acl.malloc(64)
        acl.ok("aclrtResetDevice", 0)
        assert "reset of device 0" in acl.emulator.report()[0]
        assert acl.emulator.memory_used(0) == 0
        assert acl.aclrtFree(address) == 100000
        acl.emulator.clear_report()

    def test_media_memory(self, acl):
        address = acl.fill(ctypes.c_void_p, "acldvppMalloc", 64)
        acl.ok("aclrtMemset", address, 64, 7, 64)
        assert set(acl.to_host(address, (64,), np.uint8)) == {7}
        assert acl.aclrtFree(address) == 100000
        acl.ok("acldvppFree", address)

    def test_run_mode_device(self, make_acl):
        acl = make_acl(run_mode="device")
        acl.ok("aclrtSetDevice", 0)
        assert acl.fill(ctypes.c_int32, "aclrtGetRunMode") == 0
        address = acl.malloc(64)
        ctypes.memset(address, 5, 64)  # host and device memory are the same
        assert set(ctypes.string_at(address, 64)) == {5}
        acl.ok("aclrtFree", address)


class TestCopies:
    def test_argument_checks(self, acl):
        device = acl.malloc(64)
        host = np.zeros(64, np.uint8)
        at = host.ctypes.data
        assert acl.aclrtMemcpy(None, 64, at, 64, H2D) == 100000
        assert acl.aclrtMemcpy(device, 64, None, 64, H2D) == 100000
        assert acl.aclrtMemcpy(device, 32, at, 64, H2D) == 107000
        assert acl.aclrtMemcpy(device, 64, at, 64, 9) == 100000
        assert acl.aclrtMemcpy(device, 64, at, 0, H2D) == 0
        assert acl.aclrtMemcpy(device, 64, device, 64, D2D) == 0
        assert acl.aclrtMemcpy(device, 64, at, 64, DEFAULT) == 0

    @pytest.mark.parametrize(("kind", "right"), [(H2D, 0), (D2H, 107000), (D2D, 107000), (H2H, 107000)])
    def test_a_wrong_direction_is_an_error(self, acl, kind, right):
        device = acl.malloc(64)
        host = np.zeros(64, np.uint8)
        assert acl.aclrtMemcpy(device, 64, host.ctypes.data, 64, kind) == right

    def test_beyond_the_allocation(self, acl):
        device = acl.malloc(100)
        host = np.zeros(200, np.uint8)
        assert acl.aclrtMemcpy(device, 128, host.ctypes.data, 128, H2D) == 107000  # the padding is not the program's
        assert "beyond the end" in acl.text()
        assert acl.aclrtMemcpy(device + 50, 100, host.ctypes.data, 51, H2D) == 107000
        assert acl.aclrtMemcpy(device + 50, 100, host.ctypes.data, 50, H2D) == 0
        handle = acl.aclCreateDataBuffer(None, 0)
        assert acl.aclrtMemcpy(handle, 64, host.ctypes.data, 64, DEFAULT) == 107000
        acl.ok("aclDestroyDataBuffer", handle)

    def test_another_devices_memory(self, acl):
        first = acl.malloc(64)
        acl.ok("aclrtSetDevice", 1)
        second = acl.malloc(64)
        host = np.zeros(64, np.uint8)
        assert acl.aclrtMemcpy(first, 64, host.ctypes.data, 64, H2D) == 107000
        assert acl.aclrtMemcpy(second, 64, first, 64, D2D) == 107000
        can = ctypes.c_int32()
        acl.ok("aclrtDeviceCanAccessPeer", ctypes.byref(can), 1, 0)
        assert can.value == 1
        assert acl.aclrtDeviceEnablePeerAccess(0, 1) == 100000
        acl.ok("aclrtDeviceEnablePeerAccess", 0, 0)
        assert acl.aclrtMemcpy(second, 64, first, 64, D2D) == 0
        acl.ok("aclrtDeviceDisablePeerAccess", 0)
        assert acl.aclrtMemcpy(second, 64, first, 64, D2D) == 107000
        assert acl.aclrtDeviceDisablePeerAccess(0) == 107000
        acl.ok("aclrtResetDevice", 1)
        acl.emulator.clear_report()

    def test_two_dimensions(self, acl):
        host = np.arange(24, dtype=np.uint8).reshape(4, 6)
        device = acl.malloc(12)
        acl.ok("aclrtMemcpy2d", device, 3, host.ctypes.data, 6, 3, 4, H2D)
        assert np.array_equal(acl.to_host(device, (4, 3), np.uint8), host[:, :3])
        assert acl.aclrtMemcpy2d(device, 3, host.ctypes.data, 6, 4, 3, H2D) == 100000
        assert acl.aclrtMemcpy2d(device, 3, host.ctypes.data, 6, 3, 5, H2D) == 107000

    def test_memset(self, acl):
        device, pinned = acl.malloc(64), acl.malloc_host(64)
        acl.ok("aclrtMemset", device, 64, 1, 32)
        assert acl.to_host(device, (64,), np.uint8).tolist() == [1] * 32 + [0xCD] * 32
        acl.ok("aclrtMemset", pinned, 64, 2, 64)
        assert set(ctypes.string_at(pinned, 64)) == {2}
        host = np.zeros(64, np.uint8)
        assert acl.aclrtMemset(host.ctypes.data, 64, 0, 64) == 107000
        assert acl.aclrtMemset(device, 32, 0, 64) == 107000
        assert acl.aclrtMemset(None, 32, 0, 32) == 100000
        acl.ok("aclrtMemFlush", device, 64)
        assert acl.aclrtMemInvalidate(device, 65) == 107000
        acl.ok("aclrtFreeHost", pinned)


class TestRegisteredMemory:
    @pytest.fixture
    def pages(self):
        with mmap.mmap(-1, 8192) as area:
            buffer = (ctypes.c_char * 8192).from_buffer(area)
            yield ctypes.addressof(buffer)
            del buffer

    def test_pinned(self, acl, pages):
        acl.ok("aclrtHostRegisterV2", pages, 8192, 0x10000000)
        assert acl.aclrtHostRegisterV2(pages, 8192, 0x10000000) == 507910
        assert acl.aclrtHostRegisterV2(pages + 4096, 4096, 0x10000000) == 507910
        acl.ok("aclrtHostUnregister", pages)
        assert acl.aclrtHostUnregister(pages) == 507911
        assert acl.aclrtHostRegisterV2(pages, 8192, 0) == 100000
        assert acl.aclrtHostRegisterV2(pages + 8, 64, 0x10000000) == 107000
        assert acl.aclrtHostRegisterV2(None, 64, 0x10000000) == 100000
        pinned = acl.malloc_host(4096)
        assert acl.aclrtHostRegisterV2(pinned, 4096, 0x10000000) == 507910
        acl.ok("aclrtFreeHost", pinned)

    def test_memory_that_is_not_mapped(self, acl):
        area = mmap.mmap(-1, 4096)
        buffer = (ctypes.c_char * 4096).from_buffer(area)
        address = ctypes.addressof(buffer)
        del buffer
        area.close()
        assert acl.aclrtHostRegisterV2(address, 4096, 0x10000000) == 107000

    def test_the_devices_address_is_not_for_copies(self, acl, pages):
        mapped = ctypes.c_void_p()
        acl.ok("aclrtHostRegister", pages, 8192, 0, ctypes.byref(mapped))
        found = ctypes.c_void_p()
        acl.ok("aclrtHostGetDevicePointer", pages + 16, ctypes.byref(found), 0)
        assert found.value == mapped.value + 16
        device = acl.malloc(64)
        assert acl.aclrtMemcpy(device, 64, mapped, 64, DEFAULT) == 107000
        assert acl.aclrtMemcpy(device, 64, pages, 64, H2D) == 0
        acl.ok("aclrtHostUnregister", pages)
        assert acl.aclrtHostGetDevicePointer(pages, ctypes.byref(found), 0) == 507911

    def test_attributes_tell_them_apart(self, acl, pages):
        acl.ok("aclrtHostRegisterV2", pages, 8192, 0x10000000)
        acl.ok("aclrtSetDevice", 1)
        device, pinned = acl.malloc(64), acl.malloc_host(64)
        found = (ctypes.c_uint32 * 7)()

        def kind(address):
            acl.ok("aclrtPointerGetAttributes", address, found)
            return found[0], found[1]

        array = np.zeros(4)
        assert kind(device) == (1, 1)
        assert kind(device + 63) == (1, 1)
        assert kind(pinned)[1] == 0
        assert kind(pages)[1] == 0
        assert kind(array.ctypes.data) == (0, 2)
        acl.ok("aclrtHostUnregister", pages)
        acl.ok("aclrtFreeHost", pinned)
        acl.ok("aclrtResetDevice", 1)
        acl.emulator.clear_report()


def test_scalar_functions(bare_acl):
    sizes = {-1: 0, 0: 4, 1: 2, 2: 1, 3: 4, 4: 1, 6: 2, 7: 2, 8: 4, 9: 8, 10: 8, 11: 8, 12: 1, 13: 0, 16: 8, 17: 16, 27: 2, 29: 1, 30: 1, 33: 4, 35: 1, 38: 8, 99: 8}
    assert {dtype: bare_acl.aclDataTypeSize(dtype) for dtype in sizes} == sizes
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
    for value in np.random.default_rng(0).uniform(-65519, 65519, 500).astype(np.float32).tolist() + [1e-8, 6.1e-5, 3e-8, 65503.9]:
        expected = int(np.float32(value).astype(np.float16).view(np.uint16))
        if expected & 0x7C00 != 0x7C00:
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
    path.write_text('{"profiler": {"switch": "on", "output": "%s"}}' % tmp_path)
    bare_acl.ok("aclInit", str(path).encode())
    assert bare_acl.aclprofInit(str(tmp_path).encode(), len(str(tmp_path))) == 148047


def test_two_copies_are_two_machines(acl):
    other = Acl()
    assert other.aclrtSetDevice(0) == 100001
