"""Every kind of model with every kind of run: the NPU's results are those of ONNX Runtime on the same graph."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator, pack
from ais_bench.errors import FeedError, InferenceError, ModelLoadError
from ais_bench.one_device.tensor import Tensor
from ais_bench.session import InferSession
from support.acl import BY_NAME, CASES, Packed, equal, floats
from support.emulator_models import unknown_rank

every_case = pytest.mark.parametrize("name", [case.name for case in CASES])


@every_case
def test_infer(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    model = packed(name)
    with InferSession(0, model.om) as session, InferSession(0, model.onnx) as reference:
        assert session._native.runtime == "acl"
        for feeds in model.case.feeds * 2:
            equal(session.infer(feeds, model.case.mode), reference.infer(feeds, model.case.mode))
    assert npu.call_count("aclmdlExecuteAsync") + npu.call_count("aclmdlExecute") > 0


@every_case
def test_infer_pipeline(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    model = packed(name)
    before = npu.call_count("aclmdlExecuteAsync")
    with InferSession(3, model.om) as session, InferSession(0, model.onnx) as reference:
        for _ in range(2):
            results = session.infer_pipeline(model.case.feeds * 4, model.case.mode)
            for feeds, outputs in zip(model.case.feeds * 4, results, strict=True):
                equal(outputs, reference.infer(feeds, model.case.mode))
        assert len(session.summary()) == 2 * 4 * len(model.case.feeds)
    assert (npu.call_count("aclmdlExecuteAsync") > before) == model.case.asynchronous


@every_case
def test_load_from_memory(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    model = packed(name)
    with open(model.om, "rb") as file, InferSession(1, file.read()) as session, InferSession(0, model.onnx) as reference:
        equal(session.infer(model.case.feeds[0], model.case.mode), reference.infer(model.case.feeds[0], model.case.mode))


@every_case
def test_outputs_stay_on_the_device_and_are_feeds(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    model = packed(name)
    with InferSession(2, model.om) as session, InferSession(0, model.onnx) as reference:
        tensors = session.infer(model.case.feeds[0], model.case.mode, out_array=False)
        assert all(isinstance(tensor, Tensor) and tensor.device == 2 for tensor in tensors)
        with pytest.raises(RuntimeError, match=r"npu|device"):
            np.array(tensors[0])
        session.convert_tensors_to_host(tensors)
        equal(session.convert_tensors_to_arrays(tensors), reference.infer(model.case.feeds[0], model.case.mode))
        on_device = [session.create_tensor_from_arrays_to_device(array) for array in model.case.feeds[0]]
        equal(session.infer(on_device, model.case.mode), reference.infer(model.case.feeds[0], model.case.mode))


@pytest.mark.parametrize("mem_copy", [True, False])
def test_iteration_never_leaves_the_device(npu: Emulator, packed: Callable[[str], Packed], mem_copy: bool) -> None:
    model = packed("static")
    feeds = [np.zeros((1, 4), np.float32), np.arange(4, dtype=np.float32).reshape(1, 4)]
    with InferSession(0, model.om) as session:
        npu.start_recording()
        (result,) = session.infer_iteration(feeds, [0, -1], 1000, mem_copy=mem_copy)
        calls = npu.stop_recording()
    np.testing.assert_array_equal(result, feeds[1] * 1000)
    kinds = [call["args"][4] for call in calls if call["call"] == "aclrtMemcpy"]
    assert kinds.count(1) == 2  # one copy in for each input
    assert kinds.count(2) == 1  # one copy out
    assert sum(call["call"] == "aclmdlExecuteAsync" for call in calls) == 1000


def test_iteration_of_a_dynamic_shape(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("shape in a range")
    feeds = [floats(1, 3, 4, 4)]
    with InferSession(0, model.om) as session, InferSession(0, model.onnx) as reference:
        equal(
            session.infer_iteration(feeds, [0], 6, "dymshape"),
            reference.infer_iteration(feeds, [0], 6, "dymshape"),
        )


def test_setters_and_inner_run(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("batch")
    with InferSession(0, model.om) as session, InferSession(0, model.onnx) as reference:
        assert session.get_max_dym_batchsize() == 4
        session.set_dynamic_batchsize(2)
        assert session.get_inputs()[0].realsize == 2 * 3 * 4
        feeds = [floats(2, 3)]
        equal(session.run(feeds, out_array=True), reference.infer(feeds, "dymbatch"))
        assert session.first_inner_run(feeds, "dymbatch") == []
        (tensor,) = session.inner_run([-1], get_outputs=True) or []
        session.convert_tensors_to_host([tensor])
        equal([np.array(tensor)], reference.infer(feeds, "dymbatch"))


def test_loop_runs_that_often(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    model = packed("static")
    before = npu.call_count("aclmdlExecuteAsync")
    with InferSession(0, model.om, loop=5) as session:
        session.infer(model.case.feeds[0])
        session.infer_pipeline(model.case.feeds[:2])
        assert len(session.summary()) == 15
    assert npu.call_count("aclmdlExecuteAsync") - before == 15


def test_sizes_and_shapes_are_as_described(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("image").om) as session:
        (picture,) = session.get_inputs()
        assert (picture.shape, picture.size) == ([1, 3, -1, -1], 3 * 8 * 6 * 4)
        twice, mean = session.get_outputs()
        assert (twice.shape, twice.size, mean.shape) == ([1, 3, -1, -1], 3 * 8 * 6 * 4, [1, 3])
        assert session._native.gears() == ("dymhw", [[4, 4], [8, 6]])
    with InferSession(0, packed("dims in another order").om) as session:
        assert session._native.gears() == ("dymdims", [[20, 30, 5, 6], [80, 60, 4, 7]])


def test_a_shape_without_a_gear_names_the_gears(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("batch").om) as session:
        for mode in ("dymbatch", "dymshape"):
            with pytest.raises(FeedError, match="1; 2; 4"):
                session.infer([floats(3, 3)], mode)
        with pytest.raises(FeedError, match="1; 2; 4"):
            session.infer_pipeline([[floats(2, 3)], [floats(3, 3)], [floats(1, 3)]], "dymshape")
        assert session.infer([floats(2, 3)], "dymbatch")[0].shape == (2, 4)


@pytest.mark.parametrize("tells", [True, False])
def test_a_shape_outside_the_range_fails_and_the_session_lives(
    npu: Emulator, packed: Callable[[str], Packed], tells: bool
) -> None:
    npu.set_faults("" if tells else "aclmdlGetInputDimsRange=100000")
    with InferSession(0, packed("shape in a range").om) as session:
        assert npu.faults_fired() == (0 if tells else 1)
        npu.set_faults()
        words = "with dimension 2 of 1 to 16" if tells else r"aclmdlExecute.*shapes \(1, 3, 17, 1\) \('picture'\)"
        with pytest.raises(FeedError if tells else InferenceError, match=words):
            session.infer([floats(1, 3, 17, 1)], "dymshape")
        assert session.infer([floats(1, 3, 2, 2)], "dymshape")[1].shape == (1, 3)


def test_a_result_that_grows_is_run_again(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """After the first run there is memory with headroom. A larger result needs a second execution."""
    model = packed("shape")
    with InferSession(0, model.om) as session:
        counts = []
        for rows in (4, 4, 5, 400):
            before = npu.call_count("aclmdlExecute") + npu.call_count("aclmdlExecuteAsync")
            assert session.infer([floats(rows, 3)], "dymshape", None)[0].shape == (rows, 4)
            counts.append(npu.call_count("aclmdlExecute") + npu.call_count("aclmdlExecuteAsync") - before)
    assert counts == [1, 1, 1, 2]


def test_an_unknown_rank_is_not_guessed(npu: Emulator, tmp_path: Path) -> None:
    """A model with static inputs has no description of its results, so only the number of bytes is known."""
    om = pack(unknown_rank(tmp_path), tmp_path / "model.om", input_shape="x:2,3")
    with InferSession(0, om) as session, pytest.raises(InferenceError, match=r"output 'out' the shape \(-2,\)"):
        session.infer([np.array(1), floats(2, 3)])


def test_several_models_on_one_device(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("static").om) as one, InferSession(0, packed("batch").om) as two:
        for _ in range(3):
            equal(one.infer([np.ones((1, 4), np.float32)] * 2), [np.full((1, 4), 2, np.float32)])
            assert two.infer([floats(4, 3)], "dymbatch")[0].shape == (4, 4)


def test_every_kind_of_model_at_once_on_one_device(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """Models are used in turn, from several threads, and freed one by one. They never share memory or gears."""
    models = [packed(case.name) for case in CASES]
    wanted = []
    for model in models:
        with InferSession(0, model.onnx) as reference:
            wanted.append([reference.infer(feeds, model.case.mode) for feeds in model.case.feeds])
    sessions = [InferSession(5, model.om) for model in models]

    def use(index: int) -> None:
        for feeds, outputs in zip(models[index].case.feeds, wanted[index], strict=True):
            equal(sessions[index].infer(feeds, models[index].case.mode), outputs)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, [*range(len(models))] * 5))
    while sessions:
        for index in reversed(range(len(sessions))):
            use(index)
        sessions.pop().free_resource()
    assert npu.memory_used(5) == 0


def test_a_file_compiled_by_atc_is_refused_by_the_emulator(npu: Emulator, tmp_path: object) -> None:
    path = f"{tmp_path}/real.om"
    with open(path, "wb") as file:
        file.write(b"IMOD" + bytes(1000))
    with pytest.raises(ModelLoadError, match="emulator") as caught:
        InferSession(0, path)
    assert caught.value.code != 0


def test_the_table_has_every_mode() -> None:
    assert {case.mode for case in BY_NAME.values()} == {"static", "dymbatch", "dymhw", "dymdims", "dymshape"}
