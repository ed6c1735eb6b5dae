"""Write the models of acl_test.cpp into a folder. All of them are x @ w, with w = 0, 1, 2, ..."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ais_bench.emulator import pack
from support import emulator_models

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
onnx = emulator_models.matmul(folder)
pack(onnx, folder / "static.om", input_shape="x:2,3")
pack(onnx, folder / "batch.om", dynamic_batch_size=[1, 2, 4])
pack(onnx, folder / "shape.om")
pack(onnx, folder / "external.om", input_shape="x:2,3", external_weight=True)
