"""Outputs whose size is known only after a run: hints, learned sizes, and concurrent runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from ais_bench.emulator import Emulator, npus, pack
from ais_bench.errors import InferenceError
from ais_bench.session import InferSession, MultiDeviceSession
from support.acl import Packed, equal, floats

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def rows(*counts: int) -> list[list[np.ndarray]]:
    return [[floats(count, 3)] for count in counts]


def executions(npu: Emulator) -> tuple[int, int]:
    """Return the numbers of executions by aclmdlExecute, and on a stream."""
    return npu.call_count("aclmdlExecute"), npu.call_count("aclmdlExecuteAsync")


def since(npu: Emulator, before: tuple[int, int]) -> tuple[int, int]:
    now = executions(npu)
    return now[0] - before[0], now[1] - before[1]


def output_memory(npu: Emulator, run: Callable[[], object]) -> list[int]:
    """Return the sizes of device memory that the program allocated during `run`, in bytes."""
    npu.start_recording()
    run()
    return [int(call["args"][1]) for call in npu.stop_recording() if call["call"] == "aclrtMalloc"]


def test_a_hint_is_the_first_run_s_memory(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """With a hint the first run has memory, and the library allocates none; without a hint it does."""
    with InferSession(0, packed("shape").om) as session:
        before = executions(npu)
        (feeds,) = rows(5)
        sizes = output_memory(npu, lambda: equal(session.infer(feeds, "dymshape", custom_sizes=4096), [feeds[0] @ WEIGHTS]))
        assert 4096 in sizes
        assert since(npu, before) == (0, 1)
    with InferSession(0, packed("shape").om) as session:
        before = executions(npu)
        equal(session.infer(feeds, "dymshape", custom_sizes=None), [feeds[0] @ WEIGHTS])
        assert since(npu, before) == (1, 0)
        equal(session.infer(feeds, "dymshape", custom_sizes=None), [feeds[0] @ WEIGHTS])
        assert since(npu, before) == (1, 1)  # learned


@pytest.mark.parametrize("hint", [1, 16, [16], np.int64(20), 0, None, [], 10**9, 10**18, -5])
def test_a_wrong_hint_limits_nothing(npu: Emulator, packed: Callable[[str], Packed], hint: object) -> None:
    """If it is too small, the model runs again. If it is absurd, it is ignored, and no such size is allocated."""
    with InferSession(0, packed("shape").om) as session:
        for feeds in rows(7, 500, 1):
            sizes = output_memory(npu, lambda: equal(session.infer(feeds, "dymshape", hint), [feeds[0] @ WEIGHTS]))  # noqa: B023
            assert max(sizes, default=0) < 1 << 20
        for feeds, outputs in zip(rows(3), session.infer_pipeline(rows(3), "dymshape", hint), strict=True):
            assert outputs[0].shape == (len(feeds[0]), 4)


def test_a_hint_without_memory_for_it_is_forgotten(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("shape").om) as session:
        (feeds,) = rows(2)
        session.infer(feeds, "dymshape", None)
        session.free_resource()
    with InferSession(0, packed("shape").om) as session:
        npu.set_faults("aclrtMalloc:2-3=oom")  # the input's memory, then the output's, twice
        equal(session.infer(feeds, "dymshape", custom_sizes=1 << 20), [feeds[0] @ WEIGHTS])
        assert npu.faults_fired() == 2


def test_the_low_level_hint(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("shape").om) as session:
        session.set_dynamic_shape("x:6,3")
        session.set_custom_outsize([8192])
        (feeds,) = rows(6)
        before = executions(npu)
        assert 8192 in output_memory(npu, lambda: equal(session.run(feeds, out_array=True), [feeds[0] @ WEIGHTS]))
        assert since(npu, before) == (0, 1)
        session.session.set_custom_outsize([1])


def test_a_pipeline_with_a_hint_is_under_way_from_the_first_run(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("shape").om) as session:
        before = executions(npu)
        feeds = rows(*range(1, 20))
        for one, outputs in zip(feeds, session.infer_pipeline(feeds, "dymshape", 4096), strict=True):
            equal(outputs, [one[0] @ WEIGHTS])
        assert since(npu, before) == (0, len(feeds))


def test_a_pipeline_grows_and_keeps_the_order(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """Runs with too little memory are repeated one by one, while the others continue."""
    with InferSession(0, packed("shape").om) as session:
        before = executions(npu)
        feeds = rows(1, 2, 1, 400, 3, 5, 2000, 1, 1, 300, 4000, 7)
        for one, outputs in zip(feeds, session.infer_pipeline(feeds, "dymshape", 16), strict=True):
            equal(outputs, [one[0] @ WEIGHTS])
        in_turn, under_way = since(npu, before)
        assert 2 <= in_turn <= 6  # the runs of 2, 400, 2000 and 4000 rows, as far as no other had taught their size before
        assert under_way >= len(feeds)


def test_only_the_result_s_bytes_come_back(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("shape").om) as session:
        session.infer_pipeline(rows(100), "dymshape", 1 << 20)
        npu.start_recording()
        session.infer_pipeline(rows(3, 50, 1), "dymshape")
        copies = [call["args"] for call in npu.stop_recording() if call["call"] == "aclrtMemcpyAsync"]
    assert [arguments[3] for arguments in copies if arguments[4] == 2] == [4 * 4 * count for count in (3, 50, 1)]


def test_a_failure_that_is_none_of_size_fails_its_run_alone(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("shape").om) as session:
        session.infer_pipeline(rows(9), "dymshape")
        npu.set_faults("device.execute:3-4=500002")  # the third run, and when it is made again
        with pytest.raises(InferenceError, match="500002"):
            session.infer_pipeline(rows(1, 2, 3, 4, 5, 6), "dymshape")
        assert npu.faults_fired() == 2
        npu.set_faults()
        for one, outputs in zip(rows(3), session.infer_pipeline(rows(3), "dymshape"), strict=True):
            assert outputs[0].shape == (len(one[0]), 4)


@pytest.fixture(scope="module")
def where_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """where = NonZero(x) for x of any length: an open input, and an output whose size depends on the data."""
    folder = tmp_path_factory.mktemp("where")
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["where"])],
        "where",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("where", TensorProto.INT64, [1, "k"])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "where.onnx")
    return str(folder / "where.onnx"), str(pack(folder / "where.onnx", folder / "where.om"))


def test_data_dependent_results_under_way(npu: Emulator, where_model: tuple[str, str]) -> None:
    """Results have from zero to many elements."""
    onnx, om = where_model
    values = [np.array([1, 0, 2, 0], np.float32), np.zeros(7, np.float32), np.ones(300, np.float32), np.zeros(1, np.float32)]
    feeds = [[value] for value in values * 4]
    with InferSession(0, om) as session, InferSession(0, onnx) as reference:
        before = executions(npu)
        for one, outputs in zip(feeds, session.infer_pipeline(feeds, "dymshape", 64), strict=True):
            equal(outputs, reference.infer(one, "dymshape"))
        assert since(npu, before)[1] >= len(feeds) - 4


def test_a_pool_overlaps_runs_of_unknown_size(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """The worker learns the size in its first run; later runs overlap. Results are complete and in order."""
    record = tmp_path / "record"
    feeds = rows(*[1 + index * 7 % 40 for index in range(120)])
    with npus(2, exec_ms=1, record=record, report=tmp_path / "report"), MultiDeviceSession(packed("shape").om) as session:
        for one, outputs in zip(feeds, session.map(feeds, mode="dymshape"), strict=True):
            equal(outputs, [one[0] @ WEIGHTS])
    calls = record.read_text().splitlines()
    # How often a larger result comes than a worker has met depends on which worker gets which items.
    assert sum('"aclmdlExecuteAsync"' in call for call in calls) > 80
    assert sum('"aclmdlExecute"' in call for call in calls) < 40
    assert not (tmp_path / "report").exists() or (tmp_path / "report").read_text() == ""
