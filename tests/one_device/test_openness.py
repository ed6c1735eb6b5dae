"""A session's facts about its model, and the options that it passes to ONNX Runtime."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import aclruntime
from ais_bench.emulator import pack
from ais_bench.errors import AisBenchError, ConfigError, FeedError
from ais_bench.one_device.descriptors import ModelMetadata
from ais_bench.session import InferSession, MultiDeviceSession
from support import models
from support.reference import on_host
from support.session import DEVICES

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]


@pytest.fixture
def described(tmp_path: Path) -> Path:
    proto = models.build("add")
    proto.producer_name, proto.model_version, proto.domain, proto.doc_string = "a tool", 7, "com.example", "adds"
    proto.graph.name = "adder"
    helper.set_model_props(proto, {"author": "somebody", "empty": "", "名": "值"})
    path = tmp_path / "described.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_metadata_is_what_the_file_says(described: Path) -> None:
    with InferSession(0, described) as one, MultiDeviceSession(described, devices=DEVICES[:1]) as many:
        for said in (one.metadata, many.metadata):
            assert (said.producer, said.version, said.domain) == ("a tool", 7, "com.example")
            assert (said.graph, said.description) == ("adder", "adds")
            assert said.custom == {"author": "somebody", "empty": "", "名": "值"}
    with InferSession(0, models.build("add").SerializeToString()) as plain:
        assert (plain.metadata.version, plain.metadata.custom) == (0, {})


@pytest.mark.usefixtures("npu")
def test_a_compiled_model_tells_none(described: Path, tmp_path: Path) -> None:
    path = pack(described, tmp_path / "m.om")
    with InferSession(0, path) as one, MultiDeviceSession(path, devices=[0]) as many:
        assert one.metadata == many.metadata == ModelMetadata()
        assert hasattr(one, "metadata")


def test_a_descriptor_is_a_type_for_numpy(model: ModelPath) -> None:
    with InferSession(0, model("add")) as session:
        for desc in (*session.get_inputs(), *session.get_outputs()):
            assert desc.dtype == np.float32 == np.dtype(desc.datatype) == np.zeros(2, desc).dtype
    assert np.dtype(aclruntime.dtype.int64) == np.int64
    assert str(aclruntime.dtype.bfloat16.dtype) == "bfloat16"


def test_an_output_subset_comes_in_the_order_asked_for(model: ModelPath) -> None:
    path = model("sub_then_swap")
    with InferSession(0, path) as one, MultiDeviceSession(path, devices=DEVICES) as many:
        names = [desc.name for desc in one.get_outputs()]
        feeds = [np.full(desc.shape, 3 - n, desc.dtype) for n, desc in enumerate(one.get_inputs())]
        every = dict(zip(names, one.infer(feeds), strict=True))
        assert len(names) > 1
        for asked in (names[::-1], names[-1:], [names[0]] * 2, []):
            device = DEVICES[0]
            chain = [-1] * len(feeds)
            for got in (
                one.infer(feeds, outputs=asked),
                [np.array(tensor) for tensor in on_host(one.infer(feeds, out_array=False, outputs=asked))],
                many.infer(feeds, outputs=asked),
                many.infer({device: [feeds]}, outputs=asked)[device][0],
                next(iter(list(many.map([feeds], outputs=asked)))),
                next(iter(list(many.map([feeds], outputs=asked, details=True))))[0],
                next(iter(list(many.map_unordered([feeds], outputs=asked))))[1],
                one.infer_pipeline([feeds], outputs=asked)[0],
                one.infer_iteration(feeds, chain, 2, outputs=asked),
                one.infer_iteration(feeds, outputs=asked),
                many.submit(feeds, outputs=asked).result(60),
                asyncio.run(many.infer_async(feeds, outputs=asked)),
                asyncio.run(first_of(many.amap([feeds], outputs=asked))),
                many.infer_pipeline([feeds], outputs=asked)[0],
                many.infer_pipeline({device: [[feeds]]}, outputs=asked)[device][0][0],
                many.infer_iteration(feeds, chain, 2, outputs=asked),
                many.infer_iteration({device: [feeds]}, chain, 2, outputs=asked)[device][0],
            ):
                assert len(got) == len(asked)
                assert all(np.array_equal(array, every[name]) for array, name in zip(got, asked, strict=True))
                assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(got, 2))
        for session in (one, many):
            with pytest.raises(FeedError, match=f"no output '{names[0]}x'; did you mean '{names[0]}'"):
                session.infer(feeds, outputs=[f"{names[0]}x"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["device", "host"])
def test_an_output_asked_for_twice_is_two_tensors(model: ModelPath, place: str) -> None:
    path, feeds = model("sub_then_swap"), [np.full(4, 7, np.int32), np.full(4, 2, np.int32)]
    with InferSession(0, path) as session:
        low, twice = session.session, ["total", "difference", "total"]
        tensors = [aclruntime.Tensor(feed) for feed in feeds]

        def stepwise() -> list[Any]:
            low.run_setinputs(tensors)
            low.run_execute()
            first, *_ = low.run_getoutputs(["total"])
            return [first, *low.run_getoutputs(["difference", "total"])]

        def inner() -> list[Any]:
            low.first_inner_run([], tensors)
            return low.inner_run([-1, -1], twice, True, True)

        ways = {
            "infer": lambda: session.infer(feeds, out_array=False, outputs=twice),
            "run": lambda: low.run(twice, tensors),
            "run_getoutputs": stepwise,
            "inner_run": inner,
            "run_pipeline": lambda: low.run_pipeline(twice, [tensors], [], False, False)[0],
        }
        for name, way in ways.items():
            one, other, two = way()
            if place == "device":
                one.to_host()  # the other stays where it is
                assert name == "run_pipeline" or (one.device, two.device) == (-1, 0), name
            on_host([one, other, two])
            assert [np.array(tensor).tolist() for tensor in (one, other, two)] == [[9] * 4, [5] * 4, [9] * 4], name
            np.asarray(memoryview(one))[:] = 0
            assert np.array(two).tolist() == [9] * 4, name
            assert one.data_ptr != two.data_ptr, name


async def first_of(results: Any) -> Any:
    (first,) = [result async for result in results]
    return first


def test_a_data_set_has_only_the_outputs_asked_for(model: ModelPath) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    with MultiDeviceSession(model("batch"), devices=DEVICES) as many:
        (name,) = (desc.name for desc in many.get_outputs())
        assert many.infer_batch(rows, 2, outputs=[]) == []
        once, again = many.infer_batch(rows, 2, outputs=[name, name], batch_axis=[0, 0])
        assert np.array_equal(once, -rows)
        assert np.array_equal(again, -rows)
        (none,) = many.infer_batch(rows[:0], 2, outputs=[name])
        assert none.shape == (0, 4)


def test_an_output_subset_in_the_place_of_errors_and_after_a_cancel(model: ModelPath) -> None:
    x = np.ones((2, 4), np.float32)
    with InferSession(0, model("batch")) as one, MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as many:
        names = [desc.name for desc in one.get_outputs()]
        wrong = [x[:, :3]]
        for session in (one, many):
            good, bad = session.infer_pipeline([[x], wrong], "dymshape", on_error="return", outputs=names)  # type: ignore[attr-defined]
            assert np.array_equal(good[0], -x)
            assert isinstance(bad, FeedError)
        with pytest.raises(FeedError):
            many.submit(wrong, outputs=names).result(60)
        chosen = many.submit([x], outputs=names)
        assert chosen.cancel() or chosen.done()
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1], postprocess=len) as finished:
        for call in (
            lambda: finished.submit([x], outputs=names),
            lambda: finished.infer_batch(x, outputs=names),
            lambda: finished.infer_pipeline([[x]], outputs=names),
        ):
            with pytest.raises(ConfigError, match="outputs must be None if there is a postprocess"):
                call()


def test_a_profile_is_written_when_the_session_ends(onnx_model: ModelPath, tmp_path: Path) -> None:
    path = onnx_model("add")
    with InferSession(0, path, profile=tmp_path / "one") as session:
        feeds = [np.ones(desc.shape, desc.dtype) for desc in session.get_inputs()]
        session.infer(feeds)
    with MultiDeviceSession(path, devices=DEVICES, profile=tmp_path / "many") as many:
        for device in DEVICES:
            many.infer({device: [feeds]})
    (one,) = tmp_path.glob("one_*.json")
    written = sorted(tmp_path.glob("many_device*.json"))
    assert [file.name.split("_")[1] for file in written] == [f"device{device}" for device in DEVICES]
    for file in (one, *written):
        assert any(event.get("cat") == "Node" for event in json.loads(file.read_text()))


CUSTOM = """
#include <stddef.h>
#include <stdint.h>
/* The part of ONNX Runtime's C API that one operator needs: y = 2 x, of floats. */
typedef struct { const void* (*GetApi)(uint32_t); const char* (*GetVersionString)(void); } Base;
typedef void* Status;
static const void* const* api;
#define CALL(slot, ...) ((Status (*)(__VA_ARGS__))api[slot])
typedef struct Op {
  uint32_t version;
  void* (*CreateKernel)(const struct Op*, const void*, const void*);
  const char* (*GetName)(const struct Op*);
  const char* (*GetProvider)(const struct Op*);
  int (*InputType)(const struct Op*, size_t);
  size_t (*InputCount)(const struct Op*);
  int (*OutputType)(const struct Op*, size_t);
  size_t (*OutputCount)(const struct Op*);
  void (*Compute)(void*, void*);
  void (*Destroy)(void*);
  int (*InputKind)(const struct Op*, size_t);
  int (*OutputKind)(const struct Op*, size_t);
} Op;
static void* create(const Op* op, const void* a, const void* info) { (void)op; (void)a; (void)info; return (void*)1; }
static const char* name(const Op* op) { (void)op; return "Twice"; }
static const char* provider(const Op* op) { (void)op; return NULL; }
static int type(const Op* op, size_t i) { (void)op; (void)i; return 1; }
static size_t count(const Op* op) { (void)op; return 1; }
static int kind(const Op* op, size_t i) { (void)op; (void)i; return 0; }
static void destroy(void* kernel) { (void)kernel; }
static void compute(void* kernel, void* context) {
  void *x = NULL, *y = NULL, *info = NULL;
  float *from = NULL, *to = NULL;
  size_t rank = 0, n = 0;
  int64_t shape[8];
  (void)kernel;
  CALL(90, void*, size_t, void**)(context, 0, &x);
  CALL(65, void*, void**)(x, &info);
  CALL(61, void*, size_t*)(info, &rank);
  CALL(62, void*, int64_t*, size_t)(info, shape, rank);
  CALL(64, void*, size_t*)(info, &n);
  ((void (*)(void*))api[99])(info);
  CALL(91, void*, size_t, const int64_t*, size_t, void**)(context, 0, shape, rank, &y);
  CALL(51, void*, void**)(x, (void**)&from);
  CALL(51, void*, void**)(y, (void**)&to);
  for (size_t i = 0; i < n; ++i) to[i] = 2 * from[i];
}
static const Op op = {8, create, name, provider, type, count, type, count, compute, destroy, kind, kind};
Status RegisterCustomOps(void* options, const Base* base) {
  void* domain = NULL;
  api = (const void* const*)base->GetApi(8);
  Status status = CALL(26, const char*, void**)("test.custom", &domain);
  if (status == NULL) status = CALL(27, void*, const Op*)(domain, &op);
  if (status == NULL) status = CALL(28, void*, void*)(options, domain);
  return status;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_custom_operators_come_from_a_library(tmp_path: Path) -> None:
    source, library = tmp_path / "twice.c", tmp_path / "twice.so"
    source.write_text(CUSTOM)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="test.custom")], "g", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("test.custom", 1)]
    path = tmp_path / "twice.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    x = np.arange(5, dtype=np.float32)
    for given in (library, [str(library)]):
        with InferSession(0, path, custom_ops=given) as session:
            assert np.array_equal(session.infer([x])[0], 2 * x)
    with MultiDeviceSession(path, devices=DEVICES, custom_ops=library) as many:
        assert np.array_equal(many.infer([x])[0], 2 * x)
    with pytest.raises(AisBenchError, match="Twice|test.custom"):
        InferSession(0, path)


def test_a_library_that_is_none_for_custom_operators_is_refused(onnx_model: ModelPath, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    for wrong in (tmp_path / "missing.so", [tmp_path / "text.so"], "/lib/x86_64-linux-gnu/libc.so.6"):
        for make in (
            lambda: InferSession(0, onnx_model("add"), custom_ops=wrong),  # noqa: B023
            lambda: MultiDeviceSession(onnx_model("add"), devices=[0], custom_ops=wrong).start(),  # noqa: B023
        ):
            with pytest.raises(AisBenchError, match=r"(?s)custom operators.*(missing\.so|text\.so|libc)"):
                make()


@pytest.mark.usefixtures("npu")
def test_an_npu_refuses_what_is_onnx_runtimes_alone(described: Path, tmp_path: Path) -> None:
    path = pack(described, tmp_path / "m.om")
    options: dict[str, Any]
    for options in ({"profile": tmp_path / "p"}, {"custom_ops": []}):
        for kind in (lambda: InferSession(0, path, **options), lambda: MultiDeviceSession(path, devices=[0], **options)):  # noqa: B023
            with pytest.raises(ConfigError, match="unknown option '(profile|custom_ops)' for a model on an NPU"):
                kind()
