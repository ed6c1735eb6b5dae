"""Uses of outputs, the modes of a run, and a session's description of its model."""

from __future__ import annotations

import json
import os
import pickle
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aclruntime
from ais_bench.errors import ConfigError, FeedError
from ais_bench.session import InferSession

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
MODES = ("static", "dymbatch", "dymhw", "dymdims", "dymshape")


# Outputs


def test_outputs_are_a_list_that_unpacks(model: ModelPath) -> None:
    a, b = np.array([5, 5, 5, 5], np.int32), np.array([1, 2, 3, 4], np.int32)
    with InferSession(0, model("sub_then_swap")) as session:
        outputs = session.infer([a, b])
        assert type(outputs) is list
        difference, total = outputs
        assert difference.tolist() == [4, 3, 2, 1]
        assert total.tolist() == [6, 7, 8, 9]
        outputs.append("the list is the caller's")
        assert len(session.infer([a, b])) == 2


@pytest.mark.parametrize("name", ["batch", "nonzero", "unranked", "add"])
def test_outputs_are_the_callers_own_arrays(model: ModelPath, name: str) -> None:
    feeds = [np.ones((1, 3, 32, 32), np.float32)] * 2 if name == "add" else [X]
    with InferSession(0, model(name)) as session:
        (output,) = session.infer(feeds, mode="dymshape")
        expected = output.copy()
        assert output.flags.writeable
        assert output.flags.c_contiguous
        assert output.flags.owndata
        output[...] = 77
        (again,) = session.infer(feeds, mode="dymshape")
        assert np.array_equal(again, expected)
        assert not np.shares_memory(output, again)
        assert (output == 77).all()


def test_thousands_of_outputs_stay_valid_after_the_session_is_gone(model: ModelPath) -> None:
    session = InferSession(0, model("batch"))
    kept = [session.infer([X + i], "dymbatch")[0] for i in range(3000)]
    session.free_resource()
    del session
    assert all(np.array_equal(output, -(X + i)) for i, output in enumerate(kept))


def test_outputs_go_to_torch(model: ModelPath) -> None:
    torch = pytest.importorskip("torch")
    with InferSession(0, model("batch")) as session:
        assert torch.from_numpy(session.infer([X], "dymbatch")[0]).sum().item() == -X.sum()


@pytest.mark.parametrize(("name", "dtype"), [("halve", "float16"), ("identity-BOOL", "bool"), ("nonzero", "int64")])
def test_outputs_keep_the_models_dtype(model: ModelPath, name: str, dtype: str) -> None:
    with InferSession(0, model(name)) as session:
        (desc,) = session.get_inputs()
        (output,) = session.infer([np.ones(desc.shape, desc.datatype.name)])
        assert output.dtype == dtype


@pytest.mark.parametrize("mode", MODES)
def test_data_dependent_shapes_come_back_true_in_every_mode(model: ModelPath, mode: str) -> None:
    with InferSession(0, model("nonzero")) as session:
        for count in (0, 1, 12, 5):
            x = np.zeros(12, np.float32)
            x[:count] = 1
            (where,) = session.infer([x.reshape(3, 4)], mode=mode)
            assert where.shape == (2, count)
            assert np.array_equal(where, np.nonzero(x.reshape(3, 4)))


def test_a_shape_that_the_model_declares_wrongly_comes_back_true(model: ModelPath, capfd: pytest.CaptureFixture[str]) -> None:
    with InferSession(0, model("misdeclared")) as session:
        for size in (2, 3, 2, 5, 1):
            x = np.arange(size, dtype=np.float32)
            assert session.infer([x])[0].tolist() == (-x).tolist()
            (tensor,) = session.infer([x], out_array=False)
            tensor.to_host()
            assert np.array(tensor).tolist() == (-x).tolist()
            assert session.infer_iteration([x], [0], 4)[0].tolist() == x.tolist()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sizes", [1, 1e9, [1e9], np.int64(1), [1], [10**9], 10**9, 10**15, None, (np.int32(4),)])
def test_custom_sizes_are_only_a_hint(model: ModelPath, sizes: Any) -> None:
    with InferSession(0, model("nonzero")) as session:
        (where,) = session.infer([np.ones((3, 4), np.float32)], mode="dymshape", custom_sizes=sizes)
        assert where.shape == (2, 12)


def test_custom_sizes_are_ignored_outside_dymshape(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer([X], "static", custom_sizes="nonsense")[0], -X)
        with pytest.raises(ConfigError, match="nonsense"):
            session.infer([X], "dymshape", custom_sizes="nonsense")


# Modes


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_takes_a_static_model(model: ModelPath, mode: str) -> None:
    x = np.ones((1, 3, 32, 32), np.float32)
    with InferSession(0, model("add")) as session:
        assert np.array_equal(session.infer([x, x], mode=mode)[0], x + x)


