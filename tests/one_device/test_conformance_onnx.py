"""All tensor models of the onnx wheel's backend tests give the same bits as onnxruntime's own Python API."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ais_bench.errors import UnsupportedError
from ais_bench.session import InferSession
from support.reference import Array, NotInPython, Reference, describe, same

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FOLDERS = ("simple", "pytorch-converted", "pytorch-operator", "node")
CHUNKS = 16  # tests, so that processes share the work


def _models() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (DATA / folder).glob("*/model.onnx"))


def _is_optional(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.WhichOneof("value") == "optional_type")


def _arrays(folder: Path, side: str, values: Sequence[onnx.ValueInfoProto]) -> list[Array | None]:
    """Return the test's arrays; None for an optional input that is not given."""
    files = sorted(folder.glob(f"test_data_set_0/{side}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    arrays: list[Array | None] = []
    for file, value in zip(files, values, strict=True):
        if not _is_optional(value):
            arrays.append(numpy_helper.to_array(TensorProto.FromString(file.read_bytes())))
            continue
        optional = onnx.OptionalProto.FromString(file.read_bytes())
        given = optional.elem_type == onnx.OptionalProto.TENSOR
        arrays.append(numpy_helper.to_array(optional.tensor_value) if given else None)
    return arrays


def _not_a_tensor(inputs: Iterable[onnx.ValueInfoProto], outputs: Iterable[onnx.ValueInfoProto]) -> str | None:
    """Return the type of the first value that is not a tensor of numbers; None if all are. Inputs may be optional."""
    of_inputs = [(value, value.type.optional_type.elem_type if _is_optional(value) else value.type) for value in inputs]
    for value, of in [*of_inputs, *((value, value.type) for value in outputs)]:
        kind = str(of.WhichOneof("value"))
        if kind != "tensor_type":
            return f"{kind.removesuffix('_type')} '{value.name}'"
        if of.tensor_type.elem_type == TensorProto.STRING:
            return f"tensor of strings '{value.name}'"
    return None


def _check_refusal(path: Path, what: str) -> str:
    with pytest.raises(UnsupportedError) as refusal:
        InferSession(0, path)
    kind, name = what.rsplit(" ", 1)
    assert name in str(refusal.value), f"{path}: the message does not name the tensor: {refusal.value}"
    assert kind.split()[0] in str(refusal.value), f"{path}: the message does not name the type: {refusal.value}"
    return kind


def _compare(path: Path) -> str:
    """Return the case of a model. Fails if our outputs are wrong."""
    proto = onnx.load(path)
    initializers = {initializer.name for initializer in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    what = _not_a_tensor(inputs, proto.graph.output)
    try:
        theirs = Reference(str(path))
    except Exception:  # it has a class for every status; all mean the same here
        return "not by onnxruntime"
    if what is not None:
        return "refused: " + _check_refusal(path, what)
    feeds = _arrays(path.parent, "input", inputs)
    try:
        wanted = theirs.run(feeds)
    except NotInPython:
        wanted = _arrays(path.parent, "output", proto.graph.output)
    except Exception:
        return "not by onnxruntime"
    with InferSession(0, path, threads=1) as session:
        got = session.infer(feeds, mode="dymshape")
    assert len(got) == len(wanted), f"{path}: {describe(got)} and not {describe(wanted)}"
    assert all(map(same, got, wanted)), f"{path}: {got} and not {wanted}"
    return "equal"


@pytest.mark.filterwarnings("ignore")  # of onnxruntime, on old models
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.usefixtures("leaves_nothing")
def test_every_model_gives_what_onnxruntime_gives(chunk: int, record_property: pytest.RecordProperty) -> None:
    paths = _models()[chunk::CHUNKS]
    cases = collections.defaultdict(list)
    for path in paths:
        cases[_compare(path)].append(path.parent.name)
    assert len(cases["equal"]) > 0.6 * len(paths), {
        case: len(names) for case, names in cases.items()
    }  # an older onnxruntime runs fewer
    for case, names in cases.items():
        if case.startswith("refused"):
            record_property(case, names)


LIGHT = [
    pytest.param(path, id=path.stem, marks=pytest.mark.long if path.stem in ("light_vgg19", "light_zfnet512") else [])
    for path in sorted((DATA / "light").glob("*.onnx"))
]


@pytest.mark.parametrize("path", LIGHT)
@pytest.mark.usefixtures("leaves_nothing")
def test_light_models_give_what_onnxruntime_gives(path: Path) -> None:
    random = np.random.default_rng(0)
    theirs = Reference(str(path), threads=2)
    with InferSession(0, path, threads=2) as session:
        feeds = [random.standard_normal(desc.shape).astype(desc.datatype.name) for desc in session.get_inputs()]
        got = session.infer(feeds)
    wanted = theirs.run(feeds)
    assert len(got) == len(wanted)
    assert all(map(same, got, wanted))
