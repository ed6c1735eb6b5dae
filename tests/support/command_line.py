"""The models and files for the command line's table, and the files of a run as data."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from ais_bench.emulator import pack
from support.session import add_model, save

STAMP = re.compile(r"\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d")
FLOAT, INT32, FLOAT16 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.FLOAT16


def make_folder(folder: Path) -> None:
    """Make models and inputs, with the same bytes each time."""
    _make_models(folder)
    rows = np.arange(10 * 48, dtype=np.float32).reshape(10, 1, 3, 4, 4)
    for name in ("a", "b", "c9", "deep", "wrong", "late", "empty", "odd", "open", "one", "flat", "mixed"):
        (folder / name).mkdir()
    for index, row in enumerate(rows):
        np.save(folder / "a" / f"img{index}.npy", row)
        (row * 2).tofile(folder / "b" / f"img{index}.bin")
        (row.astype(np.float32)).tofile(folder / "flat" / f"img-{index}.v1.bin")
        if index < 9:
            np.save(folder / "c9" / f"img{index}.npy", row)
        if index < 4:
            np.save(folder / "deep" / f"p{index}.npy", row)
            np.save(folder / "late" / f"p{index}.npy", row if index < 3 else row[:, :2])
            np.save(folder / "open" / f"p{index}.npy", row.repeat(index + 1, axis=0))
            (row if index else row.repeat(2, axis=0)).tofile(folder / "mixed" / f"p{index}.bin")
    (folder / "deep" / "sub").mkdir()
    np.save(folder / "deep" / "sub" / "p9.npy", rows[0])
    np.save(folder / "wrong" / "p0.npy", rows[0][:, :, :3])
    (folder / "empty" / "notes.txt").write_text("no sample")
    np.save(folder / "odd" / "a.1.npy", rows[0])
    np.save(folder / "odd" / "a.2.npy", rows[1])
    np.save(folder / "one" / "x.npy", rows[0])
    ranges = "x:1~3,3,4,4\n\nx:5,3,4,4\r\n"
    (folder / "shapes.info").write_bytes(ranges.encode())
    (folder / "acl.json").write_text(json.dumps({"dump": {"dump_path": "./", "dump_list": []}, "note": "x" * 9000}))
    os.symlink(folder / "a", folder / "link")


def _make_models(folder: Path) -> None:
    add_model(folder / "add4.onnx", [4, 3, 4, 4])
    add_model(folder / "add1.onnx", [1, 3, 4, 4])
    add_model(folder / "addn.onnx", ["n", 3, 4, 4])
    picture = {"x": (FLOAT, [1, 3, 4, 4])}
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    save(folder / "two.onnx", nodes, picture, {"y": (FLOAT, [1, 3, 4, 4]), "z": (FLOAT, [1, 3, 4, 4])})
    neg = [helper.make_node("Neg", ["x"], ["y"])]
    save(folder / "gears.onnx", neg, {"x": (FLOAT, ["n", 3, 4, 4])}, {"y": (FLOAT, ["n", 3, 4, 4])})
    save(folder / "hw.onnx", neg, {"x": (FLOAT, [1, 3, "h", "w"])}, {"y": (FLOAT, [1, 3, "h", "w"])})
    save(folder / "open.onnx", neg, {"x": (FLOAT, ["n", 3, 4, 4])}, {"y": (FLOAT, ["n", 3, 4, 4])})
    cast = [helper.make_node("Cast", ["x"], ["y"], to=INT32), helper.make_node("Cast", ["x"], ["z"], to=FLOAT16)]
    save(folder / "casts.onnx", cast, {"x": (FLOAT, [2, 3, 4, 4])}, {"y": (INT32, [2, 3, 4, 4]), "z": (FLOAT16, [2, 3, 4, 4])})
    total = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    save(folder / "sum.onnx", total, {"x": (FLOAT, [4, 3, 4, 4])}, {"y": (FLOAT, [])})
    turn = [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])]
    save(folder / "turn.onnx", turn, {"x": (FLOAT, [4, 3, 4, 4])}, {"y": (FLOAT, [3, 4, 4, 4])})
    gears = {
        "gears": {"dynamic_batch_size": [1, 2, 8]},
        "hw": {"dynamic_image_size": "4,4;8,2"},
        "dims": {"input_shape": "x:-1,3,4,4", "dynamic_dims": "1;2;4"},
    }
    for name in ("add4", "add1", "two", "gears", "hw", "open", "casts", "sum", "turn"):
        pack(folder / f"{name}.onnx", folder / f"{name}.om", **gears.get(name, {}))  # type: ignore[arg-type]
    pack(folder / "open.onnx", folder / "dims.om", **gears["dims"])  # type: ignore[arg-type]


KEPT = ("npy", "bin", "txt")


def left_in(folder: Path) -> dict[str, Any]:
    """Return folders and files with modes, digests of results, and for JSON files the ordered keys and all values but times."""
    found: dict[str, Any] = {}
    for path in sorted([folder, *folder.rglob("*")]) if folder.exists() else []:
        name = STAMP.sub("TIME", str(path.relative_to(folder.parent)))
        mode = oct(stat.S_IMODE(path.stat().st_mode))[2:]
        if path.is_dir():
            found[name] = f"{mode} folder"
        elif path.name.endswith("_summary.json"):
            found[name] = {"mode": mode, **_figures(path.read_text())}
        elif path.suffix[1:] in KEPT:
            data = path.read_bytes()
            found[name] = f"{mode} {len(data)} {hashlib.sha256(data).hexdigest()[:16]}"
        else:
            found[name] = mode
    return found


def _figures(text: str) -> dict[str, Any]:
    assert "\n" not in text
    content = json.loads(text)
    parts = [content[name] for name in ("NPU_compute_time", "H2D_latency", "D2H_latency")]
    files = STAMP.sub("TIME", json.dumps(content["filesinfo"]))
    return {
        "keys": " ".join(content),
        "figures": [" ".join(part) for part in parts],
        "counts": [part["count"] for part in parts],
        "files": f"{len(content['filesinfo'])} {hashlib.sha256(files.encode()).hexdigest()[:16]}",
        "times": " ".join(sorted({type(entry).__name__ for entry in content["npu_compute_time_list"]})),
        "batch": content.get("samples"),
    }
