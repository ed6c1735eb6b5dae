"""Shapes outside of the range for which a model was compiled are refused before the run, with the range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.emulator import pack
from ais_bench.errors import AisBenchError, FeedError
from ais_bench.session import InferSession, MultiDeviceSession
from support import models
from support.scripts import run_script

pytestmark = [
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.usefixtures("npu"),
    pytest.mark.filterwarnings("ignore::ais_bench.errors.FeedWarning"),
]

Call = Callable[[Any, list[Any]], Any]


def packed(folder: Path, name: str, input_shape: str) -> str:
    path = folder / f"{name}.onnx"
    path.write_bytes(models.build(name).SerializeToString())
    return str(pack(path, folder / f"{name}.om", input_shape=input_shape))


ONE: dict[str, Call] = {
    "infer": lambda session, feeds: session.infer(feeds, "dymshape"),
    "tensors": lambda session, feeds: session.infer(feeds, "dymshape", out_array=False),
    "static": lambda session, feeds: session.infer(feeds),
    "run": lambda session, feeds: session.run(feeds, out_array=True),
    "infer_pipeline": lambda session, feeds: session.infer_pipeline([feeds], "dymshape"),
    "infer_iteration": lambda session, feeds: session.infer_iteration(feeds, [0], 2, "dymshape"),
    "first_inner_run": lambda session, feeds: session.first_inner_run(feeds, "dymshape"),
}
MANY: dict[str, Call] = {
    "infer": lambda session, feeds: session.infer(feeds, "dymshape"),
    "map": lambda session, feeds: list(session.map([feeds])),
    "submit": lambda session, feeds: session.submit(feeds).result(60),
    "by device": lambda session, feeds: session.infer({0: [feeds]}),
    "infer_iteration": lambda session, feeds: session.infer_iteration(feeds, [0], 2),
}
X = [
    (np.empty((0, 4), np.float32), r"'x' takes shape \(-1, 4\) of float32 with dimension 0 of 2 to 8.*given shape \(0, 4\)"),
    (np.empty(0, np.float32), r"dimension 0 of 2 to 8.*given shape \(0,\) of float32, taken as \(0, 4\); pad"),
    (np.ones((1, 4), np.float32), r"dimension 0 of 2 to 8.*given shape \(1, 4\).*; pad the input"),
    (np.ones(4, np.float32), r"dimension 0 of 2 to 8.*given shape \(4,\) of float32, taken as \(1, 4\); pad the input"),
    (np.ones((9, 4), np.float32), r"dimension 0 of 2 to 8.*given shape \(9, 4\).*; split the input"),
    (np.ones(9 * 16, np.uint8), r"dimension 0 of 2 to 8.*given shape \(144,\) of uint8, taken as \(9, 4\)"),
]


@pytest.mark.parametrize("call", ONE)
def test_a_shape_outside_of_the_range_is_refused_by_name(tmp_path: Path, call: str) -> None:
    right = np.ones((2, 4), np.float32)
    with InferSession(0, packed(tmp_path, "batch", "x:2~8,4")) as session:
        for wrong, words in X:
            with pytest.raises(FeedError, match=words):
                ONE[call](session, [wrong])
        ONE[call](session, [right])
        assert np.array_equal(session.infer([right])[0], -right)
        for wrong, words in X:  # again after a run
            with pytest.raises(FeedError, match=words):
                ONE[call](session, [wrong])


@pytest.mark.parametrize("call", MANY)
def test_a_pool_says_the_same(tmp_path: Path, call: str) -> None:
    with MultiDeviceSession(packed(tmp_path, "batch", "x:2~8,4"), devices=[0]) as session:
        for wrong, words in X:
            with pytest.raises(FeedError, match=words):
                MANY[call](session, [wrong])
        MANY[call](session, [np.ones((8, 4), np.float32)])


def test_without_an_upper_bound_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    with InferSession(0, packed(tmp_path, "batch", "x:-1,4")) as session:
        for mode in ("static", "dymbatch", "dymdims", "dymhw", "dymshape"):
            with pytest.raises(FeedError, match=r"'x' takes .* with dimension 0 of at least 1,.*given shape \(0, 4\)"):
                session.infer([np.empty((0, 4), np.float32)], mode)
        session.set_dynamic_shape("x:0,4")
        with pytest.raises(FeedError, match=r"dimension 0 of at least 1"):
            session.run([np.empty((0, 4), np.float32)])
        session.set_staticbatch()
        assert session.infer([np.ones((300, 4), np.float32)])[0].shape == (300, 4)


def test_an_iteration_that_grows_out_of_the_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.onnx"
    path.write_bytes(
        models.wrap(
            [models.helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
            models.values([("x", ["n", 4])]),
            models.values([("y", ["m", 4])]),
        ).SerializeToString()
    )
    with InferSession(0, pack(path, tmp_path / "twice.om", input_shape="x:1~4,4")) as session:
        assert session.infer_iteration([np.ones((1, 4), np.float32)], [0], 3)[0].shape == (8, 4)
        with pytest.raises(FeedError, match=r"dimension 0 of 1 to 4.*given shape \(8, 4\).*split"):
            session.infer_iteration([np.ones((1, 4), np.float32)], [0], 4)


@pytest.mark.parametrize("mode", ["static", "dymbatch", "dymshape"])
@pytest.mark.parametrize("batch", [0, 3, 9])
def test_a_batch_that_is_no_gear_gets_the_same_advice_in_every_mode(tmp_path: Path, mode: str, batch: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.build("batch").SerializeToString())
    om = pack(path, tmp_path / "m.om", input_shape="x:-1,4", dynamic_batch_size="1,2,8")
    wrong = np.ones((batch, 4), np.float32)
    words = rf"the inputs need gear {batch}, and the model has only gears 1; 2; 8 \(dymbatch\); pad or split the inputs to one"
    with InferSession(0, om) as session:
        for call in (
            lambda: session.infer([wrong], mode),
            lambda: session.infer_pipeline([[wrong]], mode),
            lambda: session.infer_iteration([wrong], [0], 2, mode),
            lambda: session.infer([wrong], mode, out_array=False),
        ):
            with pytest.raises(FeedError, match=words):
                call()
    with MultiDeviceSession(om, devices=[0]) as many, pytest.raises(FeedError, match=words):
        many.infer([wrong], mode)


WITHOUT = """
import sys
import numpy as np
from ais_bench.emulator import npus
from ais_bench.errors import InferenceError
from ais_bench.session import InferSession
with npus(1, without=["aclmdlGetInputDimsRange"]), InferSession(0, sys.argv[1]) as session:
    for call in (lambda x: session.infer([x]), lambda x: session.infer_pipeline([[x], [x]])[0]):
        for _ in range(2):
            try:
                call(np.ones((9, 4), np.float32))
            except InferenceError as error:
                assert error.code == 100000, error.code
                text = str(error)
                assert "the inputs had the shapes (9, 4) ('x')" in text and "for which the model was not compiled" in text, text
            else:
                sys.exit("it ran")
            assert call(np.ones((2, 4), np.float32))[0].shape == (2, 4)
