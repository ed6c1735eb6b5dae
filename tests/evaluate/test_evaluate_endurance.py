"""Long evaluations: constant memory, the same bits on any number of devices, workers killed all the time, interruptions.

The sizes here fit a test run. The environment asks for more: AIS_BENCH_ENDURANCE=1 for 100,000 small samples and 200 large ones
with a worker killed every second; AIS_BENCH_INTERRUPTIONS=1000 for 1,000 interruptions.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ais_bench.emulator import pack
from ais_bench.evaluate import Result, evaluate
from ais_bench.evaluate.page.story import story_of
from ais_bench.evaluate.statistics import distribution
from ais_bench.evaluate.tally import done_at
from ais_bench.session import InferSession
from support.evaluate import Order, Rows
from support.scripts import run_script
from support.session import classifier_model, save

pytestmark = pytest.mark.usefixtures("leaves_nothing")
WHOLE = os.environ.get("AIS_BENCH_ENDURANCE") == "1"
INTERRUPTIONS = int(os.environ.get("AIS_BENCH_INTERRUPTIONS", "8"))
SMALL, LARGE = (100_000, 200) if WHOLE else (2_000, 5)
KILL_S = 1.0 if WHOLE else 0.3
GROWTH_MIB = 64  # of this process, for any number of samples


class Large:
    """A data set of pictures of 19 MB with true answers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        row = np.random.default_rng(index).normal(size=6).astype(np.float32)
        return np.resize(row, (1, 3, 1256, 1280)), index


class Peak:
    """A metric that records this process's memory."""

    name = "peak"

    def __init__(self) -> None:
        self.me, self.seen = psutil.Process(), 0
        self.first = self.most = 0

    def update(self, outputs: Any, target: Any) -> None:
        self.seen += 1
        if self.seen % 500 == 100 or self.seen in (20, 200):
            used = self.me.memory_full_info().uss
            self.first = self.first or used
            self.most = max(self.most, used)

    def compute(self) -> float:
        return (self.most - self.first) / 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """softmax(x @ w) of (4, 6) to (4, 5), for the emulator."""
    folder = tmp_path_factory.mktemp("small")
    return str(pack(classifier_model(folder / "m.onnx", 4), folder / "m.om"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The mean of a picture, for the emulator."""
    from onnx import helper

    folder = tmp_path_factory.mktemp("large")
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    kinds = {"x": (1, [1, 3, 1256, 1280])}
    save(folder / "m.onnx", nodes, kinds, {"y": (1, [1, 3])})
    return str(pack(folder / "m.onnx", folder / "m.om"))


def alone(model: str, data: Any, batch: int) -> int:
    """Return the score with InferSession and a loop."""
    session, order = InferSession(0, model), Order()
    for start in range(0, len(data), batch):
        samples = [data[index] for index in range(start, min(start + batch, len(data)))]
        feeds = np.concatenate([feeds for feeds, _ in samples] + [samples[0][0]] * (batch - len(samples)))
        (outputs,) = session.infer([feeds])
        for place, (_, target) in enumerate(samples):
            order.update([outputs[place : place + 1]], target)
    session.free_resource()
    return order.compute()


class Killer(contextlib.AbstractContextManager[None]):
    """Kills a worker at intervals while the block runs, but only after some progress."""

    def __init__(self) -> None:
        self.killed = 0
        self._ended = threading.Event()

    def __call__(self, session: Any) -> Killer:
        self._session = session
        return self

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        rng, before = random.Random(3), 0
        while not self._ended.wait(KILL_S):
            done = self._session.report().total.tasks
            if done > before and (workers := psutil.Process().children()):
                with contextlib.suppress(psutil.NoSuchProcess):  # it was killed before, and its end was just noticed
                    rng.choice(workers).kill()
                    self.killed, before = self.killed + 1, done


def agree(result: Result) -> None:
    """Check that the figures of a run agree."""
    report, records = result.report, list(result.records)
    runs = [record for record in records if record.get("first", True)]
    assert sum(one["samples"] for one in report["devices"].values()) == report["samples"] == len(records)
    assert report["throughput_per_s"] == pytest.approx(report["samples"] / report["wall_s"], rel=0.01)
    summed = sum(one["throughput_per_s"] for one in report["devices"].values())
    assert summed == pytest.approx(report["throughput_per_s"], rel=0.01)
    for stage in ("execute_ms", "end_to_end_ms"):
        again = distribution([record[stage] for record in runs if stage in record])
        assert again == pytest.approx(report[stage], rel=0.01)
        for device, one in report["devices"].items():
            mine = distribution([r[stage] for r in runs if stage in r and str(r["device"]) == device])
            assert mine == pytest.approx(one[stage], rel=0.01)
    for wall in story_of(result)["walls"].values():
        assert sum(wall["seconds"].values()) == pytest.approx(report["wall_s"], rel=0.01)
        assert sum(wall["share"].values()) == pytest.approx(100, rel=0.01)
    # The times of the records and of the report agree, except for the start and the end of the run.
    ended = max(done_at(record) for record in runs)
    assert ended - min(r["started_s"] for r in runs if "started_s" in r) <= report["wall_s"] * 1.01 + 0.05


@pytest.mark.usefixtures("npu")
@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("size", ["small", "large"])
def test_the_same_bits_in_constant_memory_with_workers_killed(
    request: pytest.FixtureRequest, expected: dict[str, int], size: str, devices: int, tmp_path: Path
) -> None:
    model, data = request.getfixturevalue(size), Rows(SMALL) if size == "small" else Large(LARGE)
    killer = Killer()
    result = evaluate(
        model,
        data,
        metrics=[Order(), Peak()],
        devices=range(devices),
        output=tmp_path / "run",
        watch=killer,
        window_items=64,
        restart_backoff=0,
        max_restarts=100_000,
        retry_device_after=0.1,
        progress=False,
    )
    if WHOLE:
        print(f"{size}, {devices} devices: {killer.killed} workers killed, {result}")
    assert result.failures == []
    if size not in expected:
        expected[size] = alone(model, data, 4 if size == "small" else 1)
    assert result.metrics["order"] == expected[size]
    assert result.metrics["peak"] < GROWTH_MIB
    assert [record["index"] for record in result.records] == list(range(len(data)))
    if size == "small":
        agree(result)


@pytest.fixture(scope="module")
def expected() -> dict[str, int]:
    """Return the scores without evaluate(), by size."""
    return {}


def test_interruptions_at_random_moments() -> None:
    """Each process runs for about half a second."""
    script = f"from support.interruptions import main; main({INTERRUPTIONS}, 1)"
    said = run_script(script, seconds=100 + INTERRUPTIONS * 5)
    found = re.search(r"(\d+) interruptions \((\d+) SIGKILL, (\d+) Ctrl-C, (\d+) errors\) in (\d+) runs", said)
    assert found, said
    assert int(found[1]) >= INTERRUPTIONS
    assert int(found[1]) == sum(map(int, found.groups()[1:4]))
