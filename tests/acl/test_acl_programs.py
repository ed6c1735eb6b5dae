"""Typical programs on `acl` and on `ort`: both give the same results, or errors of the same class.

They use every kind of model of tests/support/acl.py; if it has gears, the ONNX file declares the same gears in its metadata.
They run zeros of the described shapes in each of the five modes, pipelines of different shapes, 1,000 iterations, tensors that
stay on the device, and loops, with InferSession, MultiDeviceSession and aclruntime.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import aclruntime
from ais_bench.emulator import Emulator, pack
from ais_bench.errors import AisBenchError
from ais_bench.session import InferSession, MultiDeviceSession
from support import emulator_models
from support.acl import CASES, Case, Packed, equal
from support.session import DEVICES

pytestmark = pytest.mark.usefixtures("leaves_nothing")
MODES = ("static", "dymbatch", "dymhw", "dymdims", "dymshape")
STEPS = 1000
#: Case -> the gears in the ONNX file's metadata, in the order of the model's inputs.
GEARS = {
    "batch": ("batch_size", "1,2,4"),
    "image": ("image_size", "4,4;8,6"),
    "image of two inputs": ("image_size", "4,4;8,6"),
    "dims": ("dims", "20,20,1,1;40,40,2,2;80,60,4,4"),
    "dims in another order": ("dims", "20,30,5,6;80,60,4,7"),
}
#: Case -> the output that each input takes in an iteration; in other cases no output fits an input.
CHAINS = {
    "static": [0, -1],
    "image": [0],
    "image of two inputs": [-1, 0],
    "shape in a range": [0],
    "result of unknown rank": [-1, 0],
}

Program = Callable[[str, Case], list[Any]]
Twins = Callable[[str], Packed]


@pytest.fixture(scope="session")
def twins(packed: Callable[[str], Packed], tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Return a case's two files, both with its gears."""
    folder = tmp_path_factory.mktemp("twins")

    def get(name: str) -> Packed:
        model = packed(name)
        if name not in GEARS:
            return model
        key, text = GEARS[name]
        content = Path(model.om).read_bytes()
        proto = onnx.load_from_string(content[len(content) - struct.unpack_from("<Q", content, 24)[0] :])  # with its shapes
        onnx.helper.set_model_props(proto, {f"ais_bench.dynamic_{key}": text})
        path = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(proto, path)
        return Packed(model.case, str(path), model.om)

    return get


def chain_of(case: Case) -> list[int]:
    return CHAINS.get(case.name, [-1] * len(case.feeds[0]))


def zeros_of(descriptions: list[Any], case: Case) -> list[np.ndarray]:
    """Return zeros of the described shapes; open dimensions are those of the case's first feeds."""
    zeros = []
    for desc, feed in zip(descriptions, case.feeds[0], strict=True):
        shape = [given if dim < 0 else dim for dim, given in zip(desc.shape, feed.shape, strict=True)]
        zeros.append(np.zeros(shape, desc.datatype.name))
    return zeros


def outcome(call: Callable[[], Any]) -> Any:
    """Return the call's result, or the class of its error."""
    try:
        return call()
    except AisBenchError as error:
        return type(error)


def infer_session(path: str, case: Case) -> list[Any]:
    with InferSession(0, path) as session:
        zeros, chain = zeros_of(session.get_inputs(), case), chain_of(case)
        results = [outcome(lambda mode=mode: session.infer(zeros, mode)) for mode in MODES]
        results += session.infer_pipeline([*case.feeds, *reversed(case.feeds)], case.mode)
        for mem_copy in (True, False):
            results.append(session.infer_iteration(zeros, chain, STEPS, case.mode, mem_copy=mem_copy))
        first = session.infer(case.feeds[0], case.mode, out_array=False)
        fed = [first[source] if source >= 0 else feed for source, feed in zip(chain, case.feeds[0], strict=True)]
        for tensors in (session.infer(fed, case.mode, out_array=False), first):
            session.convert_tensors_to_host(tensors)
            results.append(session.convert_tensors_to_arrays(tensors))
        results.append(len(session.summary()))
    with InferSession(0, path, loop=3) as session:
        results.append(session.infer(case.feeds[0], case.mode))
        results += session.infer_pipeline(case.feeds[:2], case.mode)
        results.append(len(session.summary()))
    return results


def multi_device_session(path: str, case: Case) -> list[Any]:
    last = DEVICES[-1]
    with MultiDeviceSession(path, devices=DEVICES) as session:
        zeros, chain = zeros_of(session.get_inputs(), case), chain_of(case)
        results = [outcome(lambda mode=mode: session.infer(zeros, mode)) for mode in MODES]
        by_device = session.infer({0: case.feeds, last: case.feeds[::-1]}, case.mode)
        results += [*by_device[0], *by_device[last]]
        results += [outputs for several in session.infer_pipeline({0: [case.feeds]}, case.mode)[0] for outputs in several]
        results += session.map(case.feeds * 5, case.mode)
        for mem_copy in (True, False):
            results.append(session.infer_iteration(zeros, chain, STEPS, case.mode, mem_copy=mem_copy))
        results.append(session.report().total.tasks)
    with MultiDeviceSession(path, devices=[0], loop=3) as session:
        results.append(session.infer(case.feeds[0], case.mode))
    return results


def set_shapes(session: aclruntime.InferenceSession, mode: str, feeds: list[np.ndarray]) -> None:
    names = [desc.name for desc in session.get_inputs()]
    text = ";".join(f"{name}:{','.join(map(str, feed.shape))}" for name, feed in zip(names, feeds, strict=True))
    if mode == "dymbatch":
        session.set_dynamic_batchsize(feeds[0].shape[0])
    elif mode == "dymhw":
        session.set_dynamic_hw(*feeds[0].shape[2:])
    elif mode == "dymdims":
        session.set_dynamic_dims(text)
    elif mode == "dymshape":
        session.set_dynamic_shape(text)
    else:
        session.set_staticbatch()


