"""evaluate(): data sets, batches, metrics, failures; scores do not depend on the devices."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ais_bench.emulator import pack
from ais_bench.errors import AisBenchError, ConfigError, ConfigTypeError
from ais_bench.evaluate import Collect, EditDistance, MeanError, TopK, evaluate
from ais_bench.evaluate.measure import other_load
from ais_bench.session import InferSession, MultiDeviceSession
from support.session import DEVICES, classifier_model

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.any_runtime]
QUIET: dict[str, Any] = {"progress": False}


class Pictures:
    """A data set like those of torch, whose samples contain the process that read them."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), deadly: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.deadly = count, bad, deadly

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise OSError(f"picture {index} is torn")
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.default_rng(index).normal(size=(1, 6)).astype(np.float32), index % 5


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int | str, str], str]:
    """`classifiers(batch, runtime)` makes softmax(x @ w) of (batch, 6) to (batch, 5)."""
    folder = tmp_path_factory.mktemp("classifiers")

    def make(batch: int | str, runtime: str) -> str:
        path = folder / f"{batch}.onnx"
        if not path.exists():
            classifier_model(path, batch)
        if runtime == "ort":
            return str(path)
        if not (compiled := path.with_suffix(".om")).exists():
            pack(path, compiled)
        return str(compiled)

    return make


