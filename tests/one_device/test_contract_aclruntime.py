"""The low-level module, used directly like in programs."""

from __future__ import annotations

import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import aclruntime
from ais_bench.errors import ConfigError, FeedError, UnsupportedError
from ais_bench.session import InferSession, MultiDeviceSession

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

A, B = np.array([9, 8, 7, 6], np.int32), np.array([1, 2, 3, 4], np.int32)
X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def opened(path: str, loop: int = 1) -> aclruntime.InferenceSession:
    options = aclruntime.session_options()
    options.loop = loop
    options.log_level = 3
    options.acl_json_path = ""
    return aclruntime.InferenceSession(path, 0, options)


def to_numpy(tensor: Any) -> Any:
    tensor.to_host()
    return np.array(tensor)


def test_two_arguments_raise_type_error(model: ModelPath) -> None:
    with pytest.raises(TypeError):
        aclruntime.InferenceSession(model("add"), 0)  # type: ignore[call-arg]


@pytest.mark.parametrize("as_dict", [False, True])
def test_run_with_a_list_or_a_dict_of_tensors(model: ModelPath, as_dict: bool) -> None:
    session = opened(model("sub_then_swap"))
    tensors = [aclruntime.Tensor(A), aclruntime.Tensor(B)]
    for tensor in tensors:
        assert tensor.to_device(0) is None
    feeds: Any = {"b": tensors[1], "a": tensors[0]} if as_dict else tensors
    outputs = session.run(["total", "difference"], feeds)
    assert [to_numpy(tensor).tolist() for tensor in outputs] == [[10, 10, 10, 10], [8, 6, 4, 2]]
    (only,) = session.run(["difference"], feeds)
    assert to_numpy(only).tolist() == [8, 6, 4, 2]
    with pytest.raises(FeedError, match="nonsense"):
        session.run(["nonsense"], feeds)


@pytest.mark.parametrize("as_dict", [False, True])
def test_run_takes_tensors_not_arrays(model: ModelPath, as_dict: bool) -> None:
    session = opened(model("sub_then_swap"))
    feeds: Any = {"a": A, "b": aclruntime.Tensor(B)} if as_dict else [A, B]
    with pytest.raises(TypeError, match=r"aclruntime\.Tensor"):
        session.run(["difference"], feeds)
    with pytest.raises(TypeError):
        session.run(None, [aclruntime.Tensor(A), aclruntime.Tensor(B)])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [0, None, {}])
def test_options_are_session_options(model: ModelPath, options: Any) -> None:
    with pytest.raises(TypeError, match="session_options"):
        aclruntime.InferenceSession(model("add"), 0, options)


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_run_in_three_steps(model: ModelPath, as_dict: bool) -> None:
    session = opened(model("sub_then_swap"))
    tensors = [aclruntime.Tensor(A, 0), aclruntime.Tensor(B, 0)]
    with pytest.raises(ConfigError, match="run_setinputs"):
        session.run_execute()
    with pytest.raises(ConfigError, match="run_execute"):
        session.run_getoutputs(["difference"])
    session.run_setinputs({"b": tensors[1], "a": tensors[0]} if as_dict else tensors)
    session.run_execute(3)
    assert len(session.sumary().exec_time_list) == 3
    (difference,) = session.run_getoutputs(["difference"])
    assert difference.device == 0
    assert to_numpy(difference).tolist() == [8, 6, 4, 2]
    session.free_resource()
    with pytest.raises(ConfigError, match="run_setinputs"):
        session.run_execute()


def test_a_host_tensor_needs_no_to_device(model: ModelPath) -> None:
    session = opened(model("sub_then_swap"))
    outputs = session.run(["difference"], [aclruntime.Tensor(A), aclruntime.Tensor(B)])
    assert to_numpy(outputs[0]).tolist() == [8, 6, 4, 2]


