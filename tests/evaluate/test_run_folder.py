"""The run folder: its content, and its state after a run was interrupted at any point."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.errors import ConfigError, FileError, UnsupportedError
from ais_bench.evaluate import Result, evaluate, load, score
from ais_bench.evaluate.folder import RunFolder
from ais_bench.evaluate.statistics import discarded, distribution, least_samples
from ais_bench.evaluate.values import Unstorable, decode_value, encode_value
from support import MORE
from support.evaluate import Order, Rows
from support.scripts import environment, run_script
from support.session import DEVICES, negative_model

pytestmark = pytest.mark.usefixtures("leaves_nothing")
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="session")
def negative(tmp_path_factory: pytest.TempPathFactory) -> str:
    """y = -x of float32 (2, 6)."""
    return negative_model(tmp_path_factory.mktemp("model") / "negative.onnx", 2)


def run(model: str, folder: Path, count: int = 21, **more: Any) -> Result:
    options: dict[str, Any] = {"metrics": Order(), "devices": [0], "output": folder, **QUIET, **more}
    return evaluate(model, options.pop("data", Rows(count)), **options)


def test_what_a_run_folder_holds(negative: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(negative, folder, notes={"why": "a test"}, devices=DEVICES)
    about = json.loads((folder / "run.json").read_text())
    assert (about["status"], about["samples"], about["notes"], about["metrics"]) == (
        "success",
        21,
        {"why": "a test"},
        ["order"],
    )
    digest = subprocess.run(["sha256sum", negative], capture_output=True, text=True, check=True).stdout.split()[0]
    assert about["model"] == {"path": negative, "bytes": os.path.getsize(negative), "sha256": digest}
    assert about["versions"]["numpy"] == np.__version__
    assert [(turn["devices"], turn["status"]) for turn in about["turns"]] == [(list(DEVICES), "success")]
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert [(line["index"], line["id"], line["error"]) for line in lines] == [(n, str(n), None) for n in range(21)]
    assert lines == list(result.records)
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"] == result.metrics
    assert (report["samples"], report["padded"], report["runs"]) == (21, 1, 11)
    assert sum(device["samples"] for device in report["devices"].values()) == 21
    again = load(folder)
    assert again.to_dict() == {"path": str(folder), "run": about, "report": report}
    assert result.to_dict()["report"]["metrics"] == result.metrics
    assert "21 samples" in repr(result)
    assert "order" in str(result)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(negative, folder)


def test_scores_again_without_inference(negative: str, tmp_path: Path) -> None:
    first = run(negative, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    assert score(tmp_path / "run", Order(), write=True).metrics == first.metrics
    assert load(tmp_path / "run").metrics == first.metrics
    assert score(tmp_path / "run", final=lambda outputs, targets: {"n": len(outputs), "last": targets[-1]}).metrics == {
        "n": 21,
        "last": 20,
    }
    without = run(negative, tmp_path / "without", keep_outputs=False)
    assert without.metrics == first.metrics
    with pytest.raises(ConfigError, match="no output in its record"):
        score(tmp_path / "without", Order())
    with pytest.raises(ConfigError, match="keeps no outputs"):
        run(negative, tmp_path / "without", resume=True)
    assert run(negative, tmp_path / "without", resume=True, metrics=()).report["samples"] == 21


@pytest.mark.random
@pytest.mark.parametrize("large", [False, True])
def test_a_folder_cut_off_at_any_byte_is_gone_on_with(negative: str, tmp_path: Path, large: bool, monkeypatch: Any) -> None:
    """A process that is killed at any moment leaves a prefix of its output."""
    monkeypatch.setattr("ais_bench.evaluate.values.INLINE_BYTES", 8 if large else 1000)
    whole = run(negative, tmp_path / "whole")
    records = (tmp_path / "whole" / "records.jsonl").read_bytes()
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    del about["turns"][0]["wall_s"], about["turns"][0]["ended"]
    about.update(status="started")
    rng = random.Random(large)
    ends = [position + 1 for position, byte in enumerate(records) if byte == 10]
    cuts = [1, len(records), rng.choice(ends), *rng.sample(range(len(records)), 2 * MORE)]
    with_session = {"devices": DEVICES}
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps(about))
        (folder / "records.jsonl").write_bytes(records[:cut] + rng.randbytes(rng.randrange(3)).replace(b"\n", b""))
        if large:
            shutil.copy(tmp_path / "whole" / "outputs.bin", folder)
        result = run(negative, folder, resume=True, **with_session)
        assert result.metrics == whole.metrics, cut
        assert [record["index"] for record in result.records] == list(range(21))
        assert [record["index"] for record in map(json.loads, (folder / "records.jsonl").open())] == list(range(21))
        assert [turn["status"] for turn in result.run["turns"]] == ["killed", "success"]
        assert result.run["turns"][1]["samples_before"] == sum(end <= cut for end in ends)


def test_a_record_whose_bytes_are_not_there_does_not_count(negative: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("ais_bench.evaluate.values.INLINE_BYTES", 8)
    whole = run(negative, tmp_path / "run")
    outputs = tmp_path / "run" / "outputs.bin"
    os.truncate(outputs, outputs.stat().st_size - 100)
    again = run(negative, tmp_path / "run", resume=True)
    assert again.run["turns"][1]["samples_before"] == 21 - 5  # 24 bytes each
    assert again.metrics == whole.metrics


SCRIPT = """
import sys, time
from support.evaluate import Order, Rows
from ais_bench.evaluate import evaluate

