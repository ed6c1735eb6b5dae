"""MultiDeviceSession: the same results as InferSession on any device, and every kind of call."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import ConfigError, FeedError
from ais_bench.session import Carry, InferSession, MultiDeviceSession
from support.session import DEVICES, Feeds, pair, same, total
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# ---- equal results ----


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16])
def test_every_element_type_equals_one_device(models: dict[str, str], kind: int) -> None:
    from onnx import helper

    path = models[f"identity{kind}"]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    shapes = [(1, 1), (5, 7), (64, 1000)]
    feeds = [[np.frombuffer(np.random.default_rng(7).bytes(a * b * dtype.itemsize), np.uint8) % 2] for a, b in shapes]
    feeds = [[one[0].view(dtype).reshape(shape)] for one, shape in zip(feeds, shapes, strict=True)]
    alone = InferSession(0, path)
    with MultiDeviceSession(path, devices=DEVICES) as session:
        for given, result in zip(feeds, session.map(feeds, mode="dymshape"), strict=True):
            same(result, alone.infer(given, "dymshape"))
    alone.free_resource()


def test_arrays_without_elements_equal_one_device(models: dict[str, str]) -> None:
    feeds = [np.empty((0, 3), np.float32)]
    with InferSession(0, models["identity1"]) as alone, MultiDeviceSession(models["identity1"], devices=DEVICES) as session:
        same(session.infer(feeds, "dymshape"), alone.infer(feeds, "dymshape"))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_feed_order_whatever_the_number_of_workers(models: dict[str, str], workers: int) -> None:
    each = max(1, workers // len(DEVICES))
    devices = DEVICES if workers > 1 else [0]
    with MultiDeviceSession(models["open"], devices=devices, workers_per_device=each) as session:
        feeds = [pair(n, 1 + n % 5) for n in range(300)]
        for given, result in zip(feeds, session.map(feeds), strict=True):
            same(result, [total(given)])


def test_outputs_of_unknown_size_and_of_no_bytes(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["nonzero"], devices=DEVICES) as session:
        for ones in (0, 1, 7, 100_000):
            x = np.zeros(200_000, np.float32)
            x[:ones] = 1
            same(session.infer([x], "dymshape"), [np.arange(ones, dtype=np.int64)[None]])
            same(session.infer([x], "dymshape", custom_sizes=1), [np.arange(ones, dtype=np.int64)[None]])


def test_feeds_of_any_size(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["bytes"], devices=DEVICES) as session:
        for size in (1, 63, 4096, 65_537, 3_000_001, 64 << 20):
            feeds = [np.random.default_rng(n).integers(0, 255, size, np.uint8) for n in range(3)]
            for given, result in zip(feeds, session.map([[feed] for feed in feeds]), strict=True):
                same(result, [given])


# ---- kinds of calls ----


def test_the_guides_form_obeys_the_devices(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["open"]) as session:
        given = {device: [pair(10 * device + n) for n in range(5 + device)] for device in DEVICES}
        outputs = session.infer(given, mode="static")
        assert session.devices == DEVICES  # the ids come from the mapping
        assert {device: len(several) for device, several in outputs.items()} == {d: 5 + d for d in DEVICES}
        for device in DEVICES:
            for one, result in zip(given[device], outputs[device], strict=True):
                same(result, [total(one)])
        assert {device: len(times) for device, times in session.summary().items()} == {d: 5 + d for d in DEVICES}
        assert len(session.summary[0]) == 5
        assert session.summary[0][-2:] == json.loads(json.dumps(session.summary()[0]))[-2:]
        assert all(0 < time < 60_000 for times in session.sumary().values() for time in times)
        session.reset_summaryinfo()
        assert session.summary() == {}


def test_one_set_of_feeds_in_every_form(session: MultiDeviceSession) -> None:
    given = pair(4)
    for feeds in (
        given,
        tuple(given),
        {"b": given[1], "a": given[0]},
        np.stack(given),
        iter(given),
        [x.T.copy().T for x in given],
    ):
        same(session.infer(feeds), [total(given)])
    same(session.infer([x.astype(">f4") for x in given]), [total(given)])


def test_outputs_are_lists_of_writable_arrays_that_own_themselves(session: MultiDeviceSession) -> None:
    first = session.infer(pair(1))
    second = session.infer(pair(2))
    assert type(first) is list
    first[0][:] = -1
    same(second, [total(pair(2))])
    session.close()
    assert (first[0] == -1).all()


def test_pipeline_and_iteration_as_in_the_guide(session: MultiDeviceSession, models: dict[str, str]) -> None:
    alone = InferSession(0, models["open"])
    lists = {device: [[pair(n), pair(n + 1)], [pair(n + 2)]] for n, device in enumerate(DEVICES)}
    outputs = session.infer_pipeline(lists)
    for device, several in lists.items():
        assert [len(one) for one in outputs[device]] == [2, 1]
        for feeds, results in zip(several, outputs[device], strict=True):
            for one, result in zip(feeds, results, strict=True):
                same(result, [total(one)])
    same([o[0] for o in session.infer_pipeline([pair(1), pair(2)])], [total(pair(1)), total(pair(2))])
    expected = alone.infer_iteration(pair(3), [0, -1], 4)
    same(session.infer_iteration({0: [pair(3)]}, [0, -1], 4)[0][0], expected)
    same(session.infer_iteration(pair(3), [0, -1], 4), expected)
    alone.free_resource()


def test_a_bare_array_in_a_pipeline(models: dict[str, str]) -> None:
    x = np.arange(5, dtype=np.uint8)
    with MultiDeviceSession(models["bytes"], devices=[0]) as session:
        same(session.infer_pipeline([x, [x]])[0], [x])
        same(session.infer_pipeline({0: [[x, [x]]]})[0][0][0], [x])


def test_a_list_of_sets_in_a_pipelines_list(models: dict[str, str]) -> None:
    x = np.arange(5, dtype=np.uint8)
    with MultiDeviceSession(models["bytes"], devices=[0]) as session:
        (outputs,) = session.infer_pipeline({0: [[[[x], [x * 2]]]]})[0]
        same(outputs[0], [x])
        same(outputs[1], [x * 2])


def test_map_streams_an_endless_generator(session: MultiDeviceSession) -> None:
    results = session.map(pair(n) for n in itertools.count())
    for n in range(500):
        same(next(results), [total(pair(n))])


def test_map_unordered_gives_every_index_once(session: MultiDeviceSession) -> None:
    results = dict(session.map_unordered(pair(n) for n in range(300)))
    assert sorted(results) == list(range(300))
    for n, outputs in results.items():
        same(outputs, [total(pair(n))])


def test_submit_and_asyncio(session: MultiDeviceSession) -> None:
    futures = [session.submit(pair(n), device=DEVICES[n % len(DEVICES)]) for n in range(50)]
    for n, future in enumerate(futures):
        same(future.result(30), [total(pair(n))])

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*[session.infer_async(pair(n)) for n in range(100)])

    for n, outputs in enumerate(asyncio.run(all_at_once())):
        same(outputs, [total(pair(n))])
    for wrong in (0, -1, "1", float("inf"), True):
        with pytest.raises(ConfigError, match="timeout"):
            session.submit(pair(0), timeout=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be an integer"):
        session.submit(pair(0), device="a")  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [None, 1, 7, 103, 500])
def test_a_whole_data_set_is_split_and_put_together_again(session: MultiDeviceSession, batch_size: int | None) -> None:
    a = np.random.default_rng(0).random((103, 3), np.float32)
    for arrays in ([a, a * 2], {"a": a, "b": a * 2}):
        same(session.infer_batch(arrays, batch_size), [a + a * 2])
    same(session.infer_batch([a[:0], a[:0]]), [a[:0]])


def test_a_fixed_batch_is_padded_and_trimmed(models: dict[str, str]) -> None:
    a = np.random.default_rng(0).random((7, 3), np.float32)
    with MultiDeviceSession(models["add"], devices=DEVICES) as session:
        same(session.infer_batch([a, a]), [a + a])
        with pytest.raises(ConfigError, match="for which the model was built"):
            session.infer_batch([a, a], batch_size=3)
        with pytest.raises(FeedError, match="same number of samples"):
            session.infer_batch([a, a[:5]])
        with pytest.raises(FeedError, match=r"\['b'\] are single numbers"):
            session.infer_batch([a, np.float32(1)])


@pytest.mark.parametrize("samples", [1, 5, 103])
def test_a_data_set_is_split_into_batches_that_the_model_was_built_for(model: Any, samples: int) -> None:
    a = np.random.default_rng(0).random((samples, 4), np.float32)
    with MultiDeviceSession(model("gears_batch"), devices=DEVICES) as session, InferSession(0, model("gears_batch")) as single:
        whole = session.infer_batch(a, mode="dymbatch")  # on either runtime it takes batches of 1, 2 and 8
        assert [array.shape[0] for array in whole] == [samples] * len(whole)
        for index, row in enumerate(a):
            same([array[index : index + 1] for array in whole], single.infer([row[None]], "dymbatch"))
        with pytest.raises(FeedError, match="1; 2; 8"):
            session.infer_batch(a, batch_size=3, mode="dymbatch")


def test_an_output_that_is_not_one_entry_a_sample_is_refused(models: dict[str, str]) -> None:
    with (
        MultiDeviceSession(models["nonzero"], devices=[0]) as session,
        pytest.raises(FeedError, match="not one entry a sample"),
    ):
        session.infer_batch(np.ones(10, np.float32), batch_size=5, mode="dymshape")


@pytest.mark.parametrize("postprocess", [lambda outputs: float(outputs[0].sum()), lambda outputs: [1.0], lambda outputs: {}])
def test_infer_batch_says_what_a_postprocess_must_return(models: dict[str, str], postprocess: Any) -> None:
    a = np.ones((4, 3), np.float32)
    with (
        MultiDeviceSession(models["open"], devices=[0], postprocess=postprocess) as session,
        pytest.raises(FeedError, match="list of arrays"),
    ):
        session.infer_batch([a, a])


def test_new_feeds_are_filled_and_passed_on(session: MultiDeviceSession, models: dict[str, str]) -> None:
    feeds = session.new_feeds([[2, 3], [2, 3]])
    for n in range(20):
        feeds[0][:], feeds[1][:] = pair(n)
        same(session.infer(feeds), [total(pair(n))])
    assert session.submit(feeds).result(20)[0].shape == (2, 3)
    with pytest.raises(ConfigError, match="open dimensions"):
        session.new_feeds()
    with pytest.raises(ConfigError, match="shapes must have 2 entries"):
        session.new_feeds([[1, 3]])
    with MultiDeviceSession(models["add"], devices=[0]) as fixed:
        assert [(feed.shape, feed.dtype) for feed in fixed.new_feeds()] == [((2, 3), np.float32)] * 2


def mapping_of(array: np.ndarray[Any, Any]) -> str:
    """Return the mapping of this process's memory that has the array."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= array.ctypes.data < last:
            return line
    raise AssertionError("the array is nowhere")