@pytest.mark.usefixtures("runtime")
def test_moves_are_idempotent_and_return_none() -> None:
    tensor = aclruntime.Tensor(X)
    assert tensor.device == -1
    for _ in range(2):
        assert tensor.to_device(0) is None
        assert tensor.device == 0
    for _ in range(2):
        assert tensor.to_host() is None
        assert tensor.device == -1
    assert np.array_equal(np.array(tensor), X)


@pytest.mark.usefixtures("runtime")
def test_a_tensor_on_a_device_does_not_convert() -> None:
    tensor = aclruntime.Tensor(X)
    tensor.to_device(0)
    with pytest.raises(RuntimeError, match="to_host"):
        np.array(tensor)
    with pytest.raises((BufferError, RuntimeError)):
        memoryview(tensor)  # type: ignore[arg-type]
    tensor.to_host()
    assert np.array_equal(np.array(tensor), X)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("device", ["first", None, 0.5, -1, 2**40])
def test_a_device_that_is_no_number_is_named(device: Any) -> None:
    tensor = aclruntime.Tensor(A)
    with pytest.raises(ConfigError, match="device_id"):
        tensor.to_device(device)
    tensor.to_device("0")
    assert tensor.device == 0


@pytest.mark.usefixtures("runtime")
def test_a_tensor_on_a_missing_device_names_those_there_are() -> None:
    with pytest.raises(RuntimeError, match="4095"):
        aclruntime.Tensor(X).to_device(4095)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint16", "int64", "bool", "float64", "uint64", "complex64"])