class Exact:
    """A metric that keeps the bits of its inputs, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Any]] = []

    def update(self, outputs: Any, target: Any) -> None:
        self.seen.append((outputs[0].tobytes(), target))

    def compute(self) -> int:
        return len(self.seen)


def alone(model: str, data: Any, batch: int = 1) -> list[tuple[bytes, Any]]:
    """Return the same with InferSession and a loop."""
    session = InferSession(0, model)
    seen = []
    for start in range(0, len(data), batch):
        samples = [data[index] for index in range(start, min(start + batch, len(data)))]
        feeds = np.concatenate([sample for sample, _ in samples] + [samples[0][0]] * (batch - len(samples)))
        (scores,) = session.infer([feeds])
        seen += [(scores[place : place + 1].tobytes(), target) for place, (_, target) in enumerate(samples)]
    session.free_resource()
    return seen


@pytest.mark.parametrize(
    ("batch", "count"), [(1, 23), pytest.param(4, 23, marks=pytest.mark.each_runtime), ("n", 23), (4, 3), (4, 0)]
)
def test_the_score_is_that_of_a_loop_on_any_number_of_devices(
    classifiers: Callable[..., str], runtime: str, batch: int | str, count: int
) -> None:
    model, data = classifiers(batch, runtime), Pictures(count)
    expected = alone(model, data, batch if isinstance(batch, int) else 1)
    for devices in ([0], DEVICES if runtime == "ort" else range(4)) if count > 4 else (DEVICES,):
        exact = Exact()
        result = evaluate(model, data, metrics=[exact, TopK(2)], devices=devices, threads=None, **QUIET)
        assert exact.seen == expected
        assert [record["index"] for record in result.records] == list(range(count))
        padded = -count % batch if isinstance(batch, int) else 0
        assert (result.report["samples"], result.report["padded"], result.failures) == (count, padded, [])
        if count:
            ranks = [sorted(-np.frombuffer(bits, np.float32)) for bits, _ in expected]
            hits = [-np.frombuffer(bits, np.float32)[t] in rank[:2] for (bits, t), rank in zip(expected, ranks, strict=True)]
            assert result.metrics["top2"] == sum(hits) / count


def test_samples_are_read_and_finished_in_the_workers(classifiers: Callable[..., str]) -> None:
    here = os.getpid()
    seen = []

    class Readers:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            assert os.getpid() != here
            return {"pixels": [float(index)] * 6, "label": os.getpid()}

    def before(sample: Any) -> Any:
        assert os.getpid() != here
        return np.asarray(sample["pixels"], np.float32)  # without a batch axis

    result = evaluate(
        classifiers("n", "ort"),
        Readers(),
        preprocess=before,
        postprocess=lambda outputs: (os.getpid(), outputs[0].shape),
        metrics=lambda outputs, target: seen.append((outputs, target)) or None,
        devices=DEVICES,
        **QUIET,
    )
    assert result.report["failed"] == 0
    assert all(pid == target and pid != here and shape == (1, 5) for (pid, shape), target in seen)
    assert len(seen) == 6


def walked(count: int) -> Iterator[Any]:
    yield from (Pictures(count)[index] for index in range(count))


def test_every_kind_of_data_set_gives_the_same(classifiers: Callable[..., str], tmp_path: Path) -> None:
    model, data = classifiers(4, "ort"), Pictures(11)
    expected = [bits for bits, _ in alone(model, data, 4)]
    rows = np.concatenate([data[index][0] for index in range(11)])
    files = tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    for index, row in enumerate(rows):
        np.save(files / f"p{index}.npy", row[None])
        row.tofile(tmp_path / f"raw{index}.bin")
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(11, 6))
    mapped[:] = rows
    (files / "notes.txt").write_text("no sample")
    kinds: dict[str, Any] = {
        "walked": walked(11),
        "list": [data[index] for index in range(11)],
        "array": rows,
        "memmap": mapped,
        "part of a memmap": mapped[0:11],
        "Hugging Face": [{"x": row.tolist(), "label": 1} for row in rows],
        "folder": str(files),
        "list of files": [tmp_path / f"raw{index}.bin" for index in range(11)],
    }
    for kind, dataset in kinds.items():
        exact = Exact()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = evaluate(model, dataset, metrics=exact, devices=DEVICES, **QUIET)
        assert [bits for bits, _ in exact.seen] == expected, (kind, result.failures[:1])
        assert ["sub" in str(one.message) for one in said] == ([True] if kind == "folder" else []), kind
        if kind == "folder":  # img2 before img10
            assert [record["id"] for record in result.records] == [f"p{index}.npy" for index in range(11)]


def test_large_data_does_not_travel_as_a_whole(classifiers: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ais_bench.evaluate.sources.TRAVELS_AS_ONE", 100)
    rows = np.concatenate([Pictures(11)[index][0] for index in range(11)])
    exact = Exact()
    evaluate(classifiers(1, "ort"), rows, metrics=exact, devices=[0], **QUIET)
    assert [bits for bits, _ in exact.seen] == [bits for bits, _ in alone(classifiers(1, "ort"), Pictures(11))]


@pytest.mark.parametrize("kind", [InferSession, MultiDeviceSession])
def test_a_session_of_the_callers_stays_open(classifiers: Callable[..., str], kind: Any) -> None:
    model, data, exact = classifiers(4, "ort"), Pictures(11, bad=(2, 5)), Exact()
    session = kind(0, model) if kind is InferSession else kind(model, devices=DEVICES)
    try:
        result = evaluate(session, data, metrics=exact, **QUIET)
        assert len(session.infer([np.zeros((4, 6), np.float32)])) == 1
        with pytest.raises(ConfigError, match="devices"):
            evaluate(session, data, devices=[0], **QUIET)
    finally:
        session.free_resource() if kind is InferSession else session.close()
    assert exact.seen == [one for index, one in enumerate(alone(model, Pictures(11), 4)) if index not in (2, 5)]
    assert [record["index"] for record in result.failures] == [2, 5]


# ---- metrics ----


class Torchlike:
    def __init__(self) -> None:
        self.n = 99

    def reset(self) -> None:
        self.n = 0

    def update(self, preds: Any, target: Any) -> None:
        self.n += target

    def compute(self) -> Any:
        return np.float32(self.n)

    def __call__(self, *_: Any) -> float:
        raise AssertionError("update and compute come first")


class Evaluatelike:
    name = "evaluate"

    def __init__(self) -> None:
        self.pairs: list[Any] = []

    def add_batch(self, *, predictions: Any, references: Any) -> None:
        self.pairs += zip(predictions, references, strict=True)

    def compute(self) -> dict[str, int]:
        return {"pairs": len(self.pairs)}


def test_metrics_of_every_protocol(classifiers: Callable[..., str]) -> None:
    def share_of_ones(outputs: Any, target: int) -> dict[str, float]:
        return {"ones": target == 1, "twos": target == 2}

    def final(outputs: list[Any], targets: list[Any]) -> dict[str, Any]:
        return {"last": targets[-1], "mean": np.mean([o[0].sum() for o in outputs])}

    result = evaluate(
        classifiers(1, "ort"),
        Pictures(20),
        metrics=[Torchlike(), Evaluatelike(), share_of_ones, lambda o, t: t, lambda o, t: None, Collect()],
        final=final,
        devices=[0],
        **QUIET,
    )
    collected = result.metrics.pop("collect")
    assert collected["targets"] == [index % 5 for index in range(20)]
    assert result.metrics.pop("mean") == pytest.approx(1)
    assert np.isnan(result.metrics.pop("function_2"))
    assert result.metrics == {
        "Torchlike": 40.0,
        "evaluate": {"pairs": 20},
        "share_of_ones": {"ones": 0.2, "twos": 0.2},
        "function": 2.0,
        "last": 4,
    }
    assert result.metric_errors == {}


def test_a_metric_that_raises_does_not_cost_the_run(classifiers: Callable[..., str]) -> None:
    class AtTheEnd(Exact):
        def compute(self) -> int:
            raise ZeroDivisionError("no samples of class 9")

    def at_seven(outputs: Any, target: Any) -> float:
        if target == 3:
            raise ValueError("three")
        return 1.0

    result = evaluate(
        classifiers(1, "ort"),
        Pictures(9),
        metrics={"good": TopK(5), "seven": at_seven, "end": AtTheEnd()},
        final=lambda outputs, targets: 1 / 0,
        devices=[0],
        **QUIET,
    )
    assert result.metrics == {"good": 1.0}
    assert result.metric_errors == {
        "seven": "at sample 3: ValueError: three",
        "end": "at the end: ZeroDivisionError: no samples of class 9",
        "final": "at the end: ZeroDivisionError: division by zero",
    }
    assert (result.report["samples"], result.report["scored"], result.report["failed"]) == (9, 9, 0)


def test_our_metrics() -> None:
    top = TopK(2)
    for scores, true in ([0.1, 0.5, 0.4], 2), ([[0.9, 0.5, 0.4]], 2), ([0.5, 0.5, 0.5], 1), ([0.5, 0.5, 0.5], 2):
        top.update([np.array(scores)], np.array([true]))
    top.update(np.int64(3), 3)
    assert top.compute() == 3 / 5
    with pytest.raises(ValueError, match="the true class must be from 0 to 2, .*got"):
        top.update(np.zeros(3), 3)
    for kind, value in ("absolute", 1.0), ("relative", 0.75), ("cosine", 1 - 5 / np.sqrt(34)):
        error = MeanError(kind)
        error.update(np.array([[2.0, 3.0, 0.0]]), np.array([1.0, 2.0, 0.0]) if kind != "cosine" else np.array([1.0, 1.0, 0.0]))
        if kind == "cosine":
            assert error.compute() == pytest.approx(1 - 5 / np.sqrt(26))
        else:
            assert error.compute() == pytest.approx(2 / 3 if kind == "absolute" else value)
    edits = EditDistance()
    for one, other in ("kitten", "sitting"), ("", "abc"), ("same", "same"), (["a", "b"], ["b"]):
        edits.update(one, other)
    assert edits.compute() == {"edit_distance": 7 / 4, "error_rate": 7 / 15, "exact": 1 / 4}
    others = EditDistance()
    others.merge_state([edits, edits])
    assert others.compute() == edits.compute()
    for wrong in (lambda: TopK(0), lambda: MeanError("square")):
        with pytest.raises(ConfigError):
            wrong()


# ---- failures ----


@pytest.mark.parametrize("batch", [1, 4])
def test_a_sample_that_fails_is_recorded_and_costs_no_other(classifiers: Callable[..., str], batch: int) -> None:
    bad, count = (0, 5, 8, 9, 10, 11), 14
    exact = Exact()

    def after(outputs: Any) -> Any:
        if outputs[0].tobytes() == poison:
            raise KeyError("not this one")
        return outputs

    model = classifiers(batch, "ort")
    expected = alone(model, Pictures(count), batch)
    poison = expected[7][0]
    data = Pictures(count, bad)
    result = evaluate(model, data, postprocess=after, metrics=[exact], devices=DEVICES, **QUIET)
    assert exact.seen == [one for index, one in enumerate(expected) if index not in (*bad, 7)]
    assert [record["index"] for record in result.failures] == sorted((*bad, 7))
    assert [record["index"] for record in result.records] == list(range(count))
    errors = {record["index"]: record["error"] for record in result.failures}
    assert (errors[5]["type"], errors[5]["message"]) == ("OSError", "picture 5 is torn")
    assert "in __getitem__" in errors[5]["traceback"]
    assert errors[7]["type"] == "KeyError"
    assert result.report["failures_by_type"] == {"KeyError": 1, "OSError": 6}
    with pytest.raises(OSError, match="picture 0 is torn"):
        evaluate(model, data, devices=[0], on_error="raise", **QUIET)


def test_a_sample_that_kills_its_workers_fails_alone(classifiers: Callable[..., str]) -> None:
    model, exact = classifiers(4, "ort"), Exact()
    data = Pictures(10, deadly=(5,))
    result = evaluate(model, data, metrics=exact, devices=DEVICES, restart_backoff=0, max_restarts=30, **QUIET)
    assert [(record["index"], record["error"]["type"]) for record in result.failures] == [(5, "ais_bench.errors.WorkerDied")]
    assert exact.seen == [one for index, one in enumerate(alone(model, Pictures(10), 4)) if index != 5]


def test_workers_that_are_killed_again_and_again_do_not_change_the_score(classifiers: Callable[..., str]) -> None:
    model, rng, killed = classifiers(4, "ort"), random.Random(1), []

    class Killer(Exact):
        """Kills a worker after every 40 samples, so that there is progress in between."""

        def update(self, outputs: Any, target: Any) -> None:
            super().update(outputs, target)
            if len(self.seen) % 40 == 20 and (workers := psutil.Process().children()):
                worker = rng.choice(workers)
                with contextlib.suppress(psutil.NoSuchProcess):  # it was killed before, and its end was just noticed
                    worker.kill()
                    killed.append(worker.pid)

    killer = Killer()
    result = evaluate(
        model,
        Pictures(240),
        metrics=killer,
        devices=DEVICES,
        restart_backoff=0,
        max_restarts=1000,
        retry_device_after=0.1,
        **QUIET,
    )
    assert len(killed) > 3
    assert killer.seen == alone(model, Pictures(240), 4)
    assert (result.report["samples"], result.report["failed"]) == (240, 0)


def test_samples_that_make_no_batch_run_by_themselves(classifiers: Callable[..., str]) -> None:
    shapes = [(1, 6), (1, 6), (6,), (2, 6), (1, 6)]
    data = [np.full(shape, 1, np.float32) for shape in shapes]
    exact = Exact()
    result = evaluate(classifiers("n", "ort"), data, metrics=exact, batch_size=2, devices=[0], **QUIET)
    assert result.failures == []
    assert [len(bits) for bits, _ in exact.seen] == [4 * 5 * (2 if shape == (2, 6) else 1) for shape in shapes]


# ---- choices ----


def test_limit_and_seed(classifiers: Callable[..., str]) -> None:
    model = classifiers(1, "ort")

    def draw(sample: Any) -> Any:
        return np.full(6, random.random() + np.random.random(), np.float32)

    first = evaluate(model, Pictures(50), limit=7, devices=[0], **QUIET)
    assert [record["index"] for record in first.records] == list(range(7))
    assert evaluate(model, walked(50), limit=7, devices=[0], **QUIET).report["samples"] == 7
    runs = []
    for devices, seed in ([0], 3), (DEVICES, 3), ([0], 4):
        exact = Exact()
        result = evaluate(model, Pictures(50), preprocess=draw, metrics=exact, limit=7, seed=seed, devices=devices, **QUIET)
        runs.append(([record["index"] for record in result.records], exact.seen))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0][0] == sorted(runs[0][0])
    with pytest.raises(ConfigError, match="__getitem__"):
        evaluate(model, walked(50), limit=7, seed=1, devices=[0], **QUIET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": {"train": []}}, r"keys \['train'\]"),
        ({"dataset": 7}, "the data set must have __len__ and __getitem__, .*got a int"),
        ({"dataset": "/nowhere"}, "the data set must be a file or a folder, got '/nowhere'"),
        ({"dataset": ["/nowhere/a.npy"]}, "1 of 1 files do not exist"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, or None, got 0"),
        ({"batch_size": 3}, "batch_size must be a divisor of 4, .*got 3"),
        ({"limit": -1}, "limit must be an integer of at least 0, or None, got -1"),
        ({"on_error": "ignore"}, "on_error must be 'record' or 'raise', got 'ignore'"),
        ({"target": 3}, "target must be a function of one argument, or None, got 3"),
        ({"metrics": [3]}, "a metric must have update and compute, .*got 3"),
        ({"metrics": TopK}, r"pass TopK\(\)"),
        ({"final": 3}, "final must be a function of all outputs and all targets, got 3"),
        ({"resume": True}, "resume=True needs output="),
        ({"colour": "red"}, "option 'colour'"),
    ],
)
def test_what_is_refused_before_anything_runs(classifiers: Callable[..., str], options: dict[str, Any], words: str) -> None:
    dataset = options.pop("dataset", Pictures(3))
    with pytest.raises(ConfigError, match=words):
        evaluate(classifiers(4, "ort"), dataset, devices=[0], **{**QUIET, **options})


def test_an_empty_folder_says_so(classifiers: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no samples"):
        evaluate(classifiers(4, "ort"), tmp_path, devices=[0], **QUIET)


def test_a_model_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(AisBenchError, match="missing.onnx"):
        evaluate(tmp_path / "missing.onnx", Pictures(3), devices=[0], output=tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()


def test_the_originals_evaluator_names_its_successor() -> None:
    with pytest.raises(ImportError, match="ais_bench_benchmark"):
        from ais_bench.evaluate.interface import Evaluator  # noqa: F401


def test_progress_is_counted_in_few_updates(classifiers: Callable[..., str]) -> None:
    bars = []

    class Bar:
        def __init__(self, total: int, desc: str) -> None:
            self.total, self.n, self.calls, self.closed = total, 0, 0, False
            bars.append(self)

        def update(self, more: int) -> None:
            self.n += more
            self.calls += 1

        def close(self) -> None:
            self.closed = True

    evaluate(classifiers(1, "ort"), Pictures(3000), devices=[0], progress=Bar)
    (bar,) = bars
    assert (bar.total, bar.n, bar.closed) == (3000, 3000, True)
    assert bar.calls < 1500


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_a_data_set_that_raises_leaves_no_file_open(classifiers: Callable[[int | str, str], str], on_error: Any) -> None:
    def torn() -> Iterator[Any]:
        for index in range(3):
            yield np.ones((1, 6), np.float32) * index, index
        raise OSError("the disk is gone")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(OSError, match="the disk is gone"):
            evaluate(classifiers(1, "ort"), torn(), devices=DEVICES[:1], metrics=TopK(1), on_error=on_error, **QUIET)
        result = evaluate(classifiers(1, "ort"), Pictures(3), devices=DEVICES[:1], metrics=TopK(1), **QUIET)
        assert len(list(result.records)) == 3  # the records stay after the run
        del result
        gc.collect()
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []


@pytest.mark.parametrize("model", [7, None, 1.5, ["m.onnx"]])
def test_what_is_no_model_is_told_with_and_without_a_run_folder(tmp_path: Path, model: Any) -> None:
    for output in (None, tmp_path / "run"):
        with pytest.raises(ConfigTypeError, match="model.* must be a path"):
            evaluate(model, Pictures(1), output=output, **QUIET)


def test_the_load_of_other_programs_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            load = other_load()
        finally:
            busy.kill()
    assert 0 < load["busy_processors"] <= load["processors"] == psutil.cpu_count()
