"""Streams, events, asynchronous copies and executions, and the emulator's clock."""

from __future__ import annotations

import ctypes
import mmap
import threading

import numpy as np
import pytest

from ais_bench.emulator import pack
from support import emulator_models as models
from support.emulator_abi import D2H, H2D, H2H, Dataset

HELD = "device.copy=delay(60000)"  # until the rules are replaced


def _done(acl, stream) -> bool:
    status = ctypes.c_int32()
    acl.ok("aclrtStreamQuery", stream, ctypes.byref(status))
    return status.value == 0


def _reached(acl, event) -> bool:
    old, new = ctypes.c_int32(), ctypes.c_int32()
    acl.ok("aclrtQueryEvent", event, ctypes.byref(old))
    acl.ok("aclrtQueryEventStatus", event, ctypes.byref(new))
    assert (old.value == 0) == (new.value == 1)  # the two count the other way round
    return new.value == 1


def _elapsed(acl, start, end) -> float:
    time = ctypes.c_float()
    acl.ok("aclrtEventElapsedTime", ctypes.byref(time), start, end)
    return time.value


def _first_below(most_ms: float, measure) -> float:
    """Return the first time that is below, of ten: a busy host may be later than the device for a moment."""
    for _ in range(10):
        if (time := measure()) < most_ms:
            break
    return time


def test_life_of_a_stream(acl):
    stream = acl.stream()
    assert acl.aclrtDestroyStream(None) == 100000
    acl.ok("aclrtDestroyStream", stream)
    assert acl.aclrtDestroyStream(stream) == 107017
    assert acl.aclrtSynchronizeStream(stream) == 107017
    pointer = ctypes.c_void_p()
    assert acl.aclrtCreateStreamWithConfig(ctypes.byref(pointer), 0, 0x3) == 0
    assert acl.aclrtCreateStreamWithConfig(ctypes.byref(pointer), 0, 0x1000) == 100000
    assert acl.aclrtCreateStream(None) == 100000
    number = ctypes.c_int32(-1)
    acl.ok("aclrtStreamGetId", pointer := acl.stream(), ctypes.byref(number))
    assert number.value >= 0
    acl.ok("aclrtSynchronizeStream", None)  # the default stream
    acl.ok("aclrtSynchronizeDevice")


def test_a_stream_belongs_to_its_context(acl):
    stream = acl.stream()
    device = acl.malloc(64)
    other = acl.context(0)
    assert acl.aclrtSynchronizeStream(stream) == 107003
    assert acl.aclrtMemsetAsync(device, 64, 0, 64, stream) == 107003
    acl.ok("aclrtDestroyContext", other)
    assert acl.aclrtDestroyStream(stream) == 107002


def test_pinned_copies_run_behind_and_pageable_ones_do_not(acl):
    stream, device, pinned = acl.stream(), acl.malloc(64), acl.malloc_host(64)
    host = np.zeros(64, np.uint8)
    acl.emulator.set_faults(HELD)
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    assert not _done(acl, stream)
    acl.emulator.set_faults("device.copy=delay(100)")
    acl.ok("aclrtMemcpyAsync", device, 64, host.ctypes.data, 64, H2D, stream)
    assert _done(acl, stream)  # and the work before it
    with mmap.mmap(-1, 4096) as area:
        pages = (ctypes.c_char * 4096).from_buffer(area)
        acl.ok("aclrtHostRegisterV2", ctypes.addressof(pages), 4096, 0x10000000)
        acl.emulator.set_faults(HELD)
        acl.ok("aclrtMemcpyAsync", device, 64, ctypes.addressof(pages), 64, H2D, stream)
        assert not _done(acl, stream)
        acl.emulator.set_faults()
        acl.ok("aclrtSynchronizeStream", stream)
        acl.ok("aclrtHostUnregister", ctypes.addressof(pages))
        del pages
    assert acl.aclrtMemcpyAsync(pinned, 64, host.ctypes.data, 64, H2H, stream) == 207000
    acl.ok("aclrtFreeHost", pinned)


