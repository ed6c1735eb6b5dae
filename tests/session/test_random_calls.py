"""Random sequences of calls on the same sessions: each result depends only on its feeds, not on earlier calls.

AIS_BENCH_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from ais_bench.errors import AisBenchError, ConfigError, FeedError, InferenceError
from ais_bench.session import InferSession, MultiDeviceSession
from support import MORE
from support.models import values, wrap
from support.random_models import TYPES, Declared, Reference, Wanted, a_feed, a_model, bits

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
Arrays = list[Any]


def on_host(tensors: list[Any]) -> Arrays:
    for tensor in tensors:
        tensor.to_host()
    return [np.array(tensor) for tensor in tensors]


def stepwise(one: InferSession, feeds: Any) -> Arrays:
    one.first_inner_run(feeds, "dymshape")
    one.inner_run([-1] * len(one.get_inputs()))
    return on_host(one.inner_run([-1] * len(one.get_inputs()), get_outputs=True))  # type: ignore[arg-type]


ONE: dict[str, Callable[[InferSession, Any], Arrays]] = {
    "infer": lambda one, feeds: one.infer(feeds, "dymshape"),
    "infer, static": lambda one, feeds: one.infer(feeds),
    "infer, tensors": lambda one, feeds: on_host(one.infer(feeds, "dymdims", out_array=False)),
    "infer_pipeline": lambda one, feeds: one.infer_pipeline([feeds, feeds])[1],
    "infer_iteration": lambda one, feeds: one.infer_iteration(feeds, [-1] * len(one.get_inputs()), 3),
    "infer_iteration, once": lambda one, feeds: one.infer_iteration(feeds, None, 1),
    "run": lambda one, feeds: one.run(feeds, out_array=True),
    "inner_run": stepwise,
}
MANY: dict[str, Callable[[MultiDeviceSession, Any], Arrays]] = {
    "infer": lambda many, feeds: many.infer(feeds),
    "by device": lambda many, feeds: many.infer({0: [feeds, feeds]}, "dymshape")[0][1],
    "map": lambda many, feeds: list(many.map([feeds, feeds]))[1],
    "map_unordered": lambda many, feeds: next(iter(list(many.map_unordered([feeds]))))[1],
    "submit": lambda many, feeds: many.submit(feeds).result(60),
    "infer_pipeline": lambda many, feeds: many.infer_pipeline([feeds, feeds])[1],
    "infer_iteration": lambda many, feeds: many.infer_iteration(feeds, [-1] * len(many.get_inputs()), 2),
}


def outcome_of(call: Callable[[], Arrays]) -> list[Any] | Exception:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [bits(output) for output in call()]
        except (FeedError, InferenceError) as error:
            return error


def check(name: str, outcome: list[Any] | Exception, wanted: Wanted) -> None:
    if wanted.outputs is None:
        assert isinstance(outcome, FeedError if wanted.refused else Exception), (name, outcome)
    else:
        assert outcome == wanted.outputs, (name, outcome)


def in_form(form: str, names: list[str], feeds: Arrays) -> Any:
    return {"list": list, "tuple": tuple, "mapping": lambda given: dict(reversed(list(zip(names, given, strict=True))))}[form](
        feeds
    )


@pytest.mark.random
@pytest.mark.parametrize("part", range(2))
def test_sequences_of_calls(part: int) -> None:
    @settings(max_examples=15 * MORE, deadline=None, database=None, suppress_health_check=QUIET)
    @seed(part)
    @given(a_model(), st.data())
    def sequence(made: tuple[ModelProto, list[str], Declared], data: st.DataObject) -> None:
        model, names, declared = made
        reference = Reference(model, names, declared)
        content = model.SerializeToString()
        calls = st.one_of(*[st.sampled_from([("one", way) for way in ONE]), st.sampled_from([("many", way) for way in MANY])])
        with InferSession(0, content, threads=1) as one, MultiDeviceSession(content, devices=[0]) as many:
            for _ in range(12):
                side, way = data.draw(calls)
                feeds = [data.draw(a_feed(dtype, shape)) for dtype, shape in declared]
                given = in_form(data.draw(st.sampled_from(["list", "tuple", "mapping"])), names, feeds)
                call = (lambda: ONE[way](one, given)) if side == "one" else (lambda: MANY[way](many, given))  # noqa: B023
                check(f"{side}: {way}", outcome_of(call), reference.wanted(feeds))

    sequence()


@pytest.mark.random
@pytest.mark.parametrize("part", range(2))
def test_chained_iterations(part: int) -> None:
    """`infer_iteration` equals a loop of `infer` that feeds outputs back: the same outputs, or the same kind of error."""

    @settings(max_examples=60 * MORE, deadline=None, database=None, suppress_health_check=QUIET)
    @seed(part)
    @given(a_model(), st.data())
    def iteration(made: tuple[ModelProto, list[str], Declared], data: st.DataObject) -> None:
        model, names, declared = made
        with InferSession(0, model.SerializeToString(), threads=1) as session:
            outputs = len(session.get_outputs())
            for _ in range(3):
                feeds = [data.draw(a_feed(dtype, shape)) for dtype, shape in declared]
                chain = [data.draw(st.integers(-1, outputs - 1)) for _ in names]
                times = data.draw(st.integers(1, 4))

                def looped(feeds: Arrays = feeds, chain: list[int] = chain, times: int = times) -> Arrays:
                    given = list(feeds)
                    for turn in range(times):
                        found = session.infer(given, "dymshape")
                        given = [feed if index < 0 else found[index] for feed, index in zip(feeds, chain, strict=True)]
                        assert turn >= 0
                    return found

                expected = outcome_of(looped)
                found = outcome_of(lambda: session.infer_iteration(feeds, chain, times, "dymshape"))  # noqa: B023
                if isinstance(expected, Exception):
                    assert isinstance(found, type(expected)), (chain, times, found, expected)
                else:
                    assert found == expected, (chain, times, found, expected)

    iteration()


KINDS = [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64, TensorProto.UINT8]


@st.composite
def a_batched_model(draw: st.DrawFn) -> tuple[ModelProto, list[tuple[int, list[int]]], int | None]:
    """Draw inputs of [batch, ...], each passed on or transposed so that the batch is last; the batch is open or fixed."""
    batch = draw(st.sampled_from([None, None, 1, 2, 3]))
    axis: int | str = "batch" if batch is None else batch
    nodes, inputs, outputs, declared = [], [], [], []
    for index in range(draw(st.integers(1, 2))):
        kind, rest = draw(st.sampled_from(KINDS)), draw(st.lists(st.integers(4, 6), max_size=2))
        declared.append((kind, rest))
        inputs += values([(f"x{index}", [axis, *rest])], kind)
        if draw(st.booleans()):
            outputs += values([(f"y{index}", [axis, *rest])], kind)
            nodes.append(helper.make_node("Identity", [f"x{index}"], [f"y{index}"]))
        else:
            outputs += values([(f"y{index}", [*rest, axis])], kind)
            order = [*range(1, len(rest) + 1), 0]
            nodes.append(helper.make_node("Transpose", [f"x{index}"], [f"y{index}"], perm=order))
    return wrap(nodes, inputs, outputs), declared, batch


def test_whole_data_sets() -> None:
    """`infer_batch` gives the result of one run over all samples, for any batch, padding and layout of arrays."""

    @settings(max_examples=12 * MORE, deadline=None, database=None, suppress_health_check=QUIET)
    @seed(0)
    @given(a_batched_model(), st.data())
    def whole(made: tuple[ModelProto, list[tuple[int, list[int]]], int | None], data: st.DataObject) -> None:
        model, declared, batch = made
        transposed = [node.op_type == "Transpose" for node in model.graph.node]
        with MultiDeviceSession(model.SerializeToString(), devices=[0]) as many:
            for _ in range(6):
                samples = data.draw(st.integers(0, 9))
                arrays = []
                for kind, rest in declared:
                    array = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 9, [samples, *rest])
                    array = array.astype(np.float32).astype(TYPES[kind])
                    layout = data.draw(st.sampled_from(["plain", "fortran", "negative", "foreign"]))
                    if layout == "fortran":
                        array = np.asfortranarray(array)
                    elif layout == "negative":
                        array = np.ascontiguousarray(array[::-1])[::-1]
                    elif layout == "foreign" and array.dtype != np.dtype(ml_dtypes.bfloat16):
                        array = array.astype(array.dtype.newbyteorder(">"))
                    arrays.append(array)
                size = data.draw(st.sampled_from([None, batch if batch is not None else 2, 4 if batch is None else batch]))
                given = in_form(data.draw(st.sampled_from(["list", "mapping"])), [f"x{i}" for i in range(len(arrays))], arrays)
                found = many.infer_batch(given, size)
                for output, array, turned in zip(found, arrays, transposed, strict=True):
                    plain = array.astype(array.dtype.newbyteorder("="))
                    if samples == 0:
                        assert output.size == 0
                        continue
                    assert bits(output) == bits(np.moveaxis(plain, 0, -1) if turned and plain.ndim > 1 else plain)

    whole()


TEXTS: list[Any] = [
    np.array(["a", "b"]),
    np.array([b"a", b"b"]),
    np.array(["a", None], object),
    np.array([{}, {}], object),
    "ab",
    b"ab",
    {"a": 1},
    None,
    np.datetime64("2026-01-01"),
    np.zeros(2, [("a", "f4")]),
]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_what_no_device_takes_is_refused_by_name_everywhere(text: Any) -> None:
    content = wrap([helper.make_node("Neg", ["x"], ["y"])], values([("x", ["n"])]), values([("y", ["n"])])).SerializeToString()
    right = np.ones(2, np.float32)
    with InferSession(0, content) as one, MultiDeviceSession(content, devices=[0]) as many:
        for side, session in (({**ONE}, one), ({**MANY, "infer_batch": lambda many, feeds: many.infer_batch(feeds)}, many)):
            for name, call in side.items():
                with pytest.raises(FeedError, match="input 'x' is ") as caught:
                    call(session, [text])  # type: ignore[operator]
                assert isinstance(caught.value, TypeError), name
                assert bits(call(session, [right])[0]) == bits(-right), name  # type: ignore[operator]


def test_numbers_that_a_chain_cannot_have() -> None:
    content = wrap([helper.make_node("Neg", ["x"], ["y"])], values([("x", ["n"])]), values([("y", ["n"])])).SerializeToString()
    with InferSession(0, content) as one:
        one.first_inner_run([np.ones(2, np.float32)])
        for chain in ([-2], [1], [0, 0], [], [None], [0.0], ["x"], "0", {0: 0}, np.array(0)):
            with pytest.raises(ConfigError, match="in_out_list"):
                one.inner_run(chain)  # type: ignore[arg-type]
            with pytest.raises(AisBenchError, match="in_out_list"):
                one.infer_iteration([np.ones(2, np.float32)], chain, 2)  # type: ignore[arg-type]
        assert on_host(one.inner_run([0], get_outputs=True))[0].tolist() == [1, 1]  # type: ignore[arg-type]
