"""Invalid input: every error says what is allowed, what was given and what to do, and the session stays usable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ais_bench.errors as errors
from ais_bench import _native
from ais_bench.session import InferSession
from support import models
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

X = np.ones((3, 4), np.float32)


def model_of_a_newer_ir() -> bytes:
    proto = models.build("add")
    proto.ir_version = 9999
    return proto.SerializeToString()


def model_of_an_unknown_operator() -> bytes:
    return models.one_node("NoSuchOperator", [("x", [2])], [("y", [2])]).SerializeToString()


FILES: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "text": (lambda: b"this is no model\n" * 20, ["its content is neither", "the file name does not matter"]),
    "empty": (lambda: b"", ["empty"]),
    "truncated": (lambda: models.build("add").SerializeToString()[:-20], ["truncated", "copy it again"]),
    "newer IR": (model_of_a_newer_ir, ["9999"]),
    "unknown operator": (model_of_an_unknown_operator, ["NoSuchOperator"]),
    "random bytes": (lambda: np.random.default_rng(0).bytes(1000), ["its content is neither"]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_file_that_is_no_model(tmp_path: Path, name: str, in_memory: bool) -> None:
    content, parts = FILES[name][0](), FILES[name][1]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(errors.ModelLoadError) as error:
        InferSession(0, content if in_memory else path)
    for part in [*parts, f"{len(content)} bytes" if in_memory else str(path)]:
        assert part in str(error.value)


GEARS = {
    "no number": ("batch_size", "1,x", ["n", 4], "each gear must be integers of at least 1, got 'x'"),
    "too few values": ("image_size", "8", [1, 3, "h", "w"], "each gear must have 2 values, .*, got 1 in '8'"),
    "nothing open": ("batch_size", "1,2", [1, 4], "no input has a dynamic dimension for it; export the model with one"),
}


@pytest.mark.parametrize("case", GEARS)
def test_metadata_with_wrong_gears(case: str) -> None:
    key, text, shape, wanted = GEARS[case]
    metadata = {f"ais_bench.dynamic_{key}": text}
    proto = models.one_node("Neg", [("x", shape)], [("y", shape)], metadata=metadata)
    with pytest.raises(errors.ModelLoadError, match=f"dynamic_{key} = '{text}', .*{wanted}"):
        InferSession(0, proto.SerializeToString())


def test_metadata_with_two_kinds_of_gears() -> None:
    shape: list[int | str] = ["n", 4]
    metadata = {"ais_bench.dynamic_batch_size": "1,2", "ais_bench.dynamic_dims": "1;2"}
    proto = models.one_node("Neg", [("x", shape)], [("y", shape)], metadata=metadata)
    with pytest.raises(errors.ModelLoadError, match="and also ais_bench.dynamic_dims; a model must declare one kind"):
        InferSession(0, proto.SerializeToString())


def test_a_shape_that_does_not_fit_the_model(model: ModelPath) -> None:
    with InferSession(0, model("dims")) as session:
        with pytest.raises(errors.ConfigError, match=r"where input 'y' has shape \(-1,\), got \(3, 4\)"):
            session.set_dynamic_shape("x:3,4;y:3,4")
        with pytest.raises(errors.ConfigError, match="must name inputs of the model, got 'w'; the inputs are 'x', 'y'"):
            session.set_dynamic_shape("x:3,4;y:4;w:1")


def test_a_setting_that_is_no_gear(model: ModelPath) -> None:
    with InferSession(0, model("gears_batch")) as session:
        with pytest.raises(errors.FeedError, match=r"must be one of the model's gears 1; 2; 8 \(dymbatch\), got \(3,\)"):
            session.set_dynamic_batchsize(3)
        with pytest.raises(errors.FeedError, match="got one for dymhw"):
            session.set_dynamic_hw(8, 8)


def test_every_truncation_of_a_model_is_refused_or_loads() -> None:
    content = models.build("sub_then_swap").SerializeToString()
    for size in range(len(content)):
        with pytest.raises(errors.ModelLoadError):
            InferSession(0, content[:size])


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelLoadError, match=re.escape(str(tmp_path))) as error:
        InferSession(0, tmp_path)
    assert "directory" in str(error.value).lower()


def test_a_device_that_does_not_exist_lists_those_that_do(model: ModelPath, runtime: str) -> None:
    last = _native.device_count(runtime) - 1
    with pytest.raises(errors.DeviceUnavailable) as error:
        InferSession(last + 1000, model("add"))
    assert str(last + 1000) in str(error.value)
    assert f"{last}" in str(error.value)


@pytest.mark.parametrize("header", [b"IMOD", b"PK\x03\x04"])
def test_a_compiled_model_without_ascendcl(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.om"
    path.write_bytes(header + bytes(1000))
    # A new process, because AscendCL is loaded only once, and other tests of this process may have loaded the emulator.
    printed = run_script(
        """
        import sys
        from ais_bench import errors
        from ais_bench.session import InferSession

        try:
            InferSession(0, sys.argv[1])
        except (errors.DeviceUnavailable, errors.UnsupportedError) as error:
            print(error)
        """,
        str(path),
        AIS_BENCH_ACL_LIBRARY=str(tmp_path / "libascendcl.so"),  # this file does not exist, whatever the machine has
    )
    assert "AscendCL" in printed
    assert str(tmp_path / "libascendcl.so") in printed


def test_a_runtime_that_does_not_exist(model: ModelPath) -> None:
    with pytest.raises(errors.ConfigError, match=r"'ort'.*'acl'"):
        InferSession(0, model("add"), runtime="nonsense")


def test_a_runtime_that_is_named_decides_whatever_the_content_says(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(errors.ModelLoadError, match=r"(?i)protobuf"):  # from ONNX Runtime's text
        InferSession(0, tmp_path / "text.onnx", runtime="ort")
    with pytest.raises(errors.ModelLoadError, match="no such file") as error:
        InferSession(0, tmp_path / "missing.onnx", runtime="ort")
    assert error.value.code == 0  # there is no error number of a vendor


def test_arguments_in_the_wrong_order_make_a_short_message(model: ModelPath) -> None:
    content = Path(model("add")).read_bytes()
    with pytest.raises(errors.ConfigError, match="device_id") as error:
        InferSession(content * 100, 0)
    assert len(str(error.value)) < 200


def test_a_path_is_not_cut_at_a_nul_character(model: ModelPath) -> None:
    with pytest.raises(errors.ConfigError, match="NUL"):
        InferSession(0, model("add") + "\0.txt")


@pytest.mark.parametrize("mode", [None, 5, ["static"], b"static"])
def test_a_mode_that_is_no_text(model: ModelPath, mode: Any) -> None:
    with InferSession(0, model("batch")) as session:
        for run in (lambda: session.infer([X], mode), lambda: session.infer_iteration([X], [0], 3, mode)):
            with pytest.raises(errors.ConfigError, match=r"mode must be one of 'static'.*'dymshape', got"):
                run()


def test_a_missing_onnxruntime_lists_what_was_tried(onnx_model: ModelPath) -> None:
    printed = run_script(
        """
        import sys
        from ais_bench.errors import DeviceUnavailable
        from ais_bench.infer.interface import InferSession
        try:
            InferSession(0, sys.argv[1])
        except DeviceUnavailable as error:
            print(error)
        """,
        onnx_model("add"),
        AIS_BENCH_ORT_LIBRARY="/no/such/library.so",
    )
    assert "/no/such/library.so" in printed
    assert 'pip install "onnxruntime>=1.19"' in printed


@pytest.mark.parametrize(
    ("name", "tensor", "kind"), [("sequence_output", "'many'", "sequence"), ("string_input", "'words'", "strings")]
)
def test_what_is_no_tensor_of_numbers_is_refused_at_load(onnx_model: ModelPath, name: str, tensor: str, kind: str) -> None:
    with pytest.raises(errors.UnsupportedError) as error:
        InferSession(0, onnx_model(name))
    assert tensor in str(error.value)
    assert kind in str(error.value)


@pytest.mark.parametrize(
    ("feeds", "parts"),
    [
        ([], ["takes 1 input", "'x'", "given 0"]),
        ([X, X], ["takes 1 input", "'x'", "given 2"]),
        ([X[:, :3]], ["'x'", "(-1, 4)", "36 bytes", "(3, 3)"]),
        ([X.astype(np.float64)], ["'x'", "48 bytes", "96 bytes", "float32", "float64"]),
        ({"y": X}, ["'x'", "'y'"]),
        ([None], ["NoneType"]),
    ],
    ids=["none", "too many", "wrong shape", "wrong size", "wrong name", "no array"],
)
def test_feeds_that_do_not_fit(model: ModelPath, feeds: Any, parts: list[str]) -> None:
    with InferSession(0, model("batch")) as session:
        for run in (
            lambda: session.infer(feeds, "dymshape"),
            lambda: session.infer(feeds, "dymshape", out_array=False),
            lambda: session.infer_pipeline([[X], feeds], "dymshape"),
            lambda: session.infer_iteration(feeds, [0], 3, "dymshape"),
            lambda: session.run(feeds),
        ):
            with pytest.raises(errors.FeedError) as error:
                run()
            assert all(part in str(error.value) for part in parts), str(error.value)
        assert np.array_equal(session.infer([X], "dymshape")[0], -X)


def test_a_run_that_fails_on_the_device(model: ModelPath, capfd: pytest.CaptureFixture[str]) -> None:
    with InferSession(0, model("gather")) as session:
        for index in (99, -99):
            with pytest.raises((errors.FeedError, errors.InferenceError), match=f"{index} must be within"):
                session.infer([np.array([index])])
        assert session.summary().exec_time_list == []  # a failed run is not an execution
        assert session.infer([np.array([1])])[0].tolist() == [2]
    assert capfd.readouterr().err == ""  # only the exception has the text


def test_outputs_that_no_memory_can_hold(model: ModelPath, capfd: pytest.CaptureFixture[str]) -> None:
    with InferSession(0, model("too_large"), graph_optimization_level="disable") as session:
        for out_array in (True, False):
            with pytest.raises(errors.DeviceMemoryError, match="140737488355328 bytes"):
                session.infer([np.ones(1, np.float32)], out_array=out_array)
    assert capfd.readouterr().err == ""


def test_shapes_that_do_not_fit_each_other(model: ModelPath) -> None:
    with InferSession(0, model("dims")) as session:
        with pytest.raises(errors.AisBenchError):
            session.infer([np.ones((2, 3), np.float32), np.ones(4, np.float32)], "dymshape")
        assert session.infer([np.ones((2, 3), np.float32), np.ones(3, np.float32)], "dymshape")[0].tolist() == [[2] * 3] * 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"loop": 0}, ["loop must be at least 1, got 0"]),
        ({"loop": 1.5}, ["loop must be an integer, got 1.5"]),
        ({"threads": 0}, ["threads must be at least 1, got 0"]),
        ({"runtime": 5}, ["runtime must be", "got 5"]),
        ({"provider_options": ["threads"]}, ["provider_options", "mapping"]),
        ({"graph_optimization_level": "most"}, ["'most'", "extended"]),
    ],
)
def test_options_that_are_wrong(model: ModelPath, options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(errors.ConfigError) as error:
        InferSession(0, model("add"), **options)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"no_such_option": 1}, ["'no_such_option'", "enable_mem_pattern"]),
        ({"execution_mode": "sideways"}, ["'sideways'", "parallel"]),
    ],
)
def test_options_of_onnxruntime_that_are_wrong(onnx_model: ModelPath, options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(errors.ConfigError) as error:
        InferSession(0, onnx_model("add"), provider_options=options)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_options_that_are_right(model: ModelPath) -> None:
    options = {"execution_mode": "parallel", "inter_op_num_threads": 2, "enable_mem_pattern": False}
    levels = ("disable", "basic", "extended", "layout", "all")
    for level in levels:
        with InferSession(0, model("batch"), threads=2, graph_optimization_level=level, provider_options=options) as session:
            assert np.array_equal(session.infer([X])[0], -X)


CLASSES = {
    "InvalidArgument": errors.ConfigError,
    "FeedMismatch": errors.FeedError,
    "Unavailable": errors.DeviceUnavailable,
    "ModelLoad": errors.ModelLoadError,
    "Unsupported": errors.UnsupportedError,
    "OutOfMemory": errors.DeviceMemoryError,
    "NoRoom": errors.DeviceMemoryError,
    "Execution": errors.InferenceError,
    "Cancelled": errors.InferenceCancelled,
    "DeviceLost": errors.DeviceLost,
    "Closed": errors.SessionClosed,
    "ForkedChild": errors.SessionClosed,
    "Timeout": errors.TaskTimeout,
    "Corrupt": errors.TransportError,
    "System": errors.TransportError,
}


def test_every_status_code_becomes_its_class() -> None:
    codes = _native._status_codes()
    assert codes.keys() == CLASSES.keys() | {"Ok"}
    _native._raise_status(codes.pop("Ok"), "nothing is raised")
    for name, code in codes.items():
        with pytest.raises(errors.AisBenchError, match="the text") as error:
            _native._raise_status(code, "the text")
        assert type(error.value) is CLASSES[name]
        assert isinstance(error.value, RuntimeError)
        if isinstance(error.value, errors.DeviceError):
            assert error.value.code == 7