def test_the_buffer_protocol_has_the_right_dtype_and_shape(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = aclruntime.Tensor(array)
    view = memoryview(tensor)  # type: ignore[arg-type]
    assert view.shape == (2, 3)
    assert view.itemsize == array.itemsize
    assert np.asarray(view).dtype == array.dtype
    assert np.array_equal(np.array(tensor), array)
    assert np.array(tensor).dtype == array.dtype
    joined = np.concatenate([tensor, tensor], axis=1)  # type: ignore[list-item]
    assert joined.dtype == array.dtype
    assert np.array_equal(joined, np.concatenate([array, array], axis=1))


def test_a_tensor_of_an_element_type_numpy_lacks() -> None:
    array = np.array([1, 2, 3], ml_dtypes.bfloat16)
    assert np.array(aclruntime.Tensor(array)).dtype == ml_dtypes.bfloat16
    assert aclruntime.Tensor(array).dtype.name == "bfloat16"


def test_a_view_keeps_its_bytes_after_the_tensor_is_gone() -> None:
    tensor = aclruntime.Tensor(X)
    view = np.asarray(memoryview(tensor))  # type: ignore[arg-type]
    del tensor
    assert np.array_equal(view, X)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_a_tensor_of_anything_with_the_buffer_protocol(wrap: Callable[[bytes], Any]) -> None:
    tensor = aclruntime.Tensor(wrap(b"abcd"))
    assert tensor.dtype == aclruntime.dtype.uint8
    assert np.array(tensor).tobytes() == b"abcd"


def test_tensor_copies_the_array() -> None:
    array = X.copy()
    tensor = aclruntime.Tensor(array)
    array[:] = 0
    assert np.array_equal(np.array(tensor), X)


def test_outputs_are_fed_back_without_leaving_the_device(model: ModelPath) -> None:
    session = opened(model("batch"))
    first = session.run(["y"], [aclruntime.Tensor(X)])
    second = session.run(["y"], first)
    third = session.run(["y"], second)
    aclruntime.MemorySummary.reset()
    session.run(["y"], second)
    assert aclruntime.MemorySummary.get_d2h_time_list() == []
    assert [float(to_numpy(tensors[0]).sum()) for tensors in (first, second, third)] == [-78, 78, -78]  # still readable


def test_outputs_on_the_device_outlive_their_session(model: ModelPath) -> None:
    with InferSession(0, model("nonzero")) as session:
        (where,) = session.infer([np.eye(3, 4, dtype=np.float32)], out_array=False)
        assert isinstance(where, aclruntime.Tensor)
        assert where.device == 0
    assert to_numpy(where).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_outputs_on_the_device_outlive_finalize(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        (output,) = session.infer([X], out_array=False)
    InferSession.finalize()
    assert np.array_equal(to_numpy(output), -X)


def test_tensors_and_arrays_mix_in_one_feed(model: ModelPath) -> None:
    tensor = aclruntime.Tensor(A)
    tensor.to_device(0)
    with InferSession(0, model("sub_then_swap")) as session:
        assert session.infer([tensor, B])[0].tolist() == [8, 6, 4, 2]
        assert session.infer_pipeline([[tensor, B]])[0][0].tolist() == [8, 6, 4, 2]


def test_dtypes_are_dict_keys() -> None:
    names = {aclruntime.dtype.float32: "f", aclruntime.dtype.int64: "i"}
    assert names[aclruntime.Tensor(X).dtype] == "f"
    assert aclruntime.float32 is aclruntime.dtype.float32


def test_base_tensor_is_memory_of_the_callers(model: ModelPath) -> None:
    session = opened(model("sub_then_swap"))
    a = aclruntime.BaseTensor(A.__array_interface__["data"][0], A.nbytes)
    b = aclruntime.BaseTensor(B.__array_interface__["data"][0], B.nbytes)
    assert to_numpy(session.run(["difference"], [a, b])[0]).tolist() == [8, 6, 4, 2]
    with pytest.raises(ConfigError, match="-1"):
        aclruntime.BaseTensor(0, -1)


def test_shapes_set_beforehand(model: ModelPath) -> None:
    session = opened(model("dims"))
    session.set_dynamic_shape("y:4;x:3,4")  # in any order
    assert [desc.realsize for desc in session.get_inputs()] == [48, 16]
    flat = [aclruntime.Tensor(X.ravel()), aclruntime.Tensor(X[0])]
    assert to_numpy(session.run(["z"], flat)[0]).tolist() == (X + X[0]).tolist()
    with pytest.raises(FeedError, match="'x'"):
        session.run(["z"], [aclruntime.Tensor(X[:2]), aclruntime.Tensor(X[0])])
    for text in ("x:3,4", "x:3;y:4", "x:3,4;y:4;w:1", "x:3,a;y:4", "nonsense", "x:-1,4;y:4"):
        with pytest.raises(ConfigError):
            session.set_dynamic_shape(text)
    session.set_staticbatch()
    assert to_numpy(session.run(["z"], [aclruntime.Tensor(X), aclruntime.Tensor(X[0])])[0]).shape == (3, 4)


def test_the_shape_of_a_scalar_is_empty(model: ModelPath) -> None:
    session = opened(model("loop"))
    session.set_dynamic_shape("times:;start:1")
    assert [desc.realsize for desc in session.get_inputs()] == [8, 4]
    feeds = [aclruntime.Tensor(np.int64(3)), aclruntime.Tensor(np.zeros(1, np.float32))]
    assert to_numpy(session.run(["counter"], feeds)[0]).tolist() == [3]
    with pytest.raises(ConfigError, match="'start' has shape"):
        session.set_dynamic_shape("times:;start:")


def test_batch_size_and_image_size_set_beforehand(model: ModelPath) -> None:
    with InferSession(0, model("gears_batch")) as session:
        session.set_dynamic_batchsize(2)
        assert session.get_inputs()[0].realsize == 32
        (output,) = session.run([X[:2].ravel()], out_array=True)
        assert np.array_equal(output, -X[:2])
        with pytest.raises(RuntimeError, match="1; 2; 8"):
            session.set_dynamic_batchsize(3)
    with InferSession(0, model("gears_image")) as session:
        session.set_dynamic_hw(8, 16)
        (output,) = session.run([np.ones(384, np.float32)], out_array=True)
        assert output.shape == (1, 3, 8, 16)
        with pytest.raises(RuntimeError, match="8,16; 16,8"):
            session.set_dynamic_hw(8, 8)
    with InferSession(0, model("gears_dims")) as session:
        session.set_dynamic_dims("x:2,6")
        assert session.run([np.ones((2, 6), np.float32)], out_array=True)[0].shape == (2, 6)
        with pytest.raises(RuntimeError, match="1,4; 2,6"):
            session.set_dynamic_dims("x:2,4")


def test_loop_and_times(model: ModelPath) -> None:
    session = opened(model("batch"), loop=3)
    session.run(["y"], [aclruntime.Tensor(X)])
    assert len(session.sumary().exec_time_list) == 3
    session.options().loop = 2
    session.run(["y"], [aclruntime.Tensor(X)])
    assert len(session.sumary().exec_time_list) == 5
    assert session.reset_sumaryinfo() == 0
    assert session.sumary().exec_time_list == []


@pytest.mark.parametrize("mem_copy", [True, False])
def test_iteration_feeds_outputs_to_inputs(model: ModelPath, mem_copy: bool) -> None:
    def by_hand(chain: list[int], times: int) -> list[list[int]]:
        inputs = [A, B]
        for _ in range(times):
            outputs = [inputs[0] - inputs[1], inputs[0] + inputs[1]]
            inputs = [fed if source < 0 else outputs[source] for fed, source in zip(inputs, chain, strict=True)]
        return [output.tolist() for output in outputs]

    with InferSession(0, model("sub_then_swap")) as session:
        for chain in ([0, -1], [-1, 0], [1, 0], [0, 1], [0, 0], [1, 1], [-1, -1]):
            for times in (1, 2, 3, 10):
                got = session.infer_iteration([A, B], chain, times, mem_copy=mem_copy)
                assert [output.tolist() for output in got] == by_hand(chain, times), (chain, times)


def test_iteration_never_leaves_the_device(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        aclruntime.MemorySummary.reset()
        (output,) = session.infer_iteration([X], [0], 100, mode="dymshape")
        assert np.array_equal(output, X)
        assert len(aclruntime.MemorySummary.get_h2d_time_list()) == 1
        assert len(aclruntime.MemorySummary.get_d2h_time_list()) == 1
        assert len(session.summary()) == 100


def test_iteration_by_hand_with_inner_run(model: ModelPath) -> None:
    with InferSession(0, model("sub_then_swap")) as session:
        assert session.first_inner_run([A, B]) == []
        assert session.inner_run([0, -1]) is None
        kept = session.inner_run([1, -1], get_outputs=True)
        assert kept is not None
        session.inner_run([0, -1])
        session.convert_tensors_to_host(kept)
        difference, total = session.convert_tensors_to_arrays(kept)
        first = (A - B) + B  # the total of the second run
        assert difference.tolist() == (first - B).tolist()
        assert total.tolist() == (first + B).tolist()


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([0], "must have 2 entries, one for each input"),
        ([0, 2], "must be -1 or an output, 0 to 1, got"),
        (None, "in_out_list"),
        ([0, 0.5], r"in_out_list\[1\] must be an integer, .*got 0.5"),
        (5, "a list"),
        ([-2, 0], r"in_out_list\[0\] must be the index of an output, or -1 to keep the input, got -2"),
        ([0, -(2**40)], r"in_out_list\[1\] must be the index of an output"),
        ([2**40, 0], r"in_out_list\[0\] must be the index of an output"),
    ],
)
def test_a_chain_that_does_not_fit_is_explained(model: ModelPath, chain: Any, message: str) -> None:
    with InferSession(0, model("sub_then_swap")) as session:
        with pytest.raises(ConfigError, match=message):
            session.infer_iteration([A, B], chain, 3)
        assert session.infer([A, B])[0].tolist() == [8, 6, 4, 2]
        session.first_inner_run([A, B])
        with pytest.raises(ConfigError, match=message):
            session.inner_run(chain)
    with MultiDeviceSession(model("sub_then_swap"), devices=[0]) as many, pytest.raises(ConfigError, match=message):
        many.infer_iteration([A, B], chain, 3)


def test_inner_run_without_a_first_says_so(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session, pytest.raises(ConfigError, match="first_inner_run"):
        session.inner_run([0])


def test_threads_take_turns_in_one_iteration(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session, ThreadPoolExecutor(4) as threads:
        session.first_inner_run([X])

        def step(_: int) -> Any:
            return session.inner_run([0], get_outputs=True)[0]

        results = [to_numpy(tensor) for tensor in threads.map(step, range(200))]
        assert all(np.array_equal(np.abs(result), X) for result in results)


@pytest.mark.parametrize("shapes", [None, 5, "x:99999999999999999999", "x:1,4;x:2,4", "x:72057594037927937,4"])
def test_shapes_set_that_make_no_sense(model: ModelPath, shapes: Any) -> None:
    with InferSession(0, model("batch")) as session:
        with pytest.raises(ConfigError):
            session.set_dynamic_shape(shapes)
        assert session.get_inputs()[0].realsize == 0
        assert np.array_equal(to_numpy(session.run([X])[0]), -X)


def test_output_sizes_are_hints_in_any_form(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        for sizes in (None, 100, np.int64(100), [100], np.array([100, 200])):
            session.set_custom_outsize(sizes)
        with pytest.raises(ConfigError, match="custom_sizes"):
            session.set_custom_outsize("100")


def test_tensors_made_for_a_session(model: ModelPath, tmp_path: Path) -> None:
    A.tofile(tmp_path / "a.bin")
    with InferSession(0, model("sub_then_swap")) as session:
        from_file = session.create_tensor_from_fileslist(session.get_inputs()[0], [str(tmp_path / "a.bin")])
        (from_array,) = session.create_tensor_from_arrays_to_device([B])
        assert from_file.device == from_array.device == 0
        outputs = session.run([from_file, from_array])
        session.convert_tensors_to_host(outputs)
        assert session.convert_tensors_to_arrays(outputs)[0].tolist() == [8, 6, 4, 2]
        with pytest.raises(FeedError, match="16 bytes"):
            session.create_tensor_from_fileslist(session.get_inputs()[0], [str(tmp_path / "a.bin")] * 2)


def test_descriptors_are_made_by_hand_and_filled_in() -> None:
    desc = aclruntime.tensor_desc()
    desc.name, desc.shape = "x", [1, 3]
    assert (desc.name, desc.shape, desc.size, desc.realsize) == ("x", [1, 3], 0, 0)


def test_what_programs_read_of_a_session(model: ModelPath) -> None:
    with InferSession(0, model("sub_then_swap"), debug=False, loop=2) as session:
        assert (session.acl_json_path, session.debug, session.options.loop) == (None, False, 2)
        assert session.get_dym_aipp_input_exist() == 0
        with pytest.raises(UnsupportedError, match="0 inputs"):
            session.check_dym_aipp_input_exist()
        a, b = (session.create_tensor_from_arrays_to_device(values) for values in (A, B))
        outputs = session.run_from_tensors([a, b], out_array=False)
        assert [tensor.device for tensor in outputs] == [0, 0]
    InferSession.convert_tensors_to_host(outputs)  # called on the class, not on a session
    assert InferSession.convert_tensors_to_arrays(outputs)[0].tolist() == [8, 6, 4, 2]


def test_the_names_of_later_programs(model: ModelPath) -> None:
    session = opened(model("sub_then_swap"))
    assert session.set_context() == 0
    a, b = aclruntime.Tensor(A, 0), aclruntime.Tensor(B, 0)
    assert (a.device, a.nbytes, a.to_device(0)) == (0, A.nbytes, None)
    assert a.data_ptr not in (0, b.data_ptr)
    (difference,) = session.run_from_tensors(["difference"], [a, b])
    assert difference.device == 0
    assert to_numpy(difference).tolist() == [8, 6, 4, 2]
    assert isinstance(session.summary(), aclruntime.Summary)
    assert len(session.summary().exec_time_list) == 1
    session.reset_summaryinfo()
    assert session.sumary().exec_time_list == []