def slow(sample):
    time.sleep(0.002 if sample[1] < int(limit) else 0.1)  # so that the interruption comes before the end
    return sample[0]

model, folder, devices, limit = sys.argv[1:]
result = evaluate(model, Rows(400), preprocess=slow, metrics=Order(), devices=range(int(devices)), output=folder,
                  resume=True, progress=False)
print(result.metrics["order"])
"""


def test_interrupted_again_and_again_every_sample_is_there_once(negative: str, tmp_path: Path) -> None:
    expected = run(negative, tmp_path / "expected", 400).metrics["order"]
    folder, rng = tmp_path / "run", random.Random(0)
    done, turns = 0, 0
    while done < 400:
        turns += 1
        devices = rng.choice([1, len(DEVICES)])
        wanted = done + rng.randrange(40, 150)  # records before the interruption
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, negative, str(folder), str(devices), str(wanted + 20)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and _lines(folder) < wanted and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGINT]))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        before, done = done, _lines(folder)
        assert done > before, err
    assert turns > 2
    if process.returncode != 0:
        out = run_script(SCRIPT, negative, str(folder), "1", "400")
    assert int(out) == expected
    indexes = [json.loads(line)["index"] for line in (folder / "records.jsonl").open()]
    assert indexes == list(range(400))
    statuses = [turn["status"] for turn in json.loads((folder / "run.json").read_text())["turns"]]
    assert statuses[-1] == "success"
    assert set(statuses[:-1]) <= {"killed", "interrupted", "success"}


def _lines(folder: Path) -> int:
    path = folder / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_error_that_ends_the_run_is_noted_and_the_rest_follows(negative: str, tmp_path: Path) -> None:
    class Torn(Rows):
        def __getitem__(self, index: int) -> Any:
            if index == 12:
                raise OSError("torn")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="torn"):
        run(negative, tmp_path / "run", data=Torn(21), on_error="raise")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], about["error"]) == ("error", "OSError: torn")
    assert load(tmp_path / "run").report["samples"] == 12
    again = run(negative, tmp_path / "run", data=Torn(21), resume=True)
    assert [record["index"] for record in again.failures] == [12]
    assert run(negative, tmp_path / "run", resume=True).report["failed"] == 1
    healed = run(negative, tmp_path / "run", resume="failed")
    assert healed.failures == []
    assert healed.metrics == run(negative, tmp_path / "other").metrics
    assert [record["index"] for record in healed.records] == list(range(21))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 22}, "number of samples was 21 and is 22"),
        ({"batch_size": 1}, "batch_size was None and is 1"),
        ({"seed": 1}, "seed was None and is 1"),
        ({"other_model": True}, "SHA-256"),
    ],
)
def test_another_run_is_not_gone_on_with(negative: str, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run(negative, tmp_path / "run")
    model = negative
    if change.pop("other_model", False):
        model = str(tmp_path / "other.onnx")
        Path(model).write_bytes(Path(negative).read_bytes() + b"\x7a\x00")  # one more empty field
    with pytest.raises(ConfigError, match=words):
        run(model, tmp_path / "run", resume=True, **change)
    assert load(tmp_path / "run").report["status"] == "success"


def test_two_processes_do_not_write_to_one_folder(negative: str, tmp_path: Path) -> None:
    run(negative, tmp_path / "run")
    held = RunFolder.resume(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="another process"):
        run(negative, tmp_path / "run", resume=True)
    held.close()


def test_a_full_disk_keeps_what_was_written(negative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(negative, tmp_path / "expected").metrics
    room = (tmp_path / "expected" / "records.jsonl").stat().st_size // 2
    write = os.pwrite

    def into_a_small_disk(fd: int, data: Any, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data)[: room - offset], offset)

    monkeypatch.setattr("ais_bench.evaluate.folder.os.pwrite", into_a_small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        run(negative, tmp_path / "run")
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "run" / "records.jsonl")
    kept = load(tmp_path / "run")
    assert 5 < len(kept.records) < 15
    assert (tmp_path / "run" / "records.jsonl").read_bytes().endswith(b"\n")
    assert kept.run["status"] == "error"
    assert run(negative, tmp_path / "run", resume=True).metrics == expected


def test_hostile_ids_and_messages_are_data(negative: str, tmp_path: Path) -> None:
    names = ['<img src=x onerror=alert(1)>"\\.npy', "new\nline.npy", "ümlaut.npy"]
    for name in names:
        np.save(tmp_path / name, np.zeros((1, 6), np.float32))
    files = sorted(tmp_path.glob("*.npy"))
    (tmp_path / os.fsdecode(b"not-utf8-\xff.npy")).write_bytes(b"no array")
    files.append(tmp_path / os.fsdecode(b"not-utf8-\xff.npy"))
    result = run(negative, tmp_path / "run", data=files)
    assert [record["id"] for record in result.records][:3] == [file.name for file in files[:3]]
    assert [record["index"] for record in result.failures] == [3]
    assert len((tmp_path / "run" / "records.jsonl").read_bytes().splitlines()) == 4


AS_PARQUET = """
import json, sys
import pyarrow.parquet
from ais_bench.evaluate import load

