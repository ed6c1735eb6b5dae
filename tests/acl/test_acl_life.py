"""The life of sessions on an NPU: the calls, their order and threads, and leaks after any failure."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import aclruntime
from ais_bench.emulator import Emulator
from ais_bench.errors import (
    AisBenchError,
    ConfigError,
    DeviceMemoryError,
    DeviceUnavailable,
    FeedError,
    SessionClosed,
)
from ais_bench.session import InferSession
from support.acl import Packed, assert_clean, equal, floats


def names(calls: list) -> list[str]:
    """Return the called functions, without the queries that describe a model."""
    quiet = re.compile(
        r"aclmdlGet|aclGet|aclrt[SG]etCurrentContext$|aclrtStreamQuery$|aclrtQuery|aclrtGetSocName$|aclrtGetDeviceCount"
    )
    return [call["call"] for call in calls if not quiet.match(call["call"])]


OPEN = ["aclInit", "aclrtSetDevice", "aclrtCreateContext", "aclmdlLoadFromFile", "aclmdlCreateDesc"]
EXECUTE = ["aclmdlExecuteAsync", "aclrtSynchronizeStream"]
DATASETS = [
    "aclmdlCreateDataset", *["aclCreateDataBuffer", "aclmdlAddDatasetBuffer"] * 2,
    "aclmdlCreateDataset", *["aclCreateDataBuffer", "aclmdlAddDatasetBuffer"],
]  # fmt: skip


def test_calls_of_a_static_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    npu.start_recording()
    session = InferSession(0, model.om)
    session.infer(model.case.feeds[0])
    session.infer(model.case.feeds[1])
    session.free_resource()
    InferSession.finalize()
    calls = npu.stop_recording()
    first = (
        ["aclrtMalloc", "aclrtMemcpy"] * 2
        + ["aclrtMalloc"]
        + ["aclUpdateDataBuffer"] * 3
        + ["aclrtCreateStream", *EXECUTE, "aclrtMemcpy"]
    )
    # Memory is kept, so the second run allocates nothing, but may get its blocks in another order.
    second = names(calls)[len(OPEN + DATASETS + first) :]
    second = second[: second.index(EXECUTE[0]) + 3]
    assert [name for name in second if name != "aclUpdateDataBuffer"] == ["aclrtMemcpy"] * 2 + [*EXECUTE, "aclrtMemcpy"]
    close = names(calls)[len(OPEN + DATASETS + first) + len(second) :]
    assert names(calls)[: len(OPEN + DATASETS + first)] == OPEN + DATASETS + first
    assert close == [
        "aclrtSynchronizeStream", "aclrtDestroyStream",
        *["aclmdlDestroyDataset", *["aclDestroyDataBuffer"]] , *["aclmdlDestroyDataset", *["aclDestroyDataBuffer"] * 2],
        "aclmdlDestroyDesc", "aclmdlUnload", *["aclrtFree"] * 3,
        "aclrtDestroyContext", "aclrtResetDevice", "aclFinalizeReference",
    ]  # fmt: skip


def test_calls_of_a_gear_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """The gear is set for the index buffer, before the execution, and only when it changes."""
    model = packed("batch")
    with InferSession(0, model.om) as session:
        npu.start_recording()
        for rows in (2, 2, 4):
            session.infer([floats(rows, 3)], "dymbatch")
        calls = npu.stop_recording()
    relevant = [call for call in calls if call["call"] in ("aclmdlSetDynamicBatchSize", "aclmdlExecuteAsync")]
    assert [(call["call"], call["args"][2:]) if "Set" in call["call"] else call["call"] for call in relevant] == [
        ("aclmdlSetDynamicBatchSize", [1, 2]), "aclmdlExecuteAsync", "aclmdlExecuteAsync",
        ("aclmdlSetDynamicBatchSize", [1, 4]), "aclmdlExecuteAsync",
    ]  # fmt: skip


def test_calls_of_a_dynamic_shape_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """A shape is set when it changes, and its description is destroyed at once: the dataset has a copy.

    The library allocates the output of the first run, and of the second attempt of the third run, which is larger than
    expected.
    """
    model = packed("shape")
    with InferSession(0, model.om) as session:
        npu.start_recording()
        for rows in (2, 2, 4):
            session.infer([floats(rows, 3)], "dymshape", custom_sizes=None)
        calls = [name for name in names(npu.stop_recording()) if "Desc" in name or name.startswith("aclmdlExecute")]
    set_shape = ["aclCreateTensorDesc", "aclmdlSetDatasetTensorDesc", "aclDestroyTensorDesc"]
    assert calls == [
        *set_shape, "aclmdlExecute", "aclmdlExecuteAsync", *set_shape, "aclmdlExecuteAsync", "aclmdlExecute"
    ]  # fmt: skip


def test_calls_of_a_pipeline(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """Copies and execution are on three streams, connected by events. The only wait is for a run's last event."""
    model = packed("static")
    with InferSession(0, model.om) as session:
        npu.start_recording()
        session.infer_pipeline(model.case.feeds)
        calls = npu.stop_recording()
    streams: dict[str, set[str]] = {}
    for call in calls:
        if call["call"] == "aclrtMemcpyAsync":
            streams.setdefault(f"copy {call['args'][4]}", set()).add(call["args"][5])
        elif call["call"] == "aclmdlExecuteAsync":
            streams.setdefault("execute", set()).add(call["args"][3])
    assert sorted(streams) == ["copy 1", "copy 2", "execute"]
    assert len(set.union(*streams.values())) == 3
    assert all(len(stream) == 1 for stream in streams.values())
    order = [call["call"] for call in calls if call["call"] in ("aclmdlExecuteAsync", "aclrtSynchronizeEvent")]
    assert order == ["aclmdlExecuteAsync"] * 3 + ["aclrtSynchronizeEvent"] * 3 * 7  # its end, and each event for its times
    assert "aclrtSynchronizeStream" not in {call["call"] for call in calls}