@pytest.mark.parametrize("mode", MODES)
def test_shapes_may_change_on_every_call(model: ModelPath, mode: str) -> None:
    with InferSession(0, model("batch")) as session:
        for rows in (3, 1, 8, 2, 3):
            x = np.full((rows, 4), rows, np.float32)
            assert np.array_equal(session.infer([x], mode=mode)[0], -x)


@pytest.mark.parametrize(("name", "shape"), [("image", (1, 3, 5, 9)), ("unranked", (2, 1, 3)), ("unranked", ())])
def test_open_shapes_are_taken_from_the_feeds(model: ModelPath, name: str, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 2, np.float32)
    with InferSession(0, model(name)) as session:
        (output,) = session.infer([x], mode="dymshape")
        assert output.shape == shape
        assert (output == -2).all()


GEARS = {
    "gears_batch": ("dymbatch", [(1, 4), (8, 4)], (3, 4), ["1", "2", "8"]),
    "gears_image": ("dymhw", [(1, 3, 8, 16), (1, 3, 16, 8)], (1, 3, 8, 8), ["8,16", "16,8"]),
    "gears_dims": ("dymdims", [(1, 4), (2, 6)], (2, 4), ["1,4", "2,6"]),
}


@pytest.mark.parametrize("name", GEARS)
def test_declared_gears_hold_callers_to_them(model: ModelPath, name: str) -> None:
    mode, fit, unfit, listed = GEARS[name]
    with InferSession(0, model(name)) as session:
        for shape in fit:
            assert session.infer([np.ones(shape, np.float32)], mode=mode)[0].shape == shape
        with pytest.raises(FeedError) as error:
            session.infer([np.ones(unfit, np.float32)], mode=mode)
        assert all(gear in str(error.value) for gear in listed)
        other = "dymdims" if mode == "dymbatch" else "dymbatch"
        with pytest.raises(FeedError, match=mode):
            session.infer([np.ones(fit[0], np.float32)], mode=other)


@pytest.mark.parametrize("name", GEARS)
def test_without_gears_any_shape_runs(model: ModelPath, name: str) -> None:
    unfit = GEARS[name][2]
    with InferSession(0, model(name)) as session:
        assert session.infer([np.ones(unfit, np.float32)], mode="dymshape")[0].shape == unfit


def test_the_largest_batch_gear(model: ModelPath) -> None:
    for name, largest in {"gears_batch": 8, "batch": 0, "gears_dims": 0}.items():
        with InferSession(0, model(name)) as session:
            assert session.get_max_dym_batchsize() == largest