folder = sys.argv[1]
count = load(f"{folder}/run").records.to_parquet(f"{folder}/records.parquet")
try:
    load(f"{folder}/run").records.to_parquet(f"{folder}/nowhere/records.parquet")
except OSError:
    print(json.dumps([count, pyarrow.parquet.read_table(f"{folder}/records.parquet").to_pylist()]))
"""


def test_records_as_parquet(negative: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    names = ["a.npy", "new\nline <script>.npy", os.fsdecode(b"not-utf8-\xff.npy")]
    for name in names[:2]:
        np.save(tmp_path / name, np.zeros((1, 6), np.float32))
    (tmp_path / names[2]).write_bytes(b"no array")
    result = run(negative, tmp_path / "run", data=[tmp_path / name for name in names])
    count, rows = json.loads(run_script(AS_PARQUET, str(tmp_path)))  # pyarrow leaves threads
    assert (count, [row["id"] for row in rows]) == (3, [*names[:2], "not-utf8-\\udcff.npy"])
    for row, record in zip(rows, result.records, strict=True):
        for name in ("index", "device", "started_s", "execute_ms", "end_to_end_ms", "attempts"):
            assert row[name] == record.get(name), name
        assert row["first"] == record.get("first", True)
        assert (row["output"] is None) == ("output" not in record)
        if "output" in record:
            assert json.loads(row["output"]) == record["output"]
        assert row["error_type"] == (record["error"] or {}).get("type")
    assert [path.name for path in tmp_path.glob("*parquet*")] == ["records.parquet"]


def test_without_pyarrow_it_says_what_to_install(negative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'ais_bench\[parquet\]'"):
        run(negative, tmp_path / "run").records.to_parquet(tmp_path / "records.parquet")


def test_values_come_back_as_they_were() -> None:
    import ml_dtypes

    store = bytearray()

    def put(data: memoryview) -> int:
        store.extend(data)
        return len(store) - data.nbytes

    values = [
        None, True, 7, -0.0, 1e-320, 0.1, float("inf"), "text \ud7ff", b"\x00\xff", [1, [2]], (1, (2, "x")), {1, 2},
        frozenset({"a"}), {"a": {"b": 1}}, {1: 2, (3,): 4}, {"$array": 3}, np.float32(0.1), np.int64(-5), np.bool_(True),
        np.arange(3), np.zeros((0, 4), np.float16), np.array(3.5), np.random.default_rng(0).normal(size=(64, 64)),
        np.arange(12, dtype=">i4").reshape(3, 4)[:, ::-1], np.array(["ab", "c"]), np.ones(700, ml_dtypes.bfloat16),
    ]  # fmt: skip
    for value in values:
        text = json.dumps(encode_value(value, put))
        back = decode_value(json.loads(text), lambda offset, number: bytes(store[offset : offset + number]))
        assert type(back) is type(value)
        if isinstance(value, np.ndarray | np.generic):
            assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())
        else:
            assert repr(back) == repr(value)
    nan = decode_value(json.loads(json.dumps(encode_value(float("nan"), put))), lambda *_: b"")
    assert nan != nan
    for strange in object(), np.array([object()]), Rows(1):
        with pytest.raises(Unstorable, match="cannot be kept"):
            encode_value(strange, put)


def test_an_output_that_cannot_be_kept_costs_only_the_second_scoring(negative: str, tmp_path: Path) -> None:
    result = run(negative, tmp_path / "run", postprocess=lambda outputs: complex(1, 2), metrics=lambda outputs, target: 1.0)
    assert result.metrics == {"function": 1.0}
    with pytest.raises(ConfigError, match="complex cannot be kept"):
        score(tmp_path / "run", Order())


def test_percentiles_are_quoted_where_samples_support_them() -> None:
    table = {0.5: 11, 0.9: 64, 0.95: 130, 0.97: 219, 0.99: 662, 0.999: 6636, 0.9999: 66381}
    assert {p: least_samples(p) for p in table} == table
    assert [discarded(n, 0.99) for n in (661, 662, 1000, 10_000, 100_000)] == [None, 0, 1, 76, 926]
    assert "p90" not in distribution(range(63))
    figures = distribution([*range(700)])
    assert (figures["count"], figures["p99"], figures["max"]) == (700, 699, 699)
    assert "p99.9" not in figures
    assert distribution([]) == {"count": 0}


def test_a_run_folder_that_is_a_file_is_named(negative: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(FileError, match="cannot make the run folder: .*taken"):
        evaluate(negative, Rows(2), devices=DEVICES[:1], output=tmp_path / "taken")
