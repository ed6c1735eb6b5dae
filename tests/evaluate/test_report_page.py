"""The page and the trace of a run: figures equal those of the JSON, parts add up, and no data becomes markup."""

from __future__ import annotations

import gzip
import html
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ais_bench.evaluate import Result, evaluate, load
from ais_bench.evaluate.page.page import write_page
from ais_bench.evaluate.page.story import story_of
from ais_bench.evaluate.page.timeline import POINTS, Attribution, Rates, RunTime, StageTimeline, by_start
from ais_bench.evaluate.page.trace import write_trace
from support.evaluate import Rows
from support.session import DEVICES, negative_model

pytestmark = pytest.mark.usefixtures("leaves_nothing")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Torn(Rows):
    def __getitem__(self, index: int) -> Any:
        if index % 20 == 3:
            raise OSError(HOSTILE)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of 100 samples, of which five failed, with a hostile metric name."""
    folder = tmp_path_factory.mktemp("page")
    model = negative_model(folder / "m.onnx", 1)
    metrics = {HOSTILE: lambda outputs, target: float(outputs[0].mean()), "index": lambda outputs, target: target}
    return evaluate(model, Torn(100), metrics=metrics, devices=DEVICES, output=folder / "run", progress=False)


def test_a_run_leaves_a_page_that_needs_nothing_else(finished: Result) -> None:
    assert finished.path is not None
    text = Path(finished.path, "report.html").read_text()
    assert "uPlot" in text
    assert re.findall(r'<[a-z][^>]*\s(?:src|href)="(?!data:)', text.split("<script", 1)[0]) == []
    shown = dict(re.findall(r'data-figure="(\w+)"(?: data-value="([^"]*)")?', text))
    for name in ("wall_s", "throughput_per_s"):
        assert float(shown[name]) == finished.report[name]
    metrics = {html.unescape(name): value for name, value in re.findall(r'data-metric="([^"]*)" data-value="([^"]*)"', text)}
    assert {name: float(value) for name, value in metrics.items()} == finished.metrics
    assert text.count('<td class="text">OSError:') == 5


def test_what_comes_from_data_is_no_markup(finished: Result) -> None:
    assert finished.path is not None
    text = Path(finished.path, "report.html").read_text()
    assert "<img" not in text
    assert text.count("<script") == 3 == text.count("</script>")
    assert html.escape(HOSTILE) in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["over_time"][0]["name"] == "run"


def test_parts_of_the_wall_time_sum_up(finished: Result) -> None:
    walls = story_of(finished)["walls"]
    assert set(walls) == {str(record["device"]) for record in finished.records}
    for device, wall in walls.items():
        assert sum(wall["seconds"].values()) == pytest.approx(finished.report["wall_s"])
        assert sum(wall["share"].values()) == pytest.approx(100)
        assert all(seconds >= 0 for seconds in wall["seconds"].values())
        # A device has one worker, which executes one run at a time. But records have the lengths of the stages and not their
        # beginnings: if a worker stands still between two stages, executions may be placed over each other. The tests below
        # have times without such gaps.
        executed = [r["execute_ms"] / 1e3 for r in finished.records if str(r["device"]) == device and r.get("execute_ms")]
        assert max(executed) * 0.99 <= wall["seconds"]["execute"] <= sum(executed) * 1.01


def attributed(records: list[dict[str, Any]], wall_s: float) -> dict[str, float]:
    stages, wall = StageTimeline(), Attribution()
    for record in by_start(records):
        wall.add(stages.of(record))
    return wall.parts(wall_s)


def test_of_stages_that_overlap_one_counts() -> None:
    # A device executes from 1 s to 3 s and, because the second run waits, from 3 s to 6 s; each run was prepared for 1 s.
    records = [
        {"started_s": at, "preprocess_ms": 1000, "execute_ms": took, "worker_ms": worker}
        for at, took, worker in ((0, 2000, 3000), (1, 3000, 5000))
    ]
    assert attributed(records, 7) == {
        "execute": 5, "preprocess": 1, "postprocess": 0, "copy_in": 0, "copy_out": 0, "idle": 1,
    }  # fmt: skip
    # Two workers of one device execute at the same time; the records have the worker.
    both = [{"started_s": 0, "execute_ms": 2000, "worker_ms": 2000}, {"started_s": 1, "execute_ms": 2000, "worker_ms": 2000}]
    assert attributed(both, 4)["execute"] == 3


def test_a_run_that_started_early_and_comes_late_is_not_counted_twice() -> None:
    # The worker was interrupted after the second run's execution, so its end leaves room. The third run comes before it.
    records = [{"started_s": at, "execute_ms": 2000, "worker_ms": worker} for at, worker in ((0, 2000), (5, 3000), (2, 5000))]
    assert attributed(records, 10) == {"execute": 6, "preprocess": 0, "postprocess": 0, "copy_in": 0, "copy_out": 0, "idle": 4}


def test_a_copy_of_the_caller_does_not_delay_the_execution() -> None:
    # The caller stood still for 5 s in its copy of the first run's feeds; the worker took the run after that.
    records = [
        {"started_s": at, "copy_in_ms": copied, "execute_ms": 2000, "worker_ms": 2000}
        for at, copied in ((0, 5000), (2, 0), (4, 0))
    ]
    assert attributed(records, 10) == {"execute": 6, "preprocess": 0, "postprocess": 0, "copy_in": 0, "copy_out": 0, "idle": 4}


def test_runs_are_put_in_order_with_a_few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ais_bench.evaluate.page.timeline.REORDER_RUNS", 16)
    read = []

    def records() -> Iterator[dict[str, Any]]:
        for at in itertools.chain.from_iterable(range(tens + 9, tens - 1, -1) for tens in range(10, 1010, 10)):
            read.append(at)
            yield {"started_s": float(at)}
        yield {"error": "no worker took it"}

    ordered = by_start(records())
    assert next(ordered) == {"started_s": 10.0}
    assert len(read) == 17
    assert list(ordered) == [{"started_s": float(at)} for at in range(11, 994)] + [{"error": "no worker took it"}] + [
        {"started_s": float(at)} for at in range(994, 1010)
    ]


def test_records_come_in_the_order_of_the_data_set_not_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ais_bench.evaluate.page.timeline.REORDER", 64)
    records = [{"started_s": float(n), "execute_ms": 500.0, "worker_ms": 500.0} for n in range(1000)]
    for start in range(0, 1000, 10):
        records[start : start + 10] = reversed(records[start : start + 10])
    parts = attributed(records, 1000)
    assert parts["execute"] == pytest.approx(500, rel=0.01)


def test_the_curve_counts_every_sample(finished: Result) -> None:
    curve = story_of(finished)["over_time"]
    step = (curve["x"][1] - curve["x"][0]) if len(curve["x"]) > 1 else 1e-3
    assert sum(curve["series"]["all"]) * step == pytest.approx(100, rel=0.01)
    assert len(curve["failures"]) <= 5
    assert curve["restarts"] == []
    rates = Rates()
    for n in range(10_000):
        rates.add(n * 0.37, str(n % 3))
    long = rates.curve()
    assert POINTS <= len(long["x"]) <= 2 * POINTS
    step = long["x"][1] - long["x"][0]
    assert {name: round(sum(values) * step) for name, values in long["series"].items()} == {
        "all": 10_000, "0": 3334, "1": 3333, "2": 3333,
    }  # fmt: skip


def test_the_time_between_two_turns_does_not_count() -> None:
    turns = [
        {"started": "2026-11-28T10:00:00.000+00:00", "wall_s": 10.0},
        {"started": "2026-11-28T20:00:00.000+00:00", "wall_s": 5.0},
    ]
    clock, began = RunTime(turns), datetime.fromisoformat(turns[0]["started"]).timestamp()
    assert [clock.of(began + at) for at in (-1, 3, 36_000, 36_004, 4)] == [0, 3, 10, 14, 4]


def test_restarts_are_marks_on_the_time_axis(finished: Result, tmp_path: Path) -> None:
    assert finished.path is not None

    class Deadly(Rows):
        def __getitem__(self, index: int) -> Any:
            if index == 20 and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    model = finished.run["model"]["path"]
    result = evaluate(model, Deadly(200), devices=[0], output=tmp_path / "run", restart_backoff=0, progress=False)
    assert (result.report["samples"], result.report["failed"], result.report["restarts"]) == (200, 0, 1)
    ((at, device),) = story_of(result)["over_time"]["restarts"]
    assert device == 0
    assert 0 <= at <= result.report["wall_s"] + 1
    text = (tmp_path / "run" / "report.html").read_text()
    assert '<b data-figure="restarts">1</b>' in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["over_time"][0]["restarts"] == [[at, 0]]


def test_the_trace_has_a_lane_for_each_stage(finished: Result) -> None:
    assert finished.path is not None
    with gzip.open(Path(finished.path, "trace.json.gz"), "rt") as file:
        events = json.load(file)["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert complete
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in complete if event["cat"] != "queued")
    executed = [event for event in complete if event["cat"] == "execute"]
    records = [record for record in finished.records if record.get("execute_ms")]
    assert len(executed) == len(records)
    by_index = {event["args"]["index"]: event for event in executed}
    for record in records:
        assert by_index[record["index"]]["dur"] == pytest.approx(record["execute_ms"] * 1000, abs=0.2)
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(ends) == len(executed)
    assert {event["pid"] for event in starts.values()} == {0}  # the caller
    assert all(starts[flow]["ts"] <= end["ts"] for flow, end in ends.items())
    lanes = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"queued", "copy in", "preprocess", "execute", "postprocess", "copy out"} <= lanes
    by_lane: dict[Any, list[Any]] = {}
    for event in complete:
        by_lane.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for lane, spans in by_lane.items():
        spans.sort()
        if lane[0] != 0:  # viewers cannot show events of a lane that overlap
            assert all(start >= end - 0.2 for (_, end), (start, _) in itertools.pairwise(spans)), lane


def test_a_trace_begins_with_the_run_that_was_handed_over_first(tmp_path: Path) -> None:
    """A later run may be started before it."""
    same = {"attempts": 1, "error": None, "execute_ms": 1.0}
    records = [
        {**same, "id": 0, "index": 0, "device": 0, "started_s": 100.5, "queued_ms": 500.0},
        {**same, "id": 1, "index": 1, "device": 1, "started_s": 100.2, "queued_ms": 100.0},
    ]
    path = tmp_path / "trace.json.gz"
    assert write_trace(SimpleNamespace(records=records), str(path)) == 2
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    handed_over = {event["name"]: event["ts"] for event in events if event.get("cat") == "caller"}
    assert handed_over == {"#0": 0.0, "#1": pytest.approx(100_000, abs=0.2)}


def test_clocks_of_caller_and_workers_agree(finished: Result) -> None:
    """Within 20 us: a worker takes a run after it was submitted, and finishes it before the caller has the outputs."""
    turn = datetime.fromisoformat(finished.run["turns"][0]["started"]).timestamp()
    for record in finished.records:
        if record.get("started_s") is None:
            continue
        assert record["started_s"] - record["queued_ms"] / 1e3 >= turn - 0.001  # run.json has milliseconds
        inside = sum(record[f"{stage}_ms"] for stage in ("preprocess", "execute", "postprocess"))
        assert inside <= record["worker_ms"] + 0.02
        assert record["queued_ms"] + record["worker_ms"] <= record["end_to_end_ms"] + 0.02


def test_a_run_without_records_has_a_page_too(finished: Result, tmp_path: Path) -> None:
    assert finished.path is not None
    shutil.copytree(finished.path, tmp_path / "empty")
    (tmp_path / "empty" / "records.jsonl").write_text("")
    (tmp_path / "empty" / "report.json").unlink()
    found = load(tmp_path / "empty")
    write_page([found], str(tmp_path / "page.html"))
    assert write_trace(found, str(tmp_path / "trace.json.gz")) == 0
    assert "samples" in (tmp_path / "page.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("runs", [1, 2])
def test_a_browser_shows_it_without_an_error(finished: Result, tmp_path: Path, runs: int) -> None:
    page = tmp_path / "page.html"
    write_page([finished] * runs, str(page))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--enable-logging=stderr"]
    done = subprocess.run(
        [str(CHROMIUM), *options, "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={
            name: value for name, value in os.environ.items() if name != "LD_PRELOAD"
        },  # the browser must run without the sanitizer
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert "<canvas" in done.stdout
    assert "<img" not in done.stdout
    rates = re.findall(r'data-figure="throughput_per_s" data-value="([\d.]+)"', done.stdout)
    assert [float(rate) for rate in rates] == [finished.report["throughput_per_s"]] * runs
    assert np.isfinite(float(rates[0]))
