"""devices, inspect, bench, scaling, evaluate, resume, score, report, compare: their output as text and as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ais_bench.cli.main import main
from ais_bench.cli.subcommands import SUBCOMMANDS
from ais_bench.emulator import pack
from support.session import DEVICES, add_model, save

pytestmark = pytest.mark.usefixtures("leaves_nothing")
Shell = Any

MINE = """
import os
import numpy as np

class Rows:
    def __len__(self):
        return 9
    def __getitem__(self, index):
        if os.path.exists(f"{os.path.dirname(__file__)}/torn{index}"):
            raise OSError("torn")
        return np.full(6, index, np.float32), index % 5

def rows():
    return Rows()

def scale(sample):
    return sample[0] / 10

def best(outputs):
    return int(outputs[0].argmax())

class Count:
    name = "count"
    def __init__(self):
        self.seen = 0
    def update(self, outputs, target):
        self.seen += 1
    def compute(self):
        return self.seen

def all_of_them(outputs, targets):
    return {"first": outputs[0], "targets": len(targets)}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with a classifier and mine.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    weights = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
    ]
    kinds: dict[str, Any] = {"x": (TensorProto.FLOAT, [1, 6])}
    save(tmp_path / "m.onnx", nodes, kinds, {"scores": (TensorProto.FLOAT, [1, 5])})
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """`shell("devices --json")`: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(line: str) -> tuple[int, str, str]:
        try:
            code = main(line.split())
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_help_teaches_with_examples(name: str, shell: Shell) -> None:
    code, out, _ = shell(f"{name} -h")
    assert code == 0
    assert f"ais-bench {name}" in out.split("examples:")[1]
    assert "--json" in out
    assert "exit codes:" in out
    assert name in shell("-h")[1]
    assert shell(f"{name} --colour red")[0] == 2


def test_devices_says_what_is_here_and_why_not(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_BENCH_ACL_LIBRARY", "/nowhere/libascendcl.so")
    code, out, _ = shell("devices --json")
    found = json.loads(out)
    assert code == 0
    assert found["runtimes"]["ort"]["devices"] == list(range(len(os.sched_getaffinity(0))))
    assert found["runtimes"]["acl"]["devices"] == []
    assert "AIS_BENCH_ACL_LIBRARY" in found["runtimes"]["acl"]["reason"]
    assert found["runtimes"]["acl"]["tried"] == ["/nowhere/libascendcl.so"]
    assert found["versions"]["numpy"] == np.__version__
    text = shell("devices")[1]
    for part in (*found["versions"].values(), "AIS_BENCH_ACL_LIBRARY", "CPU devices"):
        assert str(part) in text


@pytest.mark.usefixtures("npu")
def test_devices_counts_npus(shell: Shell) -> None:
    assert json.loads(shell("devices --json")[1])["runtimes"]["acl"]["devices"] == list(range(8))


@pytest.mark.usefixtures("npu")
def test_inspect(place: Path, shell: Shell) -> None:
    save(
        place / "open.onnx",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT16, ["n", 4])},
        {"y": (TensorProto.FLOAT16, ["n", 4])},
    )
    pack(place / "open.onnx", place / "gears.om", dynamic_batch_size=[1, 2, 8])
    code, out, _ = shell("inspect gears.om --json")
    found = json.loads(out)
    assert code == 0
    assert found["gears"] == {"kind": "dymbatch", "values": [[1], [2], [8]]}
    assert (found["runtime"], len(found["sha256"])) == ("acl", 64)
    assert found["inputs"][0]["name"] == "x"
    assert (found["inputs"][0]["dtype"], found["inputs"][0]["shape"]) == ("float16", [-1, 4])
    text = shell("inspect m.onnx")[1]
    for part in ("m.onnx", "ort", "[1, 6]", "scores", "[1, 5]", "float32", "24"):
        assert part in text
    assert "gears" not in text


@pytest.mark.usefixtures("npu")
def test_bench_and_scaling(place: Path, shell: Shell) -> None:
    add_model(place / "open.onnx", ["n", 3])
    code, out, err = shell(
        "bench open.onnx --devices 0 --batch 1,2 --seconds 0.1 --repeats 2 --agree 100000 --json --no-progress"
    )
    results = json.loads(out)["results"]
    assert (code, err) == (0, "")
    assert [one["shapes"] for one in results] == [{"a": [n, 3], "b": [n, 3]} for n in (1, 2)]
    for one, batch in zip(results, (1, 2), strict=True):
        assert one["samples_per_s"] == pytest.approx(batch * one["throughput_per_s"])
        assert one["throughput_per_s"] == pytest.approx(np.mean([r["throughput_per_s"] for r in one["repeats"]]))
        assert one["ci95"][0] <= one["throughput_per_s"] <= one["ci95"][1]
        assert one["runs"] == sum(d["runs"] for d in one["devices"].values()) == one["execute_ms"]["count"] >= 100
    text = shell("bench m.onnx --devices 0 --seconds 0.1 --repeats 1 --runs 1 --agree 100000 --no-progress")[1]
    for part in ("runs/s", "95 % interval", "samples_per_s: throughput_per_s x batch size"):
        assert part in text
    assert shell("bench open.onnx --devices 0 --seconds 0.1")[0] == 1  # it has open dimensions
    pack(place / "m.onnx", place / "m.om")
    line = "scaling m.om --devices 0,1,2 --seconds 0.1 --repeats 1 --runs 3 --agree 100000 --no-progress"
    curve = json.loads(shell(f"{line} --json")[1])["curve"]
    assert [one["devices_used"] for one in curve] == [[0], [0, 1], [0, 1, 2]]
    assert curve[0]["efficiency"] == 1
    for one in curve:
        rate, count = one["throughput_per_s"], len(one["devices_used"])
        assert one["efficiency"] == pytest.approx(rate / count / curve[0]["throughput_per_s"])


@pytest.mark.usefixtures("npu")
def test_a_sweep_is_one_table_and_one_plot(place: Path, shell: Shell) -> None:
    add_model(place / "open.onnx", ["n", "m"])
    shapes = "--shape a:1,3;b:1,3 --shape a:1,5;b:1,5 --batch 1,2 --workers 1,2"
    measuring = "--seconds 0.03 --repeats 2 --runs 3 --agree 100000 --no-progress"
    code, out, err = shell(f"bench open.onnx --devices 0 {shapes} {measuring} --output sweep --json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    settings = [(one["workers_per_device"], one["shapes"]["a"]) for one in found["results"]]
    assert settings == [(workers, [batch, side]) for workers in (1, 2) for side in (3, 5) for batch in (1, 2)]
    about = json.loads((place / "sweep" / "run.json").read_text())
    assert (about["kind"], about["status"], about["settings"]["batch"]) == ("bench", "success", [1, 2])
    assert {"model": found.pop("model"), **json.loads((place / "sweep" / "report.json").read_text())} == {
        "model": "open.onnx",
        **found,
    }
    page = (place / "sweep" / "report.html").read_text()
    assert page.count('data-setting="') == 8
    speeds = re.findall(r'data-value="([^"]*)"', page)
    expected = [one[name] for one in found["results"] for name in ("throughput_per_s", "samples_per_s")]
    assert [float(speed) for speed in speeds] == expected
    assert shell(f"bench open.onnx --devices 0 {shapes} {measuring} --output sweep")[0] == 1  # the folder already has a run
    code, out, _ = shell("report sweep")
    assert code == 0
    assert out.count("a:1,3;b:1,3") == 2  # the table of every setting
    rows = json.loads(shell("compare sweep sweep --json")[1])["figures"]
    assert {"a:2,5;b:2,5, 1 device, 2 workers each: samples/s"} <= {row["figure"] for row in rows}
    assert all(change in (0, None) for row in rows for change in row["change"])


@pytest.mark.usefixtures("npu")
def test_a_scaling_curve_is_on_the_page(place: Path, shell: Shell) -> None:
    pack(place / "m.onnx", place / "m.om")
    line = "scaling m.om --devices 0,1 --seconds 0.05 --repeats 1 --runs 3 --agree 100000 --no-progress --output curve --json"
    code, out, _ = shell(line)
    found = json.loads(out)
    assert code == 0
    (data,) = re.findall(r'id="data">(.*?)</script>', (place / "curve" / "report.html").read_text(), re.DOTALL)
    (curve,) = json.loads(data)["curves"]
    rates = [one["throughput_per_s"] for one in found["curve"]]
    assert (curve["x"], curve["series"]) == ([1, 2], {"measured": rates, "ideal": [rates[0], 2 * rates[0]]})
    assert "scaling (efficiency: runs/s / (devices x runs/s of one))\n" in shell("report curve")[1].replace(" \n", "\n")
    for command in "resume", "score":
        code, _, err = shell(f"{command} curve")
        assert (code, "is a run of scaling" in err) == (1, True)


def test_a_measurement_that_fails_leaves_its_status(place: Path, shell: Shell) -> None:
    add_model(place / "open.onnx", ["n", 3])
    assert shell("bench open.onnx --devices 0 --output run")[0] == 1  # it has open dimensions
    about = json.loads((place / "run" / "run.json").read_text())
    assert about["status"] == "error"
    assert "open shape" in about["error"]
    code, out, _ = shell("report run")
    assert code == 0
    assert "open shape" in out


def test_windows_that_never_agree_are_said(place: Path, shell: Shell) -> None:
    line = "bench m.onnx --devices 0 --seconds 0.1 --most-seconds 0.3 --repeats 1 --agree 0 --no-progress"
    code, out, _ = shell(line)
    assert code == 3
    assert "NO" in out
    assert "did not become stable" in out


def test_evaluate_and_what_follows(place: Path, shell: Shell) -> None:
    devices = ",".join(map(str, DEVICES))
    line = (
        f"evaluate m.onnx mine.py:rows --preprocess mine.py:scale --postprocess mine.py:best --metric mine.py:Count "
        f"--metric top1 --final mine.py:all_of_them --output run --devices {devices} --no-progress"
    )
    code, out, err = shell(f"{line} --json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["report"]["metrics"]["count"] == 9
    assert found["report"]["metrics"]["targets"] == 9
    assert 0 <= found["report"]["metrics"]["top1"] <= 1
    assert shell(line)[0] == 1  # the folder already has a run
    again = json.loads(shell("score run --json")[1])
    assert again["metrics"] == found["report"]["metrics"]
    code, out, _ = shell("score run --metric edit-distance")
    assert code == 3  # there is no edit distance of numbers
    assert "no score" in out
    report = json.loads(shell("report run --json")[1])
    assert report["report"]["metrics"] == found["report"]["metrics"]
    text = shell("report run")[1]
    for part in ("success", "9 of 9, 0 failed", "count", "top1"):
        assert part in text


def test_a_run_that_was_cut_off_is_resumed_from_anywhere(place: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "torn4").touch()
    line = (
        "evaluate m.onnx mine.py:Rows --preprocess mine.py:scale --metric mine.py:Count --output run --devices 0 --no-progress"
    )
    code, out, _ = shell(line)
    assert code == 3
    assert "1 failed" in out
    records = place / "run" / "records.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:6]) + b'{"index": 6')
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    code, out, err = shell("resume ../run --no-progress --json")
    assert (code, err) == (3, "")
    assert json.loads(out)["report"]["metrics"] == {"count": 8}
    (place / "torn4").unlink()
    code, out, _ = shell("resume ../run --failed --no-progress --json --devices 0")
    assert code == 0
    assert json.loads(out)["report"]["metrics"] == {"count": 9}


def test_a_folder_with_labels(place: Path, shell: Shell) -> None:
    (place / "data").mkdir()
    for index in range(5):
        np.save(place / "data" / f"s{index}.npy", np.eye(1, 6, index, dtype=np.float32))
    (place / "labels.txt").write_text("".join(f"s{index}.npy {index}\n" for index in range(5)))
    line = "evaluate m.onnx data --labels labels.txt --metric top5 --metric top-1 --devices 0 --no-progress --json"
    found = json.loads(shell(line)[1])["report"]["metrics"]
    assert found["top5"] == 1
    (place / "labels.txt").write_text("s0.npy 0\n")
    code, _, err = shell(line)
    assert code == 1
    assert "must label all 5 files; 4 are missing, the first is 's1.npy'" in err


def test_compare(place: Path, shell: Shell) -> None:
    line = "evaluate m.onnx mine.py:rows --preprocess mine.py:scale --metric mine.py:Count --devices 0 --no-progress"
    assert shell(f"{line} --output one")[0] == 0
    assert shell(f"{line} --output two --limit 3")[0] == 0
    found = json.loads(shell("compare one two --json")[1])
    (count,) = [row for row in found["figures"] if row["figure"] == "count"]
    assert (count["values"], count["change"]) == ([9, 3], [0, pytest.approx(-2 / 3)])
    assert found["differences"]["limit"] == ["None", "3"]
    text = shell("compare one two")[1]
    assert re.search(r"count +9 +3 \(-66.7%\)", text)
    assert "limit" in text


def test_a_hostile_name_moves_no_cursor(place: Path, shell: Shell) -> None:
    (place / "data").mkdir()
    (place / "data" / "[bold]\x1b[2J\n.npy").write_bytes(b"no array")
    code, out, _ = shell("evaluate m.onnx data --output run --devices 0 --no-progress")
    assert code == 3
    _, out, _ = shell("report run")
    assert "\x1b" not in out
    assert "[bold]\\x1b[2J\\n.npy" in out


def test_paths_may_be_anything(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"a b\n<script>\xff")
    (place / odd).mkdir()
    (place / odd / "m.onnx").write_bytes((place / "m.onnx").read_bytes())
    np.save(place / odd / f"{odd}.npy", np.zeros((1, 6), np.float32))
    model, run = f"{odd}/m.onnx", f"{odd}/run"
    for words in (
        ["evaluate", model, odd, "--devices", "0", "--no-progress", "--output", run],
        ["report", run],
        ["report", run, "--json"],
        ["compare", run, run, "--html", "page.html"],
        ["inspect", model],
        ["--model", model, "--input", odd, "--output", f"{odd}/out"],
    ):
        assert main(words) == 0, (words, capfd.readouterr())
    assert "<script>" not in Path("page.html").read_text().split("<h1>")[1].split("</h1>")[0]
    assert list((place / odd / "out").glob("*_summary.json"))


def test_an_output_that_cannot_be_written_says_so(place: Path, shell: Shell) -> None:
    (place / "file").touch()
    for output in ("file", "file/run", "/proc/run"):
        for line in (
            f"evaluate m.onnx mine.py:rows --devices 0 --no-progress --output {output}",
            f"bench m.onnx --devices 0 --no-progress --output {output}",
            f"--model m.onnx --output {output}",
        ):
            code, _, err = shell(line)
            assert code == 1, line
            assert re.match(r"\[ERROR\] \w+: .*" + output.split("/")[-2 if output == "file/run" else -1], err.splitlines()[-1])
    assert (place / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate m.onnx nowhere", "must be an existing file or folder"),
        ("evaluate m.onnx mine.py:nothing", "'nothing'"),
        ("evaluate m.onnx mine.py:rows --metric top", "--metric must be topN, mean-absolute-error"),
        ("report nowhere", "must be a file of a run folder"),
        ("resume nowhere", "must be a file of a run folder"),
        ("inspect mine.py", "mine.py"),
    ],
)
def test_what_is_wrong_is_said(line: str, words: str, place: Path, shell: Shell) -> None:
    code, _, err = shell(line)
    assert code == 1
    assert err.startswith("[ERROR] ")
    assert words in err


@pytest.mark.usefixtures("npu")
def test_loadgen_gives_its_verdict(place: Path, shell: Shell) -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    pack(place / "m.onnx", place / "m.om")
    line = "bench m.om --devices 0,1 --scenario single-stream --seconds 0.2 --queries 100 --output run --json"
    code, out, _ = shell(line)
    found = json.loads(out)
    summary = (place / "run" / "loadgen" / "mlperf_log_summary.txt").read_text()
    (verdict,) = re.findall(r"Result is : (\w+)", summary)
    assert (found["result"], code) == (verdict, 0 if verdict == "VALID" else 3)
    assert found["scenario"] == "single-stream"
    assert found["figures"]["Mean latency (ns)"] > 0
    (mean,) = re.findall(r"Mean latency \(ns\)\s*: (\d+)", summary)
    assert found["figures"]["Mean latency (ns)"] == float(mean)
    assert shell("bench m.om --devices 0 --scenario server")[0] == 1  # no rate, no bound


def test_without_loadgen_it_says_what_to_install(place: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    code, _, err = shell("bench m.onnx --devices 0 --scenario offline")
    assert code == 1
    assert "pip install 'ais_bench[loadgen]'" in err


def test_counters_for_prometheus(place: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    import urllib.request

    from ais_bench.evaluate.watch import metrics_port
    from ais_bench.session import MultiDeviceSession

    with MultiDeviceSession(place / "m.onnx", devices=[0]) as session, metrics_port(session, 0) as port:
        list(session.map([[np.zeros((1, 6), np.float32)]] * 7))
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert 'ais_bench_tasks_total{device="0"} 7.0' in text
        assert 'ais_bench_failures_total{device="0"} 0.0' in text
        assert re.search(r'ais_bench_busy_share\{device="0"\} [\d.e-]+', text)


def test_a_live_table_of_devices(place: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ais_bench.evaluate.watch.LIVE_LOOK_S", 0.01)
    line = "bench m.onnx --devices 0 --seconds 0.3 --repeats 1 --runs 1 --agree 100000 --live --json"
    code, out, _ = shell(line)
    assert code == 0
    assert json.loads(out)["results"]
    from rich.console import Console

    from ais_bench.evaluate.watch import _table
    from ais_bench.session import MultiDeviceSession

    with MultiDeviceSession(place / "m.onnx", devices=[0]) as session:
        list(session.map([[np.zeros((1, 6), np.float32)]] * 7))
        console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(_table(session.report()))
        console.file.close()
    assert re.search(r"0 +\w+ +7 +0 +0", console.export_text())
