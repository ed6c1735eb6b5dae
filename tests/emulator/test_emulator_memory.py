"""Memory, copies and registered memory on the emulator."""

from __future__ import annotations

import ctypes
import mmap
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from support import TESTS
from support.emulator_abi import D2D, D2H, DEFAULT, H2D, H2H, AclError, in_thread


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
            "from support.emulator_abi import Acl\n"
            "acl = Acl(); acl.ok('aclInit', None); acl.ok('aclrtSetDevice', 0); address = acl.malloc(4064)\n"
            "print('ready', flush=True)\n"
            f"access = {access!r}\n"
            "if access == 'write': ctypes.memset(address, 0, 1)\n"
            "if access == 'freed': acl.ok('aclrtFree', address)\n"
            "ctypes.string_at(address + (4096 if access == 'behind' else 0), 1)\n"
        )
        result = subprocess.run([sys.executable, "-c", code, str(TESTS)], capture_output=True, text=True, check=False)
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
        assert in_thread(lambda: (acl.aclrtFree(address), acl.aclrtFreeHost(host))) == (0, 0)

    def test_freed_memory_is_known_as_freed(self, acl):
        address = acl.malloc(64)
        acl.ok("aclrtFree", address)
        for _ in range(100):
            acl.ok("aclrtFree", acl.malloc(64))  # its address is not used again
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
        for what in (
            r"device 0 \(set 1 times",
            r"device memory of device 0 #1 \(100 bytes\)",
            r"pinned .*200 bytes",
            "data buffer#1",
            "stream#1",
        ):
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
        assert acl.aclrtMemcpy(device, 128, host.ctypes.data, 128, H2D) == 107000  # the padding does not belong to the program
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