def test_work_is_in_order_and_the_results_are_right(acl, static_om):
    model, stream = acl.load(static_om), acl.stream()
    inputs, outputs = Dataset(acl, [16, 16]), Dataset(acl, [16])
    source, target = acl.malloc_host(32), acl.malloc_host(16)
    np.ctypeslib.as_array((ctypes.c_float * 8).from_address(source))[:] = range(8)
    for index in (0, 1):
        acl.ok("aclrtMemcpyAsync", inputs.addresses[index], 16, source + 16 * index, 16, H2D, stream)
    acl.ok("aclmdlExecuteAsync", model.id, inputs.handle, outputs.handle, stream)
    acl.ok("aclrtMemcpyAsync", target, 16, outputs.addresses[0], 16, D2H, stream)
    acl.ok("aclrtSynchronizeStream", stream)
    assert list((ctypes.c_float * 4).from_address(target)) == [4, 6, 8, 10]
    acl.ok("aclrtDestroyStream", stream)
    for address in (source, target):
        acl.ok("aclrtFreeHost", address)


def test_asynchronous_executions_do_not_allocate(acl, static_om):
    model = acl.load(static_om)
    inputs, outputs = Dataset(acl, [16, 16]), Dataset(acl, [(None, 0)])
    assert acl.aclmdlExecuteAsync(model.id, inputs.handle, outputs.handle, None) == 100000
    assert acl.aclmdlExecuteV2(model.id, inputs.handle, outputs.handle, None, None) == 0
    acl.ok("aclrtFree", acl.aclGetDataBufferAddr(outputs.buffers[0]))


def test_events(acl):
    stream, other, event = acl.stream(), acl.stream(), acl.event()
    device, pinned = acl.malloc(64), acl.malloc_host(64)
    assert not _reached(acl, event)
    assert acl.aclrtSynchronizeEvent(event) == 107000  # the wait would not end
    assert acl.aclrtStreamWaitEvent(other, event) == 107000
    acl.emulator.set_faults(HELD)
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtRecordEvent", event, stream)
    acl.ok("aclrtStreamWaitEvent", other, event)
    acl.ok("aclrtMemsetAsync", device, 64, 9, 64, other)
    assert not _reached(acl, event)
    assert not _done(acl, other)
    assert acl.aclrtSynchronizeEventWithTimeout(event, 1) == 507047
    acl.emulator.set_faults()
    acl.ok("aclrtSynchronizeEvent", event)
    assert _reached(acl, event)
    acl.ok("aclrtSynchronizeStream", other)
    assert set(acl.to_host(device, (64,), np.uint8)) == {9}
    acl.ok("aclrtDestroyEvent", event)
    assert acl.aclrtDestroyEvent(event) == 107017
    assert acl.aclrtRecordEvent(event, stream) == 107017
    acl.ok("aclrtFreeHost", pinned)


def test_times_of_events(make_acl, static_om):
    acl = make_acl(exec_ms="40")
    acl.ok("aclrtSetDevice", 0)
    model, stream = acl.load(static_om), acl.stream()
    inputs, outputs = Dataset(acl, [16, 16]), Dataset(acl, [16])
    start, end, untimed = acl.event(), acl.event(), ctypes.c_void_p()
    time = ctypes.c_float()

    def three_executions() -> float:
        acl.ok("aclrtRecordEvent", start, stream)
        for _ in range(3):  # in flight more than once, on one stream
            acl.ok("aclmdlExecuteAsync", model.id, inputs.handle, outputs.handle, stream)
        acl.ok("aclrtRecordEvent", end, stream)
        assert acl.aclrtEventElapsedTime(ctypes.byref(time), start, end) == 107006
        acl.ok("aclrtSynchronizeEvent", end)
        acl.ok("aclrtSynchronizeEvent", start)
        return _elapsed(acl, start, end)

    # By the device's clock. It waits only for a host that is later than the time of an execution.
    assert _first_below(140, three_executions) >= 119.9
    assert acl.aclrtEventElapsedTime(ctypes.byref(time), end, start) == 107007
    acl.ok("aclrtCreateEventWithFlag", ctypes.byref(untimed), 0x1)
    acl.ok("aclrtRecordEvent", untimed, stream)
    acl.ok("aclrtSynchronizeEvent", untimed)
    assert acl.aclrtEventElapsedTime(ctypes.byref(time), start, untimed) == 107006
    assert acl.aclrtCreateEventWithFlag(ctypes.byref(untimed), 0) == 100000


