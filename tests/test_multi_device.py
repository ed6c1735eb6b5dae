"""MultiDeviceSession: equal to InferSession in everything, whoever computes it, and every way of calling it."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pool_support import run_script, wait_until

from ais_bench import _native
from ais_bench.errors import ConfigError, FeedError, ModelLoadError, PoolClosed, WorkerDied, WorkerStartError
from ais_bench.session import InferSession, MultiDeviceSession

pytestmark = pytest.mark.usefixtures("leaves_nothing")
DEVICES = [0, 1] if len(_native.allowed_cpus()) > 1 else [0]
Feeds = list[Any]


def save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
    """A model file. Inputs and outputs are {name: (element type, shape)}."""
    infos = [[helper.make_tensor_value_info(name, *what) for name, what in some.items()] for some in (inputs, outputs)]
    graph = helper.make_graph(nodes, "graph", *infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def add_model(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT) -> str:
    return save(
        path, [helper.make_node("Add", ["a", "b"], ["c"])], {"a": (kind, shape), "b": (kind, shape)}, {"c": (kind, shape)}
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    nonzero = [helper.make_node("NonZero", ["x"], ["y"])]
    identity = {
        kind: save(
            folder / f"identity{kind}.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            {"x": (kind, ["a", "b"])},
            {"y": (kind, ["a", "b"])},
        )
        for kind in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)
    }
    return {
        "add": add_model(folder / "add.onnx", [2, 3]),
        "open": add_model(folder / "open.onnx", ["n", 3]),
        "bytes": save(
            folder / "bytes.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            {"x": (TensorProto.UINT8, ["n"])},
            {"y": (TensorProto.UINT8, ["n"])},
        ),
        "nonzero": save(folder / "nz.onnx", nonzero, {"x": (TensorProto.FLOAT, ["n"])}, {"y": (TensorProto.INT64, [1, "m"])}),
        **{f"identity{kind}": path for kind, path in identity.items()},
    }


@pytest.fixture
def session(models: dict[str, str]) -> Iterator[MultiDeviceSession]:
    with MultiDeviceSession(models["open"], devices=DEVICES) as made:
        yield made


def pair(n: int, rows: int = 2) -> Feeds:
    return [np.full((rows, 3), n, np.float32), np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)]


def total(feeds: Feeds) -> Any:
    return feeds[0] + feeds[1]


def same(one: list[Any], other: list[Any]) -> None:
    assert [(a.dtype, a.shape) for a in one] == [(b.dtype, b.shape) for b in other]
    for a, b in zip(one, other, strict=True):
        assert a.tobytes() == b.tobytes()


# ---- the same answers ----


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16])
def test_every_element_type_equals_one_device(models: dict[str, str], kind: int) -> None:
    path = models[f"identity{kind}"]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    shapes = [(0, 3), (1, 1), (5, 7), (64, 1000)]
    feeds = [[np.frombuffer(np.random.default_rng(7).bytes(a * b * dtype.itemsize), np.uint8) % 2] for a, b in shapes]
    feeds = [[one[0].view(dtype).reshape(shape)] for one, shape in zip(feeds, shapes, strict=True)]
    alone = InferSession(0, path)
    with MultiDeviceSession(path, devices=DEVICES) as session:
        for given, result in zip(feeds, session.map(feeds, mode="dymshape"), strict=True):
            same(result, alone.infer(given, "dymshape"))
    alone.free_resource()


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


@pytest.mark.parametrize("size", [1, 63, 4096, 65_537, 3_000_001, 64 << 20])
def test_feeds_of_any_size(models: dict[str, str], size: int) -> None:
    with MultiDeviceSession(models["bytes"], devices=DEVICES) as session:
        feeds = [np.random.default_rng(n).integers(0, 255, size, np.uint8) for n in range(3)]
        for given, result in zip(feeds, session.map([[feed] for feed in feeds]), strict=True):
            same(result, [given])


# ---- the ways of calling ----


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
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match="timeout"):
            session.submit(pair(0), timeout=wrong)


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
        with pytest.raises(ConfigError, match="built for 2"):
            session.infer_batch([a, a], batch_size=3)
        with pytest.raises(FeedError, match="same number of samples"):
            session.infer_batch([a, a[:5]])


def test_an_output_that_is_not_one_entry_a_sample_is_refused(models: dict[str, str]) -> None:
    with (
        MultiDeviceSession(models["nonzero"], devices=[0]) as session,
        pytest.raises(FeedError, match="not one entry a sample"),
    ):
        session.infer_batch(np.ones(10, np.float32), batch_size=5, mode="dymshape")


def test_new_feeds_are_filled_and_passed_on(session: MultiDeviceSession, models: dict[str, str]) -> None:
    feeds = session.new_feeds([[2, 3], [2, 3]])
    for n in range(20):
        feeds[0][:], feeds[1][:] = pair(n)
        same(session.infer(feeds), [total(pair(n))])
    assert session.submit(feeds).result(20)[0].shape == (2, 3)
    with pytest.raises(ConfigError, match="open dimensions"):
        session.new_feeds()
    with pytest.raises(ConfigError, match="2 inputs, 1 shapes"):
        session.new_feeds([[1, 3]])
    with MultiDeviceSession(models["add"], devices=[0]) as fixed:
        assert [(feed.shape, feed.dtype) for feed in fixed.new_feeds()] == [((2, 3), np.float32)] * 2


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


# ---- errors ----


def test_what_is_wrong_with_feeds_is_said_as_by_one_device_and_the_session_goes_on(session: MultiDeviceSession) -> None:
    good = pair(1)
    for wrong, words in [
        ([good[0]], "2 inputs"),
        ([good[0], good[1][:, :1]], "input 'b'"),
        ([good[0], "text"], "str"),
        ({"a": good[0]}, "missing"),
        (5, "int"),
    ]:
        with pytest.raises(FeedError, match=words):
            session.infer(wrong)
        same(session.infer(good), [total(good)])


def test_errors_come_in_their_place(session: MultiDeviceSession) -> None:
    def feeds() -> Iterator[Feeds]:
        for n in range(30):
            yield pair(n) if n != 13 else [np.zeros(5, np.int8)] * 2

    results = list(session.map(feeds(), on_error="return"))
    assert [n for n, result in enumerate(results) if isinstance(result, FeedError)] == [13]
    same(results[29], [total(pair(29))])
    stream = session.map(feeds())
    assert [next(stream)[0][0, 0] for _ in range(13)] == list(range(13))
    with pytest.raises(FeedError):
        next(stream)


def test_a_culprit_is_named_with_its_index(models: dict[str, str]) -> None:
    def deadly(n: int) -> Feeds:
        import os
        import signal

        if n == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.full((1, 3), n, np.float32)] * 2

    with MultiDeviceSession(models["open"], devices=DEVICES, preprocess=deadly, max_restarts=20) as session:
        results = list(session.map(range(12), on_error="return"))
        assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [6]
        error = results[6]
        assert isinstance(error, WorkerDied)
        assert (error.index, error.signal, error.device_id in DEVICES) == (6, 9, True)
        wait_until(lambda: session.report().total.restarts == 2)
        report = session.report()
        assert (report.total.tasks, report.total.failures, report.total.retries >= 1) == (12, 1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": []}, "no device"),
        ({"devices": [0, 0]}, "twice"),
        ({"on_error": "ignore"}, "on_error"),
        ({"no_such": 1}, "no_such"),
        ({"warmup": -1}, "warmup"),
        ({"task_timeout": 0}, "task_timeout"),
        ({"affinity": "some"}, "affinity"),
    ],
)
def test_wrong_options_start_nothing(models: dict[str, str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MultiDeviceSession(models["add"], **options)


def test_a_bad_model_is_one_error_with_the_reason(tmp_path: Path, models: dict[str, str]) -> None:
    float1 = (TensorProto.FLOAT, [1])
    strange = save(tmp_path / "strange.onnx", [helper.make_node("NoSuchOperator", ["x"], ["y"])], {"x": float1}, {"y": float1})
    with (
        pytest.raises(WorkerStartError, match="NoSuchOperator") as caught,
        MultiDeviceSession(strange, devices=DEVICES) as session,
    ):
        session.start()
    assert isinstance(caught.value.__cause__, ModelLoadError)
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(Path(models["add"]).read_bytes()[:-20])
    with pytest.raises(ModelLoadError, match="truncated"):  # seen without a worker
        MultiDeviceSession(truncated)
    with pytest.raises(RuntimeError, match="missing"):
        MultiDeviceSession(tmp_path / "missing.onnx")


def test_a_start_that_failed_can_be_tried_again(tmp_path: Path, models: dict[str, str]) -> None:
    mark = tmp_path / "ready"

    def check(item: Any) -> Any:
        return item

    class Needy:  # unpickles in the worker only once the mark is there
        def __call__(self, item: Any) -> Any:
            return check(item)

        def __reduce__(self) -> Any:
            return open, (str(mark),)

    session = MultiDeviceSession(models["open"], devices=[0], preprocess=Needy())
    with pytest.raises(WorkerStartError, match="ready"):
        session.start()
    mark.touch()
    session.start()
    session.close()


def test_a_device_that_is_not_there_is_named(models: dict[str, str]) -> None:
    with pytest.raises(WorkerStartError, match="device 99"):
        MultiDeviceSession(models["add"], devices=[0, 99]).start()
    with MultiDeviceSession(models["add"], devices=[0, 99], min_devices=1) as session:
        same(session.infer([np.ones((2, 3), np.float32)] * 2), [np.full((2, 3), 2, np.float32)])
        assert {line.device: line.state for line in session.report().workers} == {0: "ready", 99: "aside"}


def test_use_after_close(models: dict[str, str]) -> None:
    session = MultiDeviceSession(models["open"], devices=[0])
    session.infer(pair(1))
    session.close()
    session.close()
    for use in (lambda: session.infer(pair(1)), lambda: session.submit(pair(1)), session.start, session.get_inputs):
        with pytest.raises(PoolClosed):
            use()
    assert session.report().total.tasks == 1
    unused = MultiDeviceSession(models["open"])
    unused.close()
    with pytest.raises(PoolClosed):
        unused.start()


def test_unknown_modes_and_devices(session: MultiDeviceSession) -> None:
    for use in (
        lambda: session.infer(pair(1), "fast"),
        lambda: session.map([], mode="fast"),
        lambda: session.infer({57: [pair(1)]}),
    ):
        with pytest.raises(ConfigError):
            use()


# ---- about it ----


def test_descriptions_equal_those_of_one_device(session: MultiDeviceSession, models: dict[str, str]) -> None:
    alone = InferSession(0, models["open"])
    assert session.get_inputs() == alone.get_inputs()
    assert session.get_outputs() == alone.get_outputs()
    alone.free_resource()


def test_the_report_counts_and_goes_through_json(session: MultiDeviceSession) -> None:
    for _ in session.map(pair(n) for n in range(100)):
        pass
    report = session.report()
    data = json.loads(json.dumps(report.to_dict()))
    assert set(data) == {"devices", "total", "workers"}
    assert sum(counts["tasks"] for counts in data["devices"].values()) == data["total"]["tasks"] == 100
    for stage in ("queued_ms", "copy_in_ms", "execute_ms", "copy_out_ms", "end_to_end_ms"):
        times = data["total"][stage]
        assert set(times) == {"count", "mean", "p50", "p90", "p99", "max"}
        assert times["count"] == 100
        assert times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert 0 < data["total"]["busy_share"] <= 1
    assert data["total"]["load_s"] > 0
    assert [set(worker) for worker in data["workers"]] == [{"pid", "device", "state", "restarts"}] * len(DEVICES)
    assert "device 0" in str(report)


def test_devices_come_and_go(models: dict[str, str]) -> None:
    if len(DEVICES) < 2:
        pytest.skip("needs two processors")
    with MultiDeviceSession(models["open"], devices=[0]) as session:
        session.infer(pair(1))
        session.add_device(1)
        assert session.devices == [0, 1]
        same(session.infer({1: [pair(2)]})[1][0], [total(pair(2))])
        session.remove_device(0)
        same(session.infer(pair(3)), [total(pair(3))])
        assert session.devices == [1]


def test_workers_are_pinned_to_their_share_of_the_processors(session: MultiDeviceSession) -> None:
    import os

    session.start()
    shares = [os.sched_getaffinity(line.pid or 0) for line in session.report().workers]
    assert set().union(*shares) == set(_native.allowed_cpus())
    assert sum(map(len, shares)) == len(_native.allowed_cpus())


def test_several_threads_use_one_session(session: MultiDeviceSession) -> None:
    session.start()
    failures: list[BaseException] = []

    def use(thread: int) -> None:
        try:
            for n in range(100):
                same(session.infer(pair(thread * 100 + n)), [total(pair(thread * 100 + n))])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_caller_that_keeps_every_output_stalls_nothing(models: dict[str, str]) -> None:
    with MultiDeviceSession(models["bytes"], devices=DEVICES) as session:
        small = list(session.map([np.full(10, n % 256, np.uint8)] for n in range(50_000)))
        large = list(session.map([np.full(200_000, n % 256, np.uint8)] for n in range(500)))
    assert all(outputs[0][9] == n % 256 for n, outputs in enumerate(small))
    assert all(outputs[0][-1] == n % 256 for n, outputs in enumerate(large))


def test_a_slow_consumer_of_an_endless_generator_keeps_memory_constant(models: dict[str, str]) -> None:
    script = f"""
