"""The benchmark command, compared with the original's: the files that both write, and the intended differences.

command_line.json in this folder has the rows. They were made by running the original, on this library's aclruntime and
emulator, and ours, with the same arguments and files. A row with "mended" describes an intended difference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.cli.main import main
from support.command_line import left_in, make_folder
from support.scripts import run_script
from support.session import DEVICES
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")
TABLE = json.loads((Path(__file__).parent / "command_line.json").read_text())
ROWS = [pytest.param(row, id=row["name"]) for row in TABLE]
# Rows that give the same results on the other runtime: without gears, which ONNX files lack, and without AscendCL settings.
ON_CPU = [
    pytest.param(row, id=row["name"])
    for row in TABLE
    if not re.search(r"gears|dims|hw\.om|--profiler|--dump|--acl|--device|-d 1", row["args"])
]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command_line")
    before = os.umask(0o022)
    make_folder(folder)
    os.umask(before)
    return folder


@pytest.fixture
def place(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the working directory, with models and files."""
    before = os.umask(0o022)
    shutil.copytree(source, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no msprof, npu-smi or trtexec
    yield tmp_path
    os.umask(before)


def command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = line.split()
    monkeypatch.setattr(sys, "argv", ["ais-bench", *words])
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.usefixtures("npu")
@pytest.mark.parametrize("row", ROWS)
def test_the_table(row: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if re.search("--profiler 1 --output|--dump 1 --output|--acl_json_path acl", row["args"]):
        # AscendCL takes one settings file for a process, and it is already initialised here.
        line = [sys.executable, "-m", "ais_bench", *row["args"].split()]
        code = subprocess.run(line, capture_output=True, check=False).returncode
    else:
        code = command(row["args"], monkeypatch)
    assert code == row["exit"]
    assert left_in(place / "out") == row["tree"]


@pytest.mark.parametrize("row", ON_CPU)
def test_the_table_on_a_cpu_device(row: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(row["args"].replace(".om", ".onnx"), monkeypatch) == row["exit"]
    left = left_in(place / "out")
    for path in left:
        if path.endswith("_summary.json"):  # without copies their counts differ
            left[path]["counts"] = row["tree"][path]["counts"]
    assert left == row["tree"]


def test_the_table_is_large_and_says_what_is_mended() -> None:
    assert len(TABLE) >= 60
    assert len({row["name"] for row in TABLE}) == len(TABLE)
    assert sum("mended" not in row for row in TABLE) >= 60


# ---- spellings ----

ALIASES = {
    "--model two.onnx": ["-m two.onnx", "--om-model two.onnx", "-om two.onnx", "--om_model=two.onnx"],
    "--output_dirname sub": ["-od sub", "--output-dirname sub", "--output-dirname=sub"],
    "--warmup_count 2": ["-wcount 2", "--warmup-count 2"],
    "--pure_data_type zero": ["-pdt zero", "--pure-data-type zero"],
    "--run_mode tensor": ["-rm tensor", "--run-mode tensor"],
    "--output_batchsize_axis 0": ["-oba 0", "--output-batchsize-axis 0"],
    "--batchsize 3": ["--batch-size 3", "--batch_size 3"],
    "--dymBatch 1": ["-db 1", "--dym-batch 1", "--dym_batch 1"],
    "--dymHW 4,4": ["-dhw 4,4", "--dym-hw 4,4"],
    "--dymDims x:1": ["-dd x:1", "--dym-dims x:1"],
    "--dymShape x:1": ["-ds x:1", "--dym-shape x:1", "--dym_shape x:1"],
    "--dymShape_range x:1~2": ["-dr x:1~2", "--dym-shape-range x:1~2", "--dymShape-range x:1~2"],
    "--outputSize 10": ["-outsize 10", "--output-size 10"],
    "--npu_id 3": ["--npu-id 3"],
    "--loop 2": ["-l 2"],
    "--device 0,1": ["-d 0,1"],
}
BOOLEANS = {
    "debug": [],
    "auto_set_dymshape_mode": ["-asdsm"],
    "auto_set_dymdims_mode": ["-asddm"],
    "display_all_summary": ["-das"],
    "profiler": ["-pf"],
    "profiler_rename": [],
    "dump": [],
    "dump_npy": [],
    "energy_consumption": ["-ec"],
    "perf": [],
    "pipeline": [],
    "divide_input": [],
}


def parsed(line: str) -> dict[str, Any]:
    from ais_bench.cli.main import benchmark_parser

    words = line.split()
    return vars(benchmark_parser().parse_args(words if "two.onnx" in line else ["--model", "two.onnx", *words]))


@pytest.mark.usefixtures("place")
def test_every_option_under_every_name() -> None:
    for line, others in ALIASES.items():
        for other in others:
            assert parsed(other) == parsed(line), other
    for name, short in BOOLEANS.items():
        names = [f"--{name}", f"--{name.replace('_', '-')}", *short]
        for spelling in names:
            for true in ("", " 1", " true", " YES", " t", " Y", "=1", "=True"):
                assert parsed(spelling + true)[name] is True, spelling + true
            for false in (" 0", " False", " no", " F", " n", "=0"):
                assert parsed(spelling + false)[name] is False, spelling + false
        for off in (f"--no-{name}", f"--no-{name.replace('_', '-')}", f"--no_{name}"):
            assert parsed(off)[name] is False, off


@pytest.mark.usefixtures("place")
def test_no_prefix_of_an_option_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--display_all 1")
    assert "unrecognized arguments: --display_all" in capsys.readouterr().err


# ---- lines ----


def test_the_lines_that_scripts_look_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "--model add4.onnx --input a,b --output out --output_dirname sub --display_all_summary 1"
    assert command(line, monkeypatch) == 0
    printed = capsys.readouterr().out.splitlines()
    figures = r"\(ms\): min = [\d.e-]+, max = [\d.e-]+, mean = [\d.e-]+, median = [\d.e-]+, percentile\(99%\) = [\d.e-]+"
    expected = [
        r"\[INFO\] load model add4.onnx success",
        r"\[INFO\] create model description success",
        r"\[INFO\] try get model batchsize:4",
        r"\[INFO\] get filesperbatch files0 size:192 tensor0size:768 filesperbatch:4 runcount:3",
        r"\[INFO\] output path:out/sub",
        r"\[INFO\] warm up 1 done",
        r"\[INFO\] -----------------Performance Summary------------------",
        rf"\[INFO\] H2D_latency {figures}",
        rf"\[INFO\] NPU_compute_time {figures}",
        rf"\[INFO\] D2H_latency {figures}",
        r"\[INFO\] wall clock: 10 samples, 2 padded, in [\d.]+ s: [\d.]+ samples/s",
        r"\[INFO\] throughput 1000\*batchsize.mean\(4\)/NPU_compute_time.mean\([\d.e-]+\): [\d.]+",
        r"\[INFO\] ------------------------------------------------------",
    ]
    assert len(printed) == len(expected), printed
    for got, pattern in zip(printed, expected, strict=True):
        assert re.fullmatch(pattern, got), got
    (rate,) = [got.split()[-1] for got in printed if got.startswith("[INFO] throughput")]
    content = json.loads((place / "out" / "sub_summary.json").read_text())
    assert float(rate) == content["throughput"] == pytest.approx(4000 / content["NPU_compute_time"]["mean"])
    assert content["args"] == ["ais-bench", *line.split()]
    assert content["pid"] == os.getpid()
    assert (content["samples"], content["padded"]) == (10, 2)


def test_several_devices_begin_together_and_have_one_summary(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    devices = ",".join(map(str, DEVICES))
    line = f"--model two.onnx --input a --device {devices}"
    if len(DEVICES) == 1:
        pytest.skip("one processor, one device")

    def run(output: str) -> tuple[str, list[tuple[str, ...]]]:
        assert command(f"{line} --output {output} --divide_input", monkeypatch) == 0
        out = capfd.readouterr().out
        found = re.findall(r"\[INFO\] i:(\d) device_(\d) throughput:([\d.]+) +start_time:([\d.]+) end_time:([\d.]+)", out)
        assert [(place, device) for place, device, *_ in found] == [("0", "0"), ("1", "1")]
        return out, found

    def between_starts(found: list[tuple[str, ...]]) -> float:
        return abs(float(found[0][3]) - float(found[1][3]))

    out, found = run("out")
    # The original polls once a second. A busy machine may delay a process.
    assert between_starts(found) < 0.5 or any(between_starts(run(f"again{n}")[1]) < 0.5 for n in range(5))
    assert "[INFO] multidevice run end qsize:4 result:0" in out
    (summed,) = re.findall(r"\[INFO\] summary throughput:([\d.]+)", out)
    (whole,) = (place / "out").glob("*_summary.json")
    content = json.loads(whole.read_text())
    assert content["throughput"] == float(summed) == pytest.approx(sum(float(one[2]) for one in found))
    assert content["samples"] == 10
    assert content["throughput_wall"] == pytest.approx(10 / content["wall_s"])
    assert sorted(content["devices"]) == ["device0_0", "device1_1"]
    assert [len(entry["outfiles"]) for entry in content["filesinfo"].values()] == [2] * 10
    assert len(list((place / "out").rglob("*.bin"))) == 20


def test_fewer_files_than_devices_leave_some_idle(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if len(DEVICES) == 1:
        pytest.skip("one processor, one device")
    line = "--model two.onnx --input a/img1.npy --output out --output_dirname sub --device 0,1 --divide_input 1"
    assert command(line, monkeypatch) == 0
    assert "[INFO] 1 files for 2 devices: device 1 idles" in capfd.readouterr().out
    assert sorted(path.name for path in (place / "out" / "sub").iterdir()) == ["device0_0", "device0_0_summary.json"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--model two.onnx --input odd --output out", r"odd/a.1.npy and odd/a.2.npy would have the same names"),
        ("--model two.onnx --input late --output out", r"late/p3.npy has 128"),
        ("--model add1.onnx --input a,c9", r"a: 10, c9: 9"),
        ("--model two.onnx --input empty", r"'empty' holds no samples"),
        ("--model two.onnx --device 99", r"device"),
        ("--model addn.onnx", r"--dymBatch, --dymDims or --dymShape"),
        ("--model two.onnx --output_dirname x", r"--output_dirname is a folder below --output"),
        ("--model two.onnx --energy_consumption", r"npu-smi, which was not found"),
        ("--model two.onnx --energy_consumption --npu_id 1,2", r"2 NPUs for 1 devices"),
    ],
)
def test_what_is_wrong_is_said(
    line: str, words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(line, monkeypatch) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("[ERROR] ")
    assert re.search(words, said), said
    assert not (place / "out").exists()


def test_a_suffix_keeps_files_of_one_stem_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--model two.onnx --input odd --output out --output_dirname sub --keep_suffix"
    assert command(line, monkeypatch) == 0
    names = sorted(path.name for path in (place / "out" / "sub").iterdir())
    assert names == ["a.1.npy_0.bin", "a.1.npy_1.bin", "a.2.npy_0.bin", "a.2.npy_1.bin"]


def test_a_skipped_sub_folder_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--model two.onnx --input deep", monkeypatch) == 0
    assert "[WARNING] deep: skipped the sub-folders sub" in capsys.readouterr().out


def test_a_range_says_how_each_shape_went(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--model two.onnx --dymShape_range x:1,3,4-5,4 --output out", monkeypatch) == 1
    printed = capsys.readouterr().out
    assert re.search(r"\[INFO\] run_count:2 success_count:1 avg_throughput:[\d.]+", printed)
    assert re.search(r"\[INFO\] 0 dymshape:x:1,3,4,4  result:OK throughput:[\d.]+", printed)
    assert "[INFO] 1 dymshape:x:1,3,5,4  result:Failed throughput:0" in printed
    assert command("--model open.onnx --dymShape_range shapes.info --output all --warmup_count 0", monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "run_count:4 success_count:4" in printed
    assert printed.count("warm up 0 done") == 4
    folders = sorted(path for path in (place / "all").iterdir() if path.is_dir())
    assert [np.fromfile(f / "pure_infer_data_0.bin", np.float32).size for f in folders] == [48, 96, 144, 240]


# ---- under a profiler ----

MSPROF = """\
#!{python}
import os, subprocess, sys
print("profile in", "PROF_000001_20261128114456789_ABCDEFGHIJKLMNOP")
(output,) = [word.split("=", 1)[1] for word in sys.argv if word.startswith("--output=")]
folder = os.path.join(output, "PROF_000001_20261128114456789_ABCDEFGHIJKLMNOP", "summary")
os.makedirs(folder)
open(os.path.join(folder, "op.csv"), "w").close()
(run,) = [word.split("=", 1)[1] for word in sys.argv if word.startswith("--application=")]
subprocess.run({run})
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("run", "code", "input_", "exit_code"),
    [
        ("run, shell=True", 0, "a", 0),
        ("run, shell=True", 0, "late", 1),
        ("run, shell=True", 3, "a", 1),
        ("['true']", 0, "a", 1),
    ],
)
def test_a_profiled_run_that_fails_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, run: str, code: int, input_: str, exit_code: int
) -> None:
    tools = place / "tools"
    tools.mkdir()
    (tools / "msprof").write_text(MSPROF.format(python=sys.executable, run=run, code=code))
    (tools / "msprof").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    line = f"--model two.onnx --input {input_} --output out --output_dirname sub --profiler 1"
    assert command(line, monkeypatch) == exit_code
    if exit_code == 0:
        assert (place / "out" / "sub_summary.json").exists()
        (csv,) = (place / "out").rglob("*.csv")
        assert csv.name == "op_two_ABCDEFGHIJKLMNOP.csv"
    monkeypatch.setenv("AIT_NO_MSPROF_MODE", "1")
    assert command("--model two.onnx --input a --output other --profiler 1", monkeypatch) == 0
    settings = json.loads((place / "other" / "acl.json").read_text())
    assert settings == {"profiler": {"switch": "on", "aicpu": "on", "output": "other/profiler", "aic_metrics": ""}}


def test_energy_of_several_devices(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    tools = place / "tools"
    tools.mkdir()
    power = '#!/bin/sh\necho "	Power Dissipation(W)           : 6${5}.5"\n'
    (tools / "npu-smi").write_text(power)
    (tools / "npu-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    if len(DEVICES) == 1:
        pytest.skip("one processor, one device")
    assert command("--model two.onnx --loop 20 --device 0,1 --energy_consumption --npu_id 4,7", monkeypatch) == 0
    found = dict(re.findall(r"\[INFO\] NPU ID:(\d) energy consumption\(J\):([\d.e-]+)", capfd.readouterr().out))
    assert sorted(found) == ["4", "7"]
    assert all(float(joule) > 0 for joule in found.values())


# ---- the command ----


def test_help_and_version_import_nothing_heavy() -> None:
    script = """
import contextlib, io, sys
from ais_bench.cli.main import main
from ais_bench.cli.subcommands import SUBCOMMANDS
for words in (["-h"], ["--help"], ["--version"], *([name, "-h"] for name in SUBCOMMANDS)):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try: main(words)
        except SystemExit as ended: assert ended.code == 0
    assert len(said.getvalue()) > 10
heavy = {"numpy", "rich", "onnxruntime", "multiprocess", "dill", "jinja2", "ais_bench._native", "ais_bench.session", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_script(script).strip() == "[]"


@pytest.mark.parametrize("words", [["devices"], ["inspect", "two.onnx", "--json"], ["--model", "two.onnx"]])
def test_an_output_that_is_full_or_closed(place: Path, words: list[str]) -> None:
    line = [sys.executable, "-m", "ais_bench", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=place)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=place)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_module_and_the_script_are_the_same_command(place: Path) -> None:
    script = Path(sys.executable).with_name("ais-bench")
    said = []
    for start in ([sys.executable, "-m", "ais_bench"], [str(script)]):
        if not script.exists():
            pytest.skip("the package was not installed since it has a console script")
        line = [*start, "--model", "two.onnx", "--input", "a", "--loop", "2"]
        done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=place)
        said.append(re.sub(r"[\d.]+(e-\d+)?", "N", done.stdout))
        missing = subprocess.run(start, capture_output=True, text=True, check=False, cwd=place)
        assert missing.returncode == 2
    assert said[0] == said[1]


def test_ctrl_c_ends_it_and_every_process(place: Path) -> None:
    if len(DEVICES) == 1:
        pytest.skip("one processor, one device")
    process = subprocess.Popen(
        [sys.executable, "-m", "ais_bench", "--model", "two.onnx", "--device", "0,1", "--loop", "2000000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = threading.Timer(90, process.kill)
    deadline.start()
    try:
        assert process.stdout is not None
        warm = 0
        while warm < 2:  # both processes write to one pipe, so a line may have the text of both
            line = process.stdout.readline()
            assert line, "it ended before both devices were warm"
            warm += line.count("warm up")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        deadline.cancel()
        process.kill()
    assert process.returncode == 130, err
    wait_until(lambda: not alive(process.pid), what="the end of every process")


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_device_that_fails_after_another_prints_nothing() -> None:
    """The parent reads no more once a device has failed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        options = {"options": {"debug": False}, "share": None, "device": 0, "prefix": "", "acl_json": None, "npu": False}
        ours.sendall(json.dumps(options).encode() + b"\n")
        code = f"from ais_bench.cli.several_devices import main; main({theirs.fileno()})"
        with subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as child:
            theirs.close()
            ours.close()
            assert child.stderr is not None
            assert child.stderr.read() == b""
        assert child.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_descriptor_is_no_error(closed: str) -> None:
    run = subprocess.run(["sh", "-c", f'"$0" -m ais_bench devices {closed}', sys.executable], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