def test_copies_overlap_executions_and_not_each_other(make_acl, tmp_path):
    """By the device's clock, two copies on two streams run one after the other; a copy and an execution overlap."""
    acl = make_acl(exec_ms="100", copy_gbps="0.01")
    acl.ok("aclrtSetDevice", 0)
    model = acl.load(pack(models.add(tmp_path), tmp_path / "m.om"))
    inputs, outputs = Dataset(acl, [16, 16]), Dataset(acl, [16])
    streams = [acl.stream() for _ in range(3)]
    device, pinned = acl.malloc(1_000_000), acl.malloc_host(1_000_000)
    events = [[acl.event(), acl.event()] for _ in streams]
    times: list[float] = []

    def two_copies_and_an_execution() -> float:
        for stream, (start, _) in zip(streams, events, strict=True):
            acl.ok("aclrtRecordEvent", start, stream)
        acl.ok("aclrtMemcpyAsync", device, 1_000_000, pinned, 1_000_000, H2D, streams[0])
        acl.ok("aclrtMemcpyAsync", device, 1_000_000, pinned, 1_000_000, H2D, streams[1])
        acl.ok("aclmdlExecuteAsync", model.id, inputs.handle, outputs.handle, streams[2])
        for stream, (_, end) in zip(streams, events, strict=True):
            acl.ok("aclrtRecordEvent", end, stream)
        acl.ok("aclrtSynchronizeDevice")
        times[:] = [_elapsed(acl, *pair) for pair in events]
        return sum(times)

    _first_below(440, two_copies_and_an_execution)  # 100 + 200 + 100
    assert sorted(times[:2]) == pytest.approx([100, 200], abs=40)
    assert times[2] == pytest.approx(100, abs=40)
    acl.ok("aclrtFreeHost", pinned)


def test_timeouts(acl, static_om):
    model, stream = acl.load(static_om), acl.stream()
    inputs, outputs = Dataset(acl, [16, 16]), Dataset(acl, [16])
    config = acl.aclmdlCreateExecConfigHandle()
    timeout = ctypes.c_int32(20)
    acl.ok("aclmdlSetExecConfigOpt", config, 0, ctypes.byref(timeout), 4)
    assert acl.aclmdlSetExecConfigOpt(config, 0, ctypes.byref(timeout), 8) == 100000
    assert acl.aclmdlSetExecConfigOpt(config, 99, ctypes.byref(timeout), 4) == 100000
    assert acl.aclmdlExecuteV2(model.id, inputs.handle, outputs.handle, stream, config) == 0
    acl.emulator.set_faults("device.execute=hang")
    assert acl.aclmdlExecuteV2(model.id, inputs.handle, outputs.handle, stream, config) == 507046
    assert acl.aclrtSynchronizeStreamWithTimeout(stream, 10) == 507046
    assert acl.aclrtSynchronizeDeviceWithTimeout(10) == 507046
    assert acl.aclrtSynchronizeStreamWithTimeout(stream, -2) == 100000
    acl.emulator.set_faults()
    acl.ok("aclrtDestroyStreamForce", stream)  # ends a hang
    acl.ok("aclmdlDestroyExecConfigHandle", config)
    assert acl.aclmdlExecuteAsyncV2(model.id, inputs.handle, outputs.handle, None, config) in (100000, 507014)


def test_abort(acl):
    stream, device, pinned = acl.stream(), acl.malloc(64), acl.malloc_host(64)
    acl.emulator.set_faults("device.copy:1=hang")
    for _ in range(2):
        acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtStreamAbort", stream)
    assert acl.aclrtSynchronizeStream(stream) == 0
    acl.ok("aclrtFreeHost", pinned)


def test_a_failure_comes_with_the_synchronisation(acl):
    stream, event = acl.stream(), acl.event()
    device, pinned = acl.malloc(64), acl.malloc_host(64)
    acl.ok("aclrtMemset", device, 64, 1, 64)
    acl.emulator.set_faults("device.copy:1=500001")
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtMemsetAsync", device, 64, 2, 64, stream)  # dropped
    acl.ok("aclrtRecordEvent", event, stream)
    assert acl.aclrtSynchronizeEvent(event) == 507000
    assert acl.aclrtSynchronizeStream(stream) == 500001
    assert "device.copy:1=500001" in acl.text()
    assert set(acl.to_host(device, (64,), np.uint8)) == {1}
    assert acl.aclrtSynchronizeStream(stream) == 0  # reported once; the stream stays usable
    acl.ok("aclrtMemsetAsync", device, 64, 3, 64, stream)
    acl.ok("aclrtSynchronizeStream", stream)
    assert set(acl.to_host(device, (64,), np.uint8)) == {3}
    acl.ok("aclrtFreeHost", pinned)