print("named")
"""


def test_a_library_that_tells_no_ranges_is_helped_out(tmp_path: Path) -> None:
    assert run_script(WITHOUT, packed(tmp_path, "batch", "x:2~8,4")) == "named\n"


def test_every_way_to_feed_nothing_is_no_devices_error(tmp_path: Path) -> None:
    """Missing and empty feeds are refused with our own errors, without a number of the device."""
    nothing: list[Any] = [
        [],
        (),
        {},
        [[]],
        [()],
        [None],
        [""],
        [b""],
        [bytearray()],
        [memoryview(b"")],
        [np.empty(0, np.float32)],
        [np.empty((0, 4), np.float32)],
        [np.empty((4, 0), np.float32)],
        [np.empty((0, 0), np.float32)],
        [np.float32(1)],
        np.empty((0, 4), np.float32),
        np.empty((1, 0, 4), np.float32),
        np.empty(0, np.uint8),
        iter([]),
    ]
    shapes = {"ranged": "x:2~8,4", "open": "x:-1,4", "fixed": "x:2,4"}
    for name, shape in shapes.items():
        with InferSession(0, packed(tmp_path, "batch", shape)) as session:
            for feeds in nothing:
                for mode in ("static", "dymshape"):
                    with pytest.raises(AisBenchError) as caught:
                        session.infer(feeds, mode)
                    assert isinstance(caught.value, FeedError), (name, feeds, mode, caught.value)
                    with pytest.raises(FeedError):
                        session.infer_pipeline([feeds], mode)
