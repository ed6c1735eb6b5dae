"""Runs over files, with the low-level module and with InferSession."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aclruntime
from ais_bench.errors import ConfigError
from ais_bench.session import InferSession

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

A, B = np.array([9, 8, 7, 6], np.int32), np.array([1, 2, 3, 4], np.int32)


@pytest.mark.parametrize(("format_", "suffix"), [("BIN", "bin"), ("NPY", "npy"), ("TXT", "txt")])
def test_runs_over_files(model: ModelPath, tmp_path: Path, format_: str, suffix: str) -> None:
    for number in range(3):
        np.save(tmp_path / f"a{number}.npy", A + number)
        B.tofile(tmp_path / f"b{number}.bin")
    files = [[str(tmp_path / f"a{number}.npy"), str(tmp_path / f"b{number}.bin")] for number in range(3)]
    readers: dict[str, Callable[[Path], Any]] = {
        "BIN": lambda path: np.fromfile(path, np.int32),
        "NPY": np.load,
        "TXT": np.loadtxt,
    }
    with InferSession(0, model("sub_then_swap")) as session, InferSession(0, model("sub_then_swap")) as other:
        session.run_pipeline(files, str(tmp_path), outfmt=format_, extra_session=[other])
        assert (len(session.summary()), len(other.summary())) == (
            3,
            1,
        )  # the other session's execution is counted with the first session's
        assert float(other.summary()[0]) == pytest.approx(float(session.summary()[2]))
        starts = [start for start, _ in session.summary()]
        assert all(0 < start < 60_000 for start in starts)
    for number in range(3):
        path = tmp_path / f"a{number}_0.{suffix}"
        assert readers[format_](path).tolist() == (A + number - B).tolist()


def test_runs_over_files_as_they_were_before_there_were_infer_options(model: ModelPath, tmp_path: Path) -> None:
    for name, values in (("a", A), ("b", B)):
        np.save(tmp_path / f"{name}.npy", values)
    files = [[str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]]
    session = aclruntime.InferenceSession(model("sub_then_swap"), 0, aclruntime.session_options())
    session.run_pipeline(files, "", False, False)
    assert list(tmp_path.glob("a_*")) == []
    session.run_pipeline(files, str(tmp_path), False, False, "NPY")
    assert np.load(tmp_path / "a_0.npy").tolist() == [8, 6, 4, 2]
    session.run_pipeline(files, str(tmp_path), False, False)
    assert np.fromfile(tmp_path / "a_0.bin", np.int32).tolist() == [8, 6, 4, 2]


def test_files_whose_results_would_overwrite_each_other_are_named(model: Callable[[str], str], tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        np.full((1, 4), ord(folder), np.float32).tofile(tmp_path / folder / "sample.bin")
    files = [[str(tmp_path / folder / "sample.bin")] for folder in "ab"]
    with InferSession(0, model("batch")) as session:
        session.set_dynamic_shape("x:1,4")
        with pytest.raises(ConfigError, match=r"a/sample\.bin.*b/sample\.bin"):
            session.run_pipeline(files, str(tmp_path))
        assert not list(tmp_path.glob("sample_*"))
        session.run_pipeline(files, "")
        session.run_pipeline([files[1], files[1]], str(tmp_path))
        assert np.fromfile(tmp_path / "sample_0.bin", np.float32).tolist() == [-98] * 4