def test_an_unknown_mode_lists_the_modes(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        with pytest.raises(RuntimeError) as error:
            session.infer([X], mode="dynamic")
        assert all(part in str(error.value) for part in ("dynamic", *MODES))
        assert np.array_equal(session.infer([X])[0], -X)


# Descriptors


def test_descriptors_say_what_the_model_declares(model: ModelPath, runtime: str) -> None:
    with InferSession(0, model("image")) as session:
        (desc,) = session.get_inputs()
        assert type(desc.shape) is list
        assert desc.shape == [1, 3, -1, -1]
        assert all(type(dim) is int for dim in desc.shape)
        layout = {"ort": 2, "acl": 0}[runtime]  # ND; NCHW, as a compiled model of images declares
        assert (desc.name, desc.datatype.name, desc.format, desc.size, desc.realsize) == ("x", "float32", layout, 0, 0)
        session.set_dynamic_shape("x:1,3,2,2")
        assert session.get_inputs()[0].realsize == 48
    with InferSession(0, model("add")) as session:
        described = [(desc.name, desc.size, desc.realsize) for desc in session.get_inputs()]
        assert described == [("x", 12288, 12288), ("y", 12288, 12288)]
        assert [desc.name for desc in session.get_outputs()] == ["z"]


def test_descriptors_and_shapes_pickle(model: ModelPath) -> None:
    with InferSession(0, model("image")) as session:
        for desc in session.get_inputs() + session.get_outputs():
            assert pickle.loads(pickle.dumps(desc)) == desc
            assert json.loads(json.dumps(desc.shape)) == desc.shape


def test_old_style_initializers_are_no_inputs(model: ModelPath) -> None:
    with InferSession(0, model("old_style")) as session:
        assert [desc.name for desc in session.get_inputs()] == ["x"]
        assert session.infer([np.array([1, 2], np.float32)])[0].tolist() == [11, 22]


def test_datatype_prints_hashes_compares_and_indexes() -> None:
    numbering = ["float32", "float16", "int8", "int32", "uint8", "?", "int16", "uint16", "uint32", "int64", "uint64"]
    numbering += ["float64", "bool"]
    for number, name in enumerate(numbering):
        if name == "?":
            continue
        member = aclruntime.dtype(number)
        assert str(member) == f"dtype.{name}"
        assert numbering[member] == member.name == np.dtype(member.name).name
        assert member == getattr(aclruntime.dtype, name)
        assert {member: name}[aclruntime.dtype(number)] == name


def test_descriptors_are_attributes_from_the_start(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        assert [desc.name for desc in session.intensors_desc] == ["x"]
        assert [desc.name for desc in session.outtensors_desc] == session.outputs_names == ["y"]


# Times


def test_exec_times_are_floats_in_milliseconds_and_pairs(model: ModelPath) -> None:
    with InferSession(0, model("loop")) as session:
        session.infer([np.int64(200_000), np.zeros(1, np.float32)])
        session.infer([np.int64(1), np.zeros(1, np.float32)])
        times = session.summary().exec_time_list
        assert len(times) == 2
        assert times == list(session.summary())
        for start, end in times:
            assert 0 <= start <= end
        assert times[0] == times[0][1] - times[0][0]
        assert isinstance(times[-1], float)
        assert f"{times[-1]:.3f}" == f"{float(times[-1]):.3f}"
        assert np.mean(times) == pytest.approx(sum(times) / 2)
        assert 0.1 < times[0] < 100_000  # milliseconds: not seconds, not microseconds
        assert statistics.mean(times) == pytest.approx(np.mean(times))
        copy = pickle.loads(pickle.dumps(times))
        assert copy == times
        assert list(copy[0]) == list(times[0])
        assert json.loads(json.dumps(times)) == [float(time) for time in times]
        for _ in range(10):
            session.infer([np.int64(1), np.zeros(1, np.float32)])
        assert times[0] > min(session.summary().exec_time_list[1:])  # 200,000 steps and one


@pytest.mark.parametrize(("summary", "reset"), [("summary", "reset_summaryinfo"), ("sumary", "reset_sumaryinfo")])
def test_both_spellings_of_the_summary(model: ModelPath, summary: str, reset: str) -> None:
    with InferSession(0, model("batch")) as session:
        session.infer([X])
        assert len(getattr(session, summary)().exec_time_list) == 1
        getattr(session, reset)()
        assert getattr(session, summary)().exec_time_list == []
        session.infer([X])
        assert len(getattr(session, summary)().exec_time_list) == 1


def test_every_execution_of_a_loop_is_timed(model: ModelPath) -> None:
    with InferSession(0, model("batch"), loop=5) as session:
        session.infer([X])
        assert len(session.summary().exec_time_list) == 5
        session.set_loop_count(2)
        assert np.array_equal(session.infer([X])[0], -X)
        assert len(session.summary().exec_time_list) == 7


@pytest.mark.parametrize("of", [lambda cls: cls, lambda cls: cls()], ids=["class", "instance"])
@pytest.mark.parametrize("name", ["get_h2d_time_list", "get_H2D_time_list", "get_d2h_time_list", "get_D2H_time_list"])
def test_copy_times_are_process_wide(model: ModelPath, of: Callable[[Any], Any], name: str) -> None:
    from ais_bench.infer.interface import MemorySummary

    summary = of(MemorySummary)
    summary.reset()
    assert getattr(summary, name)() == []
    a = np.zeros(4, np.int32)
    for _ in range(2):  # of any session
        with InferSession(0, model("sub_then_swap")) as session:
            session.infer([a, a])
    times = getattr(summary, name)()
    assert len(times) == 4  # two inputs, two outputs: one entry for each transfer
    assert all(isinstance(time, float) and 0 <= time < 60_000 for time in times)
    summary.reset()


def test_the_module_level_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ais_bench.infer.summary import Summary, summary

    assert isinstance(summary, Summary)
    mine = Summary()
    mine.add_args(["--model", "m.onnx"])
    mine.npu_compute_time_list = [2.0, (1.0, 3.0)]
    mine.h2d_latency_list = [0.5]
    mine.d2h_latency_list = [0.25]
    pickle.loads(pickle.dumps(mine)).report(4, str(tmp_path / "run"), display_all_summary=True)
    printed = capsys.readouterr().out
    for part in ("NPU_compute_time", "H2D_latency", "D2H_latency", "throughput", ": 2000.0"):
        assert part in printed
    written = json.loads((tmp_path / "run_summary.json").read_text())
    assert written["throughput"] == 2000
    assert set(written["NPU_compute_time"]) == {"min", "max", "mean", "median", "percentile(99%)", "count"}
    assert [written[name]["count"] for name in ("NPU_compute_time", "H2D_latency", "D2H_latency")] == [2, 1, 1]
    assert written["npu_compute_time_list"] == [2.0, [1.0, 3.0]]
    assert written["pid"] == os.getpid()
    for _ in range(2):
        mine.add_sample_id_infiles(0, ["a.npy", "b.npy"])
        mine.append_sample_id_outfile(0, "a_0.npy")
    assert mine.infodict["filesinfo"][0] == {"infiles": ["a.npy", "b.npy"], "outfiles": ["a_0.npy", "a_0.npy"]}
    mine.npu_compute_time_list = [(0.0, 2.0), (1.0, 3.0)]  # they overlap: 3 ms for both
    mine.report(4, multi_threads=True)
    assert mine.infodict["throughput"] == pytest.approx(1000 * 4 / 1.5)
