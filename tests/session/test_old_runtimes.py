"""Older versions of ONNX Runtime: the library works with fewer functions, and reports this if it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench import _native
from ais_bench.session import InferSession, MultiDeviceSession
from ais_bench.wire.factories import SessionFactory
from ais_bench.wire.parcel import pack
from ais_bench.wire.prepared import Prepared, Request
from ais_bench.worker import prepare
from support import weighted_models
from support.scripts import run_python
from support.versions import ONNXRUNTIME
from support.weighted_models import save

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def test_it_shares_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(weighted_models.layers()[0], tmp_path / "model.onnx")
    monkeypatch.setattr(_native, "runtime_version", lambda _name: "1.31.1")
    factory = SessionFactory(path, "ort", {}, None, False, 1, 0, 2, None, 0, 0, False)
    found = prepare._prepare(Request(pack(factory), -1, (), 1, None), str(tmp_path))
    assert found == Prepared(None, "ONNX Runtime 1.31.1 copies prepared weights into each process, 1.32 and newer map them")


@pytest.mark.skipif(ONNXRUNTIME >= prepare.LEAST_VERSION, reason="this ONNX Runtime shares weights")
def test_the_report_says_so(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    with MultiDeviceSession(save(model, tmp_path / "model.onnx"), devices=[0, 1], share_weights=True) as session:
        session.infer(feeds)
        assert set(session.report().shared_weights) == {0, 1}
        for said in session.report().shared_weights.values():
            assert "1.32 and newer map them" in said


def test_weights_in_another_folder(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx", external=True)
    with InferSession(0, path) as session:
        wanted: list[Any] = session.infer(feeds)
    (tmp_path / "apart").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "apart" / "weights.bin")
    with InferSession(0, path, weight_dir=tmp_path / "apart") as session:
        for output, expected in zip(session.infer(feeds), wanted, strict=True):
            assert np.array_equal(output, expected)


def test_loading_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    path = save(weighted_models.layers(width=8)[0], tmp_path / "model.onnx")
    script = "import sys\nfrom ais_bench.session import InferSession\nInferSession(0, sys.argv[1]).free_resource()"
    done: Any = run_python("-c", script, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
