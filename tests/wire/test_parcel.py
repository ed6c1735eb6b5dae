"""Objects that travel to workers once: models as bytes, and large arrays of callables."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from ais_bench import _native
from ais_bench.errors import ConfigError, DeviceMemoryError
from ais_bench.session import MultiDeviceSession
from ais_bench.wire.parcel import Parcel, pack, receive
from support.session import DEVICES, Feeds, pair, same, total

pytestmark = pytest.mark.usefixtures("leaves_nothing")

MIB = 1 << 20


def opened(parcel: Parcel) -> Any:
    """Open a parcel like a worker."""
    return (parcel.inline or receive(os.dup(parcel.fd), parcel.sizes)).load()


def test_a_small_object_goes_with_the_message_and_a_large_one_in_memory() -> None:
    for obj, in_memory in (({"a": np.arange(10), "b": "text"}, False), ({"a": np.arange(100_000), "b": b"x" * 100_000}, True)):
        parcel = Parcel.of(obj)
        try:
            assert (parcel.fd >= 0, parcel.inline is None) == (in_memory, in_memory)
            again = opened(parcel)
            assert np.array_equal(again["a"], obj["a"])  # type: ignore[arg-type]
            assert again["b"] == obj["b"]
        finally:
            parcel.close()
        parcel.close()


@pytest.mark.parametrize("size", [100, 100_000])
def test_it_is_the_object_as_it_was_and_what_is_made_of_it_is_one_s_own(size: int) -> None:
    array = np.zeros(size)
    parcel = Parcel.of([array, array])
    array[:] = 1
    try:
        first, second = opened(parcel), opened(parcel)
        assert first[0] is first[1]
        assert first[0].flags.writeable
        first[0][:] = 2
        assert not second[0].any()
        assert not opened(parcel)[0].any()
    finally:
        parcel.close()


def test_a_packed_object_in_another_one() -> None:
    table = np.arange(50_000)
    parcel = Parcel.of({"inner": pack(lambda: table.sum()), "more": table})
    try:
        again = opened(parcel)
        assert again["inner"].load()() == table.sum()
        assert len(parcel.sizes) == 3  # the pickles, and the table twice, because pickles are not searched
    finally:
        parcel.close()


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ConfigError, match="generator"):
        Parcel.of({"good": 1, "bad": (number for number in [1])})


def test_a_system_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "memfd_create", refuse)
    parcel = Parcel.of(np.arange(100_000))
    try:
        assert np.array_equal(opened(parcel), np.arange(100_000))
    finally:
        parcel.close()


def test_more_than_there_is_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "memory_room", lambda: (1000_000, 70_000, "the limit of a test"))
    with pytest.raises(
        DeviceMemoryError, match=r"need 80\d{3} bytes .* only 70000 bytes are left of the limit of a test, 1000000"
    ):
        Parcel.of(np.zeros(10_000))


def weights_model(path: Path, mebibytes: int) -> str:
    """y = x + a large table's first entry."""
    table = numpy_helper.from_array(np.ones(mebibytes * MIB // 4, np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [table],
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())
    return str(path)


def own_memory(session: MultiDeviceSession) -> list[int]:
    """Return the private bytes of each worker, with its part of shared memory."""
    processes = [psutil.Process(worker.pid) for worker in session.report().workers]
    return [process.memory_full_info().uss for process in processes]


def test_a_model_given_as_bytes_is_not_kept_in_the_workers(tmp_path: Path) -> None:
    """Workers need as much memory as with the model's path, also with callables."""
    path = weights_model(tmp_path / "weights.onnx", 64)
    feeds = [np.arange(3)]
    used = []
    for model in (path, Path(path).read_bytes()):
        with MultiDeviceSession(model, devices=DEVICES, postprocess=lambda outputs: float(outputs[0].sum())) as session:
            assert [session.infer({device: [feeds]}) for device in DEVICES] == [{device: [3.0]} for device in DEVICES]
            used.append(own_memory(session))
            for worker in session.report().workers:
                assert "ais_bench-parcel" not in Path(f"/proc/{worker.pid}/maps").read_text()
    for by_path, by_bytes in zip(*used, strict=True):
        assert by_bytes < by_path + 16 * MIB


def test_a_large_table_of_a_callable_is_shared_by_the_workers(models: dict[str, str]) -> None:
    table = np.ones(64 * MIB // 4, np.float32)

    def before(item: int) -> Feeds:
        feeds = pair(item)
        feeds[0] += table[::4096].sum() - len(table[::4096])  # adds 0, but reads the table
        return feeds

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before) as session:
        for item, outputs in enumerate(session.map(range(10))):
            same(outputs, [total(pair(item))])
        session.infer({device: [1] for device in DEVICES})  # memory that only one worker has read counts as private
        plain = own_memory(session)
    assert all(used < 40 * MIB + baseline(models["open"]) for used in plain)


def baseline(model: str) -> int:
    with MultiDeviceSession(model, devices=[0], preprocess=pair) as session:
        session.infer(1)
        return own_memory(session)[0]


def test_a_worker_that_is_started_again_finds_the_parcel(models: dict[str, str]) -> None:
    table = np.full(MIB, 7, np.float32)

    def before(item: int) -> Feeds:
        return [np.full((1, 3), table[item], np.float32), np.zeros((1, 3), np.float32)]

    with MultiDeviceSession(models["open"], devices=[0], preprocess=before, restart_backoff=0.0) as session:
        table[:] = 0  # no effect: callables are copied when the session is made
        for _ in range(2):
            assert session.infer(5)[0][0, 0] == 7
            (worker,) = session.report().workers
            assert worker.pid is not None
            psutil.Process(worker.pid).kill()


def test_a_session_that_never_starts_leaves_nothing(models: dict[str, str], onnx_model: Callable[[str], str]) -> None:
    table = np.zeros(MIB)
    session = MultiDeviceSession(models["open"], devices=[0], preprocess=lambda item: table)
    del session  # the fixture checks for leaks
    with MultiDeviceSession(models["open"], devices=[0], preprocess=lambda item: table):
        pass
