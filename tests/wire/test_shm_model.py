"""A model behind a lane gives the same results as in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ais_bench import errors
from ais_bench.session import InferSession
from ais_bench.shm import ERROR
from support.shm_peer import peer

SHAPE_MODE = 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model with two outputs: one of the feed's shape, one whose size depends on the values."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("NonZero", ["x"], ["where"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("where", TensorProto.INT64, [2, "count"]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(made, file)
    return file


@pytest.mark.parametrize("rows", [1, 40, 100_000])
def test_outputs_of_known_and_unknown_size_equal_those_in_process(path: Path, rows: int) -> None:
    here = InferSession(0, str(path))
    with peer("model", str(path)) as worker:
        for zeros in (rows, rows // 2, 0):
            feed = np.random.default_rng(rows).random((rows, 3), np.float32) + 1
            feed[:zeros] = 0
            outputs = worker.call([feed], mode=SHAPE_MODE).outputs
            expected = here.infer([feed], "dymshape")
            assert [output.dtype for output in outputs] == [output.dtype for output in expected]
            for output, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(output, wanted)


def test_outputs_that_outgrow_their_slot_come_all_the_same(path: Path) -> None:
    feed = np.ones((700_000, 3), np.float32)
    with peer("model", str(path), arena_bytes=1 << 30, result_bytes=1 << 20) as worker:
        for _ in range(2):
            twice, where = worker.call([feed], mode=SHAPE_MODE).outputs
            assert (twice == 2).all()
            assert where.shape == (2, feed.size)


def test_feeds_that_do_not_fit_fail_that_task_only(path: Path) -> None:
    with peer("model", str(path)) as worker:
        reply = worker.call([np.zeros(4, np.float32)], mode=SHAPE_MODE)
        assert reply.kind == ERROR
        assert isinstance(reply.error, errors.FeedError)
        assert "x" in str(reply.error)
        assert isinstance(worker.call([np.zeros((1, 3), np.float32)], mode=99).error, errors.ConfigError)
        assert worker.call([np.ones((2, 3), np.float32)], mode=SHAPE_MODE).outputs[0].tolist() == [[2, 2, 2]] * 2
