"""State objects after an error: they are unchanged, or refuse calls. They never give a wrong result or crash."""

from __future__ import annotations

import resource
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import aclruntime
from ais_bench.errors import ConfigError, FeedError, FeedWarning, InferenceError
from ais_bench.session import InferSession

Path_ = Callable[[str], str]
pytestmark = pytest.mark.usefixtures("leaves_nothing")
X = np.arange(4, dtype=np.float32) + 1


# ---- outputs that the runtime does not write ----


def test_an_output_that_is_an_input_has_the_inputs_values(model: Path_) -> None:
    with InferSession(0, model("hand_through_fixed")) as session:
        for number in range(1, 4):  # no run uses memory of an earlier one
            x = X * number
            same = [x.tolist(), (-x).tolist()]
            assert [y.tolist() for y in session.infer([x])] == same
            assert [y.tolist() for y in session.infer_pipeline([[x]])[0]] == same
            assert [y.tolist() for y in session.run([x], out_array=True)] == same
            tensors = session.infer([x], out_array=False)
            session.convert_tensors_to_host(tensors)
            assert [np.array(tensor).tolist() for tensor in tensors] == same
            assert [y.tolist() for y in session.infer_iteration([x], [1], 3)] == same
            assert [y.tolist() for y in session.infer_iteration([x], [0], 3)] == same


# ---- chained runs ----


def grow(session: InferSession, times: int) -> list[np.ndarray]:
    return session.infer_iteration([np.ones((1, 4), np.float32)], [0], times, "dymbatch")


def test_what_is_chained_is_held_to_the_gears(model: Path_) -> None:
    with InferSession(0, model("doubling")) as session:
        assert grow(session, 1)[0].shape == (2, 4)
        assert grow(session, 2)[0].shape == (4, 4)
        with pytest.raises(FeedError, match="gear 4.*only gears 1; 2; 8"):
            grow(session, 3)
        session.first_inner_run([np.ones((1, 4), np.float32)], "dymbatch")
        session.inner_run([0])
        for _ in range(2):
            with pytest.raises(FeedError, match="gear 4"):
                session.inner_run([0])
        assert grow(session, 2)[0].shape == (4, 4)


def test_what_is_chained_warns_of_another_type(model: Path_) -> None:
    with InferSession(0, model("to_integers")) as session:
        with pytest.warns(FeedWarning, match="'x' takes float32 and was given int32"):
            session.infer_iteration([X], [0], 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bits = session.infer_iteration([X], [0], 2)[0]
        assert bits.tolist() == X.astype(np.int32).view(np.float32).astype(np.int32).tolist()


def test_what_is_chained_is_refused_for_another_width(model: Path_) -> None:
    with InferSession(0, model("to_doubles")) as session:
        x = np.ones((2, 4), np.float32)
        with pytest.raises(FeedError, match=r"x\.astype\(np\.float32\)"):
            session.infer_iteration([x], [0], 2, "dymshape")
        session.first_inner_run([x], "dymshape")
        for _ in range(3):
            with pytest.raises(FeedError, match=r"x\.astype\(np\.float32\)"):
                session.inner_run([0])
        outputs = session.inner_run([-1], get_outputs=True)
        assert outputs is not None
        session.convert_tensors_to_host(outputs)
        assert np.array_equal(np.array(outputs[0]), x)


def inner(session: InferSession, chain: list[int]) -> list[list[float]]:
    outputs = session.inner_run(chain, get_outputs=True)
    assert outputs is not None
    session.convert_tensors_to_host(outputs)
    return [np.array(output).tolist() for output in outputs]


def test_a_step_that_fails_leaves_the_iteration_as_it_was(model: Path_) -> None:
    keep = np.array([5], np.float32)
    with InferSession(0, model("look_up")) as session:
        session.first_inner_run([np.array([0]), keep])  # next is 1
        assert inner(session, [0, 1]) == [[2], [5]]
        assert inner(session, [0, 1]) == [[9], [-5]]
        for _ in range(3):  # index 9 is outside of the table
            with pytest.raises(InferenceError):
                session.inner_run([0, 1])
        with pytest.raises(ConfigError, match="'keep', whose memory a run that failed has written over"):
            session.inner_run([0, -1])
        with pytest.raises(ConfigError, match="'index'"):
            session.inner_run([-1, 1])
        session.first_inner_run([np.array([1]), keep])
        assert inner(session, [-1, 1]) == [[2], [5]]


def test_a_first_run_that_fails_leaves_the_one_before(model: Path_) -> None:
    keep = np.array([5], np.float32)
    with InferSession(0, model("look_up")) as session:
        low = aclruntime.InferenceSession(model("look_up"), 0, aclruntime.session_options())
        with pytest.raises(InferenceError):
            session.first_inner_run([np.array([7]), keep])
        with pytest.raises(ConfigError, match="first_inner_run"):
            session.inner_run([0, 1])
        session.first_inner_run([np.array([0]), keep])
        for wrong in ([np.array([7]), keep], [np.array([0, 1]), keep], [np.array([0])]):
            with pytest.raises((FeedError, InferenceError)):
                session.first_inner_run(wrong)
        assert inner(session, [0, 1]) == [[2], [5]]
        low.free_resource()


def test_a_native_iteration_after_a_first_run_that_failed(model: Path_) -> None:
    """The native object refuses a step without a successful first run, and does not read an empty list."""
    from ais_bench import _native

    keep = np.array([5], np.float32)
    with InferSession(0, model("look_up")) as session:
        iteration = _native.Iteration(session._native)
        for _ in range(2):
            with pytest.raises(InferenceError):
                iteration.first(session._native, [np.array([7]), keep], "static")
            with pytest.raises(ConfigError):
                iteration.step([0, 1])
            with pytest.raises(ConfigError):
                iteration.outputs()
        iteration.first(session._native, [np.array([0]), keep], "static")
        with pytest.raises(InferenceError):
            iteration.first(session._native, [np.array([7]), keep], "static")
        iteration.step([0, 1])
        tensors = iteration.outputs()
        for tensor in tensors:
            tensor.to_host()
        assert [np.array(tensor).tolist() for tensor in tensors] == [[2], [5]]


# ---- tensors ----


def test_a_tensor_is_moved_by_threads_at_once(runtime: str) -> None:
    """On a device with its own memory, one of two concurrent moves must not free memory that the other one copies."""
    values = np.arange(1 << 16, dtype=np.float32)
    tensor = aclruntime.Tensor(values)
    barrier = threading.Barrier(3)
    failures: list[BaseException] = []

    def move(rounds: int) -> None:
        barrier.wait(60)
        try:
            for _ in range(rounds):
                tensor.to_device(0)
                tensor.to_host()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=move, args=(100,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tensor.to_host()
    assert failures == []
    assert np.array_equal(np.array(tensor), values)


def test_a_tensor_keeps_no_memory_of_its_earlier_places(runtime: str) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    tensor = aclruntime.Tensor(np.ones(1 << 20, np.float32))
    before = resident()
    for _ in range(100):
        tensor.to_device(0)
        tensor.to_host()
        assert np.asarray(memoryview(tensor))[-1] == 1
    assert resident() - before < 100 << 20  # of 400 MiB that were there in turn


def test_a_buffer_keeps_its_memory_when_the_tensor_moves(runtime: str) -> None:
    tensor = aclruntime.Tensor(np.arange(1 << 16, dtype=np.float32))
    view = memoryview(tensor)
    array = np.asarray(view)
    for _ in range(3):
        tensor.to_device(0)
        tensor.to_host()
    del tensor
    assert view.shape == (1 << 16,)
    assert array[-1] == (1 << 16) - 1
