"""The page and the trace of a run: figures as in the JSON, parts that sum up, nothing from the data that becomes markup."""

from __future__ import annotations

import gzip
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_support import Rows
from multi_device_support import DEVICES, save
from onnx import TensorProto, helper

from ais_bench.evaluate import Result, evaluate, load
from ais_bench.evaluate.page.page import write_page
from ais_bench.evaluate.page.timeline import over_time, parts_of_wall
from ais_bench.evaluate.page.trace import write_trace

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
    kind = (TensorProto.FLOAT, [1, 6])
    model = save(folder / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": kind}, {"y": kind})
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
    assert json.loads(data)[0]["name"] == "run"


def test_parts_of_the_wall_time_sum_up(finished: Result) -> None:
    walls = parts_of_wall(finished.records, finished.report["wall_s"])
    named = {str(record["device"]) for record in finished.records}
    assert set(walls) == named
    for parts in walls.values():
        assert sum(parts.values()) == pytest.approx(finished.report["wall_s"])
        assert all(seconds >= 0 for seconds in parts.values())
    # Two runs of a device that overlap: 1 s to 3 s and 2 s to 5 s, and 1 s before each to prepare.
    records = [
        {"device": 0, "error": None, "started_s": at, "preprocess_ms": 1000, "execute_ms": took}
        for at, took in ((0, 2000), (1, 3000))
    ]
    (parts,) = parts_of_wall(records, 6).values()
    assert parts == {"execute": 4, "preprocess": 1, "postprocess": 0, "copy_in": 0, "copy_out": 0, "idle": 1}


def test_the_curve_counts_every_sample(finished: Result) -> None:
    curve = over_time(finished.records)
    step = (curve["x"][1] - curve["x"][0]) if len(curve["x"]) > 1 else 1
    assert sum(curve["series"]["all"]) * step == pytest.approx(100, rel=0.02)
    assert len(curve["failures"]) <= 5


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
    starts = {event["id"] for event in events if event["ph"] == "s"}
    ends = {event["id"] for event in events if event["ph"] == "f"}
    assert ends <= starts
    lanes = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"queued", "copy in", "preprocess", "execute", "postprocess", "copy out"} <= lanes


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
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert "<canvas" in done.stdout
    assert "<img" not in done.stdout
    rates = re.findall(r'data-figure="throughput_per_s" data-value="([\d.]+)"', done.stdout)
    assert [float(rate) for rate in rates] == [finished.report["throughput_per_s"]] * runs
    assert np.isfinite(float(rates[0]))
