"""The three models of an OCR pipeline, with new shapes in every call, compared with onnxruntime's own Python API."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ais_bench.session import InferSession
from support.reference import Reference, same

SHAPES = {
    "det": [(1, 3, 64, 96), (1, 3, 128, 64), (1, 3, 32, 32), (1, 3, 64, 96)],
    "rec": [(1, 3, 48, 64), (3, 3, 48, 160), (2, 3, 48, 32), (1, 3, 48, 64)],
    "cls": [(1, 3, 48, 192), (4, 3, 48, 192), (2, 3, 48, 192), (1, 3, 48, 192)],
}


def _model(kind: str) -> Path:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")  # found without importing it: it needs an image library
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed; 'make test' installs it")
    (path,) = Path(spec.origin).parent.glob(f"models/*_{kind}_*.onnx")
    return path


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.usefixtures("leaves_nothing")
def test_ocr_models_give_what_onnxruntime_gives(kind: str) -> None:
    path = _model(kind)
    random = np.random.default_rng(0)
    theirs = Reference(str(path), threads=2)
    with InferSession(0, path, threads=2) as session:
        for shape in SHAPES[kind]:
            image = random.standard_normal(shape).astype(np.float32)
            got = session.infer([image], mode="dymshape")
            wanted = theirs.run([image])
            assert len(got) == len(wanted)
            assert all(map(same, got, wanted)), shape