def low_level(path: str, case: Case) -> list[Any]:
    options = aclruntime.session_options()
    options.loop = 2
    session = aclruntime.InferenceSession(path, 0, options)
    names = [desc.name for desc in session.get_outputs()]
    results: list[Any] = []

    def read(tensors: list[Any]) -> list[np.ndarray]:
        for tensor in tensors:
            tensor.to_host()
        return [np.array(tensor) for tensor in tensors]

    for feeds in case.feeds:
        set_shapes(session, case.mode, feeds)
        tensors = [aclruntime.Tensor(feed) for feed in feeds]
        for tensor in tensors:
            tensor.to_device(0)
        results.append([desc.realsize for desc in session.get_inputs()])
        results.append(read(session.run(names, tensors)))
        by_name = {desc.name: aclruntime.Tensor(feed) for desc, feed in zip(session.get_inputs(), feeds, strict=True)}
        results.append(read(session.run(names[-1:], by_name)))
        session.first_inner_run(names, tensors)
        for mem_copy in (True, False):
            results.append(read(session.inner_run(chain_of(case), names, True, mem_copy)))
    results.append(len(session.sumary().exec_time_list))
    session.free_resource()
    return results


def same_results(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right)
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        if isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], np.ndarray):
            equal(one, other)
        else:
            assert one == other, f"result {index}"


@pytest.mark.parametrize("program", [infer_session, multi_device_session, low_level])
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_program_gives_the_same_on_both_runtimes(npu: Emulator, twins: Twins, name: str, program: Program) -> None:
    model = twins(name)
    same_results(program(model.om, model.case), program(model.onnx, model.case))


# ---- pictures that the NPU preprocesses ----

SETTINGS = """
  input_format: RGB888_U8 csc_switch: false rbuv_swap_switch: true
  mean_chn_0: 10 mean_chn_1: 20 mean_chn_2: 30 var_reci_chn_0: 0.5 var_reci_chn_1: 0.25 var_reci_chn_2: 1.0
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Return a model with static AIPP, one with dynamic AIPP, and the ONNX file of both."""
    folder = tmp_path_factory.mktemp("pictures")
    model = emulator_models.image(folder, size=(4, 6))
    (folder / "static.cfg").write_text(f"aipp_op {{ aipp_mode: static src_image_size_w: 6 src_image_size_h: 4 {SETTINGS} }}")
    (folder / "dynamic.cfg").write_text("aipp_op { aipp_mode: dynamic max_src_image_size: 4096 }")
    packed = [
        str(pack(model, folder / f"{kind}.om", input_shape="picture:2,3,4,6", insert_op_conf=folder / f"{kind}.cfg"))
        for kind in ("static", "dynamic")
    ]
    return packed[0], packed[1], str(model)


PIXELS = np.random.default_rng(5).integers(0, 256, (3, 2, 4, 6, 3), np.uint8)  # three batches of two


def as_floats(batch: np.ndarray) -> np.ndarray:
    """Return the pixels after SETTINGS: red and blue swapped, (x - mean) * reciprocal, channels first."""
    floats = batch[..., ::-1].astype(np.float32) - np.float32([10, 20, 30])
    return np.ascontiguousarray((floats * np.float32([0.5, 0.25, 1])).transpose(0, 3, 1, 2))


def close(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    """Compare with the tolerance of float16, in which the NPU preprocesses."""
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize(
    "make",
    [lambda path: InferSession(0, path), lambda path: MultiDeviceSession(path, devices=DEVICES)],
    ids=["InferSession", "MultiDeviceSession"],
)
def test_static_aipp(npu: Emulator, pictures: tuple[str, str, str], make: Callable[[str], Any]) -> None:
    with InferSession(0, pictures[2]) as reference:
        wanted = reference.infer_pipeline([[as_floats(batch)] for batch in PIXELS])
    with make(pictures[0]) as session:
        (picture,) = session.get_inputs()
        assert (picture.shape, picture.datatype.name, picture.realsize) == ([2, 4, 6, 3], "uint8", PIXELS[0].nbytes)
        results = [session.infer([batch]) for batch in PIXELS] + session.infer_pipeline([[batch] for batch in PIXELS])
        iterated = session.infer_iteration([PIXELS[0]], [-1], STEPS)
    for outputs, right in zip(results, wanted * 2, strict=True):
        close(outputs, right)
    close(iterated, wanted[0])


def test_dynamic_aipp_of_the_low_level_session(npu: Emulator, pictures: tuple[str, str, str]) -> None:
    session = aclruntime.InferenceSession(pictures[1], 0, aclruntime.session_options())
    assert session.get_dym_aipp_input_exist() == 1
    session.aipp_set_max_batch_size(2)
    session.aipp_set_input_format("RGB888_U8")
    session.aipp_set_src_image_size([6, 4])
    session.aipp_set_rbuv_swap_switch(1)
    session.aipp_set_dtc_pixel_mean([10, 20, 30, 0])
    session.aipp_set_pixel_var_reci([0.5, 0.25, 1.0, 1.0])
    session.set_dym_aipp_info_set()
    feed = np.zeros(4096, np.uint8)
    feed[: PIXELS[0].size] = PIXELS[0].ravel()
    names = [desc.name for desc in session.get_outputs()]
    tensor = aclruntime.Tensor(feed)
    tensor.to_device(0)
    outputs = session.run(names, [tensor])
    for output in outputs:
        output.to_host()
    with InferSession(0, pictures[2]) as reference:
        close([np.array(output) for output in outputs], reference.infer([as_floats(PIXELS[0])]))
    session.free_resource()