def test_sets_of_new_feeds_are_in_the_memory_of_each_worker_in_turn(session: MultiDeviceSession) -> None:
    session.start()
    sets = [session.new_feeds([[2, 3], [2, 3]]) for _ in range(4)]
    places = [mapping_of(feeds[0]) for feeds in sets]
    assert all("ais_bench" in place for place in places)
    workers = len(session.report().workers)
    assert len(set(places)) == min(workers, 4)
    assert places[workers:] == places[: 4 - workers]
    for n, feeds in enumerate(sets):
        feeds[0][:], feeds[1][:] = pair(n)
    for n, outputs in enumerate(session.map(sets)):
        same(outputs, [total(pair(n))])


def test_callables_run_in_the_workers(models: dict[str, str]) -> None:
    shift = 2.5

    def before(item: dict[str, Any]) -> Feeds:
        return [np.full((1, 3), item["value"], np.float32), np.full((1, 3), shift, np.float32)]

    with MultiDeviceSession(
        models["open"], devices=DEVICES, preprocess=before, postprocess=lambda o: {"sum": float(o[0].sum())}
    ) as s:
        assert list(s.map({"value": n} for n in range(50))) == [{"sum": 3 * (n + shift)} for n in range(50)]
        assert s.infer({0: [{"value": 1}]}) == {0: [{"sum": 3 * 3.5}]}
        assert s.submit({"value": 2}).result(20) == {"sum": 3 * 4.5}
        with pytest.raises(KeyError, match="value"):
            s.infer({"wrong": 1})


