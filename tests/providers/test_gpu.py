"""The provider of an accelerator, which the environment variable AIS_BENCH_GPU_PROVIDER names: see benchmarks/gpu_check.sh."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.infer.interface import InferSession
from ais_bench.session import MultiDeviceSession
from support import weighted_models
from support.waiting import wait_until

PROVIDER = os.environ.get("AIS_BENCH_GPU_PROVIDER", "")
pytestmark = pytest.mark.skipif(not PROVIDER, reason="AIS_BENCH_GPU_PROVIDER names no provider")


def agree(found: list[Any], wanted: list[Any]) -> None:
    for got, right in zip(found, wanted, strict=True):
        assert got.shape == right.shape
        scale = float(np.abs(right.astype(np.float64)).max())
        np.testing.assert_allclose(got.astype(np.float64), right.astype(np.float64), rtol=0, atol=5e-3 * max(scale, 1e-6))


@pytest.mark.parametrize("kind", ["float32", "float16", "open batch", "convolutions", "lookup"])
def test_one_device(kind: str, tmp_path: Path) -> None:
    model, feeds = weighted_models.KINDS[kind]()
    path = weighted_models.save(model, tmp_path / "model.onnx")
    wanted = InferSession(0, path).infer(feeds, "dymshape")
    session = InferSession(0, path, provider=PROVIDER)
    agree(session.infer(feeds, "dymshape"), wanted)
    for found in session.infer_pipeline([feeds] * 9, "dymshape"):
        agree(found, wanted)


def test_all_devices_and_a_worker_that_dies(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers(open_batch=True)
    path = weighted_models.save(model, tmp_path / "model.onnx")
    (wanted,) = InferSession(0, path).infer(feeds)
    with MultiDeviceSession(path, provider=PROVIDER, workers_per_device=2) as session:
        by_device = session.infer({device: [feeds, feeds] for device in session.devices})
        for results in by_device.values():
            for found in results:
                agree(found, [wanted])
        os.kill(next(worker.pid for worker in session.report().workers if worker.pid is not None), signal.SIGKILL)
        for (found,) in session.map([feeds] * 200):
            agree([found], [wanted])
        wait_until(lambda: all(worker.state == "ready" for worker in session.report().workers), seconds=60)
        print(session.report())
