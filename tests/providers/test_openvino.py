"""The OpenVINO provider, which runs on any x86 processor: sessions and pools, compared with the processor's results.

OpenVINO computes in another order and with fused operators, so answers agree within a tolerance: 1e-3 of the largest value of
an output, and 1e-6. `make openvino` runs it in a separate environment, with OpenVINO's variant of onnxruntime only.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ais_bench.errors import DeviceUnavailable, FeedError, WorkerStartError
from ais_bench.infer.interface import InferSession
from ais_bench.providers import probe
from ais_bench.session import MultiDeviceSession
from support import weighted_models
from support.waiting import wait_until

_FOUND = probe("openvino")
pytestmark = pytest.mark.skipif(not _FOUND.devices, reason=f"no OpenVINO provider: {_FOUND.why}; try make openvino")

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
OCR_SHAPES = {"det": (1, 3, 64, 96), "rec": (1, 3, 48, 64), "cls": (1, 3, 48, 192)}
# A thousand equal numbers go into its softmax, of which rounding alone makes some the largest: OpenVINO makes others than the
# processor, also without this library. All light models have constant weights.
TIES = {"light_squeezenet"}
Array = NDArray[Any]


def bare(path: Path) -> Callable[[list[Array]], list[Array]]:
    """Return a function that runs the provider with onnxruntime's own Python API."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["OpenVINOExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda feeds: session.run(None, dict(zip(names, feeds, strict=True)))


def agree(found: list[Array], wanted: list[Array]) -> None:
    assert len(found) == len(wanted)
    for got, right in zip(found, wanted, strict=True):
        assert got.shape == right.shape
        assert got.dtype == right.dtype
        scale = float(np.abs(right.astype(np.float64)).max()) if right.size else 0.0
        np.testing.assert_allclose(got.astype(np.float64), right.astype(np.float64), rtol=0, atol=1e-3 * max(scale, 1e-3))


def feeds_for(session: Any, seed: int = 0) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.standard_normal([max(dim, 1) for dim in desc.shape]).astype(desc.dtype) for desc in session.get_inputs()]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models(path: Path) -> None:
    with MultiDeviceSession(path, provider="openvino", workers_per_device=2) as session:
        assert session.devices == [0]
        sets = [feeds_for(session, seed) for seed in range(3)]
        found = list(session.map(sets))
        report = session.report()
    reference, provider = InferSession(0, path), bare(path)
    for feeds, got in zip(sets, found, strict=True):
        agree(got, provider(feeds))
        if path.stem not in TIES:
            agree(got, reference.infer(feeds))
    assert report.provider == "openvino"
    assert report.fallback[0] is not None
    assert report.fallback[0].nodes > 0


@pytest.mark.parametrize("kind", OCR_SHAPES)
def test_ocr_models(kind: str) -> None:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed")
    (path,) = Path(spec.origin).parent.glob(f"models/*_{kind}_*.onnx")
    image = np.random.default_rng(0).standard_normal(OCR_SHAPES[kind]).astype(np.float32)
    with MultiDeviceSession(path, provider="openvino", workers_per_device=2) as session:
        found = session.infer([image], "dymshape")
    agree(found, InferSession(0, path).infer([image], "dymshape"))


@pytest.mark.parametrize("kind", ["float32", "open batch", "convolutions", "recurrent", "lookup"])
def test_random_nets(kind: str, tmp_path: Path) -> None:
    model, feeds = weighted_models.KINDS[kind]()
    path = weighted_models.save(model, tmp_path / "model.onnx")
    wanted = InferSession(0, path).infer(feeds, "dymshape")
    session = InferSession(0, path, provider="openvino")
    agree(session.infer(feeds, "dymshape"), wanted)
    for found in session.infer_pipeline([feeds, feeds], "dymshape"):
        agree(found, wanted)
    (first, *_) = session.infer(feeds, "dymshape", out_array=False)
    first.to_host()
    agree([np.array(first)], wanted[:1])
    with pytest.raises(FeedError):
        session.infer([np.zeros(3, np.int8)])


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, list[Array]]:
    model, feeds = weighted_models.layers(open_batch=True)
    return weighted_models.save(model, tmp_path / "model.onnx"), feeds


@pytest.mark.usefixtures("leaves_nothing")
def test_a_pool_keeps_the_order_and_outlives_its_workers(layers: tuple[str, list[Array]]) -> None:
    path, feeds = layers
    (x,) = feeds
    wanted = InferSession(0, path).infer([x])[0]
    with MultiDeviceSession(path, provider="openvino", workers_per_device=2) as session:
        session.start()
        killed = next(worker.pid for worker in session.report().workers if worker.pid is not None)
        found = []
        for index, (got,) in enumerate(session.map([[x * (n % 7)] for n in range(60)])):
            if index == 20:
                os.kill(killed, signal.SIGKILL)
            found.append(got)
        wait_until(lambda: sum(worker.state == "ready" for worker in session.report().workers) == 2)
    for number, got in enumerate(found):
        agree([got], [wanted * (number % 7)])


@pytest.mark.usefixtures("leaves_nothing")
def test_callables_and_batches(layers: tuple[str, list[Array]]) -> None:
    path, feeds = layers
    (x,) = feeds
    (wanted,) = InferSession(0, path).infer([x])
    rows = np.concatenate([x, x, x])
    with MultiDeviceSession(path, provider="openvino", workers_per_device=2) as session:
        (joined,) = session.infer_batch([rows], batch_size=4)
        agree([joined], [np.concatenate([wanted] * 3)])
    with MultiDeviceSession(
        path, provider="openvino", preprocess=lambda scale: [x * scale], postprocess=lambda outputs: float(outputs[0].max())
    ) as session:
        largest = list(session.map([0, 1, 2]))
    np.testing.assert_allclose(largest, [0, wanted.max(), 2 * wanted.max()], rtol=1e-3)


def test_options_go_to_the_provider(layers: tuple[str, list[Array]], tmp_path: Path) -> None:
    path, feeds = layers
    cache = tmp_path / "cache"
    options = {"device_type": "CPU", "cache_dir": str(cache), "session.intra_op.allow_spinning": 0}
    agree(InferSession(0, path, provider="openvino", provider_options=options).infer(feeds), InferSession(0, path).infer(feeds))
    with pytest.raises(DeviceUnavailable, match="Failed to load provider OpenVINO"):
        InferSession(0, path, provider="openvino", provider_options={"device_typ": "CPU"})


def test_auto_takes_it_and_a_strange_device_is_refused(layers: tuple[str, list[Array]]) -> None:
    path, feeds = layers
    with MultiDeviceSession(path, provider="auto") as session:
        agree(session.infer(feeds), InferSession(0, path).infer(feeds))
        assert session.report().provider == "openvino"
    options = {"device_type": "NPU"}
    with (
        MultiDeviceSession(path, provider="openvino", provider_options=options) as session,
        pytest.raises(WorkerStartError),
    ):
        session.start()