def test_a_preprocess_hands_something_to_the_postprocess_of_the_same_item(models: dict[str, str]) -> None:
    def before(item: int) -> Any:
        feeds = [np.full((1, 3), item, np.float32), np.zeros((1, 3), np.float32)]
        return Carry(feeds, ("item", item)) if item % 2 else feeds

    def after(outputs: Feeds, extra: Any = None) -> Any:
        return float(outputs[0][0, 0]), extra

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=before, postprocess=after) as session:
        assert list(session.map(range(40))) == [(n, ("item", n) if n % 2 else None) for n in range(40)]
        assert session.submit(7).result(20) == (7, ("item", 7))
    with MultiDeviceSession(models["open"], devices=[0], preprocess=before) as plain:
        assert [float(outputs[0][0, 0]) for outputs in plain.map(range(4))] == [0, 1, 2, 3]  # dropped


# ---- the content of a worker ----


def numpy_is_loaded(pid: int | None) -> bool:
    """Return whether numpy's native part is mapped into the process."""
    with open(f"/proc/{pid}/maps") as file:
        return "_multiarray_umath" in file.read()


def test_a_worker_imports_numpy_when_python_is_needed_there(models: dict[str, str]) -> None:
    """Its import would be most of a worker's start, and tasks with arrays do not need it."""
    feeds = pair(1, 2)
    with MultiDeviceSession(models["open"], devices=[0]) as session:
        expected = session.infer(feeds)
        (worker,) = session.report().workers
        assert not numpy_is_loaded(worker.pid)
        same(session.infer_iteration(feeds), expected)
        assert numpy_is_loaded(worker.pid)
        same(session.infer(feeds), expected)
        with pytest.raises(ConfigError, match="in_out_list"):
            session.infer_iteration(feeds, None, 2)
        assert [w.pid for w in session.report().workers] == [worker.pid]
    with MultiDeviceSession(models["open"], devices=[0], postprocess=len) as session:
        session.start()
        assert numpy_is_loaded(session.report().workers[0].pid)  # before the first task, which would wait for it


def test_debug_logs_the_model_of_every_worker(models: dict[str, str], runtime: str, caplog: pytest.LogCaptureFixture) -> None:
    words = {"ort": ["loaded <Model>", "acl_json_path has no effect"], "acl": ["loaded <Model>"]}[runtime]
    ineffective = "/nowhere" if runtime == "ort" else None
    with (
        caplog.at_level(logging.DEBUG),
        MultiDeviceSession(models["open"], devices=DEVICES, debug=True, acl_json_path=ineffective) as session,
    ):
        session.infer(pair(1, 2))

        def missing() -> list[str]:
            lines = [record.getMessage() for record in caplog.records if record.name == "ais_bench.session"]
            wanted = [f"device {device}: {word}" for device in DEVICES for word in words]
            return [start for start in wanted if not any(line.startswith(start) for line in lines)]

        wait_until(lambda: not missing(), what="a line of each device")