import itertools, psutil, numpy as np
from ais_bench.session import MultiDeviceSession
with MultiDeviceSession({models["bytes"]!r}, devices=[0]) as session:
    results = session.map([np.full(100_000, n % 256, np.uint8)] for n in itertools.count())
    sizes = []
    for n in range(2000):
        next(results)
        if n % 500 == 499:
            sizes.append(psutil.Process().memory_info().rss >> 10)
print(sizes[-1] - sizes[0])
"""
    done = run_script("-c", script)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16_000  # KiB; 1,500 results of 100 kB that stayed would be 146,000


def test_memory_stays_flat_over_many_small_tasks(models: dict[str, str]) -> None:
    script = f"""
import itertools, os, psutil, numpy as np
from ais_bench.session import MultiDeviceSession
feeds = [np.zeros(8, np.uint8)]
with MultiDeviceSession({models["bytes"]!r}, devices=[0]) as session:
    sizes = []
    for n, _ in enumerate(session.map(itertools.repeat(feeds, 120_000))):
        if n % 40_000 == 39_999:
            sizes.append(psutil.Process().memory_info().rss >> 10)
    print(sizes[-1] - sizes[0], len(os.listdir("/proc/self/fd")))
"""
    done = run_script("-c", script)
    assert done.returncode == 0, done.stderr
    growth, descriptors = map(int, done.stdout.split())
    # KiB. The times of the newest 100,000 tasks are kept, 32 bytes each: 60,000 more of them are 1,900. 80,000 tasks that
    # stayed would be 40,000.
    assert growth < 6_000
    assert descriptors < 30


def test_a_script_without_main_guard(tmp_path: Path, models: dict[str, str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "import numpy as np\nfrom ais_bench.session import MultiDeviceSession\n"
        "class Result:\n    def __init__(self, value): self.value = value\n"
        f"session = MultiDeviceSession({models['open']!r}, postprocess=lambda outputs: Result(float(outputs[0].sum())))\n"
        "results = list(session.map([np.full((1, 3), n, np.float32)] * 2 for n in range(10)))\n"
        "print(all(isinstance(r, Result) for r in results), sum(r.value for r in results))\n"
    )
    done = run_script(str(path))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True", "270.0"], "")