def test_a_device_exception_on_a_stream_tells_its_cause_first(acl, static_om):
    model, stream = acl.load(static_om), acl.stream()
    host = np.ones(4, np.float32)
    feeds, results = Dataset(acl, [16, (host.ctypes.data, 16)]), Dataset(acl, [16])
    acl.ok("aclmdlExecuteAsync", model.id, feeds.handle, results.handle, stream)
    assert acl.aclrtSynchronizeStream(stream) == 507011
    assert "input 1 ('b') is host memory" in acl.text()
    assert acl.aclrtSynchronizeStream(stream) == 507011
    assert "reset the device" in acl.text()
    acl.ok("aclrtDestroyStream", stream)
    acl.ok("aclmdlUnload", model.id)


def test_memory_freed_under_a_task(acl):
    stream, device, pinned = acl.stream(), acl.malloc(64), acl.malloc_host(64)
    acl.emulator.set_faults(HELD)
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtMemcpyAsync", device, 64, pinned, 64, H2D, stream)
    acl.ok("aclrtFree", device)  # at once, like the real library
    acl.emulator.set_faults()
    assert acl.aclrtSynchronizeStream(stream) == 507053
    assert any("freed while a stream's work still uses it" in line for line in acl.emulator.report())
    acl.emulator.clear_report()
    acl.ok("aclrtFreeHost", pinned)


@pytest.mark.parametrize("change", ["destroy dataset", "destroy buffer", "update buffer", "unload", "destroy stream"])
def test_changes_under_an_execution_are_noted(make_acl, static_om, change):
    # Only the destruction of the stream waits for the execution, so it cannot be held until then.
    acl = make_acl(faults=f"device.execute=delay({600 if change == 'destroy stream' else 60000})")
    acl.ok("aclrtSetDevice", 0)
    model, stream = acl.load(static_om), acl.stream()
    inputs, outputs = Dataset(acl, [np.ones(4, np.float32)] * 2), Dataset(acl, [16])
    acl.ok("aclmdlExecuteAsync", model.id, inputs.handle, outputs.handle, stream)
    if change == "destroy dataset":
        acl.ok("aclmdlDestroyDataset", inputs.handle)
    elif change == "destroy buffer":
        acl.ok("aclDestroyDataBuffer", outputs.buffers[0])
    elif change == "update buffer":
        acl.ok("aclUpdateDataBuffer", inputs.buffers[0], inputs.addresses[1], 16)
    elif change == "unload":
        acl.ok("aclmdlUnload", model.id)
    else:
        acl.ok("aclrtDestroyStream", stream)
    assert acl.emulator.violations() == 1
    acl.emulator.set_faults()
    if change != "destroy stream":
        acl.ok("aclrtSynchronizeStream", stream)
    assert acl.to_host(outputs.addresses[0], (4,)).tolist() == [2] * 4


def test_streams_of_many_threads(acl):
    """Eight threads copy, set and free on their own streams. Every result is right, and nothing leaks."""
    context = acl.fill(ctypes.c_void_p, "aclrtGetCurrentContext")
    failures = []

    def work(number: int) -> None:
        try:
            acl.ok("aclrtSetCurrentContext", context)
            stream = acl.stream()
            for turn in range(50):
                value = (number * 50 + turn) % 256
                device, pinned = acl.malloc(512), acl.malloc_host(512)
                acl.ok("aclrtMemsetAsync", device, 512, value, 512, stream)
                acl.ok("aclrtMemcpyAsync", pinned, 512, device, 512, D2H, stream)
                acl.ok("aclrtSynchronizeStream", stream)
                assert ctypes.string_at(pinned, 512) == bytes([value]) * 512
                acl.ok("aclrtFree", device)
                acl.ok("aclrtFreeHost", pinned)
            acl.ok("aclrtDestroyStream", stream)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert acl.emulator.living() == []