def test_nothing_is_initialised_before_a_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    npu.start_recording()
    with InferSession(0, packed("static").onnx) as session:
        session.infer([floats(1, 4), floats(1, 4)])
    assert npu.stop_recording() == []


def test_every_thread_may_use_a_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """AscendCL's current context belongs to a thread, and a model runs only once at a time."""
    model = packed("batch")
    with InferSession(0, model.om) as one, InferSession(1, model.om) as two, ThreadPoolExecutor(6) as threads:

        def run(index: int) -> None:
            session = (one, two)[index % 2]
            feeds = [floats((1, 2, 4)[index % 3], 3)]
            weights = np.arange(12, dtype=np.float32).reshape(3, 4)
            if index % 5 == 0:
                for outputs in session.infer_pipeline([feeds] * 3, "dymbatch"):
                    equal(outputs, [feeds[0] @ weights])
            equal(session.infer(feeds, "dymbatch"), [feeds[0] @ weights])

        for future in [threads.submit(run, index) for index in range(120)]:
            future.result()


def test_a_session_made_in_one_thread_is_freed_in_another(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    sessions: list[InferSession] = []
    maker = threading.Thread(target=lambda: sessions.append(InferSession(0, packed("static").om)))
    maker.start()
    maker.join()
    equal(sessions[0].infer([np.ones((1, 4), np.float32)] * 2), [np.full((1, 4), 2, np.float32)])
    freer = threading.Thread(target=sessions.pop().free_resource)
    freer.start()
    freer.join()


def test_after_free_resource_nothing_is_left(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    session = InferSession(0, packed("batch").om)
    session.infer([floats(4, 3)], "dymbatch")
    session.infer_pipeline([[floats(4, 3)]] * 5, "dymbatch")
    assert npu.living()
    session.free_resource()
    assert_clean(npu)
    assert npu.memory_used(0) == 0
    session.free_resource()
    with pytest.raises(SessionClosed):
        session.infer([floats(4, 3)], "dymbatch")


def test_a_tensor_outlives_its_session(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    session = InferSession(0, packed("static").om)
    (tensor,) = session.infer([np.ones((1, 4), np.float32)] * 2, out_array=False)
    session.free_resource()
    tensor.to_host()
    np.testing.assert_array_equal(np.array(tensor), np.full((1, 4), 2, np.float32))


def test_an_array_over_a_tensor_outlives_the_move_to_a_device(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    values = np.arange(1 << 20, dtype=np.float32)  # large enough that freed memory is unmapped
    with InferSession(0, packed("static").om):
        tensor = aclruntime.Tensor(values)
        view = np.asarray(tensor)
        tensor.to_device(0)
        assert tensor.device == 0
        assert np.array_equal(view, values)


def test_finalize_frees_everything_and_can_be_repeated(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    session = InferSession(0, model.om)
    (tensor,) = session.infer(model.case.feeds[0], out_array=False)
    session.first_inner_run(model.case.feeds[0])
    session.infer_pipeline(model.case.feeds)
    InferSession.finalize()
    assert_clean(npu)
    InferSession.finalize()
    with pytest.raises(SessionClosed):
        tensor.to_host()
    with pytest.raises(SessionClosed):
        session.infer(model.case.feeds[0])
    with pytest.raises(SessionClosed):
        session.inner_run([0, -1])
    with InferSession(0, model.om) as again:
        assert len(again.infer(model.case.feeds[0])) == 1


def test_a_forked_child_is_told(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    with InferSession(0, model.om) as session:
        (tensor,) = session.infer(model.case.feeds[0], out_array=False)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            told = []
            for use in (
                lambda: session.infer(model.case.feeds[0]),
                lambda: InferSession(0, model.om),
                tensor.to_host,
                lambda: session.infer_pipeline(model.case.feeds),
            ):
                try:
                    use()
                except SessionClosed as error:
                    told.append(str(error))
            InferSession.finalize()
            session.free_resource()
            os.write(writer, "\n".join(told).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read().splitlines()
        assert os.waitpid(child, 0)[1] == 0
        assert len(told) == 4
        assert all("forked from" in text for text in told)
        session.infer(model.case.feeds[0])


def test_a_device_that_is_not_there(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with pytest.raises(DeviceUnavailable, match=r"NPU device 8 does not exist; this process sees 8 NPUs: devices 0 to 7"):
        InferSession(8, packed("static").om)


def test_an_unknown_option_is_named(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'threads' for a model on an NPU; use 'acl_json_path'"):
        InferSession(0, packed("static").om, threads=2)


@pytest.mark.parametrize("function", ["aclrtMalloc", "aclmdlLoadFromFile", "aclrtMallocHost"])
def test_out_of_memory(npu: Emulator, packed: Callable[[str], Packed], function: str) -> None:
    """Loads and runs raise the error for it. Without memory for a pipeline, runs are made one by one."""
    model = packed("batch")

    def use() -> list[list[np.ndarray]]:
        with InferSession(0, model.om) as session:
            session.infer([floats(4, 3)], "dymbatch")
            return session.infer_pipeline([[np.ones((1, 3), np.float32)]] * 3, "dymbatch")

    npu.set_faults(f"{function}=oom")
    if function == "aclrtMallocHost":
        assert len(use()) == 3
    else:
        with pytest.raises(DeviceMemoryError, match="207001"):
            use()
    assert npu.faults_fired() > 0
    npu.set_faults()
    assert len(use()) == 3


def scenario(model: Packed, hint: int | None) -> list[list[np.ndarray]]:
    """Make every kind of run, with a hint of the outputs' size. Return the results of every run."""
    feeds, mode = model.case.feeds, model.case.mode
    results = []
    try:
        session = InferSession(0, model.om)
        try:
            results += [session.infer(feeds[0], mode, hint), session.infer(feeds[1], mode, hint)]
            results += session.infer_pipeline(feeds[:3], mode, hint)
            tensors = session.infer(feeds[0], mode, hint, out_array=False)
            session.convert_tensors_to_host(tensors)
            results.append(session.convert_tensors_to_arrays(tensors))
        finally:
            session.free_resource()
    finally:
        InferSession.finalize()
    return results


@pytest.mark.parametrize(
    ("name", "hint"),
    [("static", None), ("batch", None), ("shape", None), ("shape", 16), ("shape", 100000), ("result of unknown size", None)],
)
@pytest.mark.filterwarnings("ignore::ais_bench.errors.TimesWarning")
def test_failing_each_call_at_each_occurrence(
    npu: Emulator, npu_report: Path, packed: Callable[[str], Packed], name: str, hint: int | None
) -> None:
    """After any failure there is a clear error or the right result, no leak, and the next session works.

    If a destroy call fails, its object is left: the call is not repeated, because the handle may be invalid.
    """
    reported = npu_report.stat().st_size
    model = packed(name)
    wanted = scenario(model, hint)
    npu.start_recording()
    scenario(model, hint)
    cannot_fail = {"aclGetRecentErrMsg", "aclDestroyTensorDesc"}  # one queries failures, the other returns nothing
    functions = sorted({call["call"] for call in npu.stop_recording()} - cannot_fail)
    assert len(functions) > 30
    fired = 0
    for function in functions:
        for occurrence in range(1, 1000):
            npu.set_faults(f"{function}:{occurrence}=500000")
            what = f"{function}, call {occurrence}"
            complaint, results = "", wanted
            try:
                results = scenario(model, hint)
            except AisBenchError as error:
                complaint = str(error)
            assert not complaint or any(word in complaint for word in ("500000", function, "AscendCL", "ACL_ERROR")), (
                f"{what}: {complaint}"
            )
            for got, want in zip(results, wanted, strict=True):
                equal(got, want)
            hit = npu.faults_fired()
            npu.set_faults()
            InferSession.finalize()
            assert npu.living() == [], what
            if hit and re.search("Destroy|Unload|Free|Reset", function):
                assert all(line.startswith("leak at ") for line in npu.report()), what
                npu.clear_report()
                os.truncate(npu_report, reported)
            assert npu.report() == [], what
            if not hit:
                break
            fired += 1
    assert fired > 100
    for got, want in zip(scenario(model, hint), wanted, strict=True):
        equal(got, want)


def test_a_failed_run_of_a_pipeline_fails_alone(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """The streams drop later work, which is started again."""
    model = packed("static")
    with InferSession(0, model.om) as session:
        session.infer_pipeline(model.case.feeds)
        npu.set_faults("device.execute:3=500002")
        with pytest.raises(AisBenchError, match="500002"):
            session.infer_pipeline(model.case.feeds * 3)
        assert npu.faults_fired() == 1
        for feeds, outputs in zip(model.case.feeds * 3, session.infer_pipeline(model.case.feeds * 3), strict=True):
            equal(outputs, session.infer(feeds))


def test_a_tensor_of_another_runtime_on_a_device_of_the_same_number(
    npu: Emulator, packed: Callable[[str], Packed], onnx_model: Callable[[str], str]
) -> None:
    """Device 0 of one runtime is not device 0 of another one: its addresses are invalid there."""
    on_npu = packed("static")
    feeds = on_npu.case.feeds[0]
    with InferSession(0, on_npu.om) as session, InferSession(0, onnx_model("batch")) as on_cpu:
        own = session.create_tensor_from_arrays_to_device(feeds)  # although the session on the CPU is newer
        equal(session.infer(own), session.infer(feeds))
        others = on_cpu.create_tensor_from_arrays_to_device(feeds)
        with pytest.raises(FeedError, match=r"must be on .* device 0 of runtime 'acl', got .* device 0 of runtime 'ort'"):
            session.infer(others)
        session.convert_tensors_to_host(others)
        equal(session.infer(others), session.infer(feeds))
