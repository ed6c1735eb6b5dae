"""Execution providers as devices: counted, chosen, refused; and run, on a stand-in for a provider library."""

from __future__ import annotations

import functools
import gc
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ais_bench import _native, libraries
from ais_bench.errors import AisBenchError, ConfigError, DeviceMemoryError, DeviceUnavailable, ModelLoadError, WorkerStartError
from ais_bench.infer.interface import InferSession
from ais_bench.providers import PREFERENCE, choose, probe
from ais_bench.session import MultiDeviceSession
from ais_bench.session.providers import ask_for_provider, list_providers
from support import TESTS
from support import models as small
from support.scripts import in_child
from support.versions import ONNXRUNTIME

STANDIN = "StandInExecutionProvider"
NATIVE = TESTS / "native"
TELLS_NODES = ONNXRUNTIME >= (1, 24)


def build(library: Path, *arguments: str | Path) -> str:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler that could build the stand-in for a provider library")
    if ONNXRUNTIME < (1, 23):
        pytest.skip(f"ONNX Runtime {_native.runtime_version('ort')} takes no provider libraries with memory of their own")
    subprocess.run([compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", *arguments, "-o", library], check=True)
    return str(library)


@pytest.fixture(scope="session")
def standin_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("standin") / "libstandin.so", NATIVE / "standin_provider.cpp")


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the stand-in as the provider for CUDA. Like the real one it is linked with a CUDA runtime library."""
    folder = tmp_path_factory.mktemp("cuda")
    build(folder / "libcudart.so.12", NATIVE / "fake_cudart.cpp", "-Wl,-soname,libcudart.so.12")
    names = ('-DSTANDIN_NAME="CUDAExecutionProvider"', "-DSTANDIN_VENDOR=0x10DE")
    linked = ("-Wl,--no-as-needed", folder / "libcudart.so.12", f"-Wl,-rpath,{folder}")
    return build(folder / "libonnxruntime_providers_cuda.so", *names, NATIVE / "standin_provider.cpp", *linked)


def set_properties(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"STANDIN_{name.upper()}", str(value))


@pytest.fixture
def standin(standin_library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Use the stand-in in this process and its children; `standin(devices=8, exec_ms=5)` sets its properties."""
    monkeypatch.setenv(libraries.PLUGINS, standin_library)
    set_properties(monkeypatch, log=tmp_path / "standin.log", devices=2)
    return functools.partial(set_properties, monkeypatch)


@pytest.fixture
def cuda(cuda_library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Like `standin`, with the stand-in as the provider for CUDA, whose devices have page-locked memory for copies."""
    monkeypatch.setenv(libraries.PLUGINS, cuda_library)
    set_properties(monkeypatch, log=tmp_path / "standin.log", devices=2, staging=1)
    return functools.partial(set_properties, monkeypatch)


def logged(tmp_path: Path) -> list[str]:
    log = tmp_path / "standin.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def negative(tmp_path: Path) -> str:
    """Return the file of a model y = -x over float32 [n, 4]."""
    path = tmp_path / "negative.onnx"
    onnx.save(small.build("batch"), path)
    return str(path)


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """Return the file of a model y = relu(-x). The stand-in does not support Relu."""
    nodes = [
        helper.make_node("Neg", ["x"], ["m"], name="first"),
        helper.make_node("Relu", ["m"], ["y"], name="second"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "mixed", infos[:1], infos[1:])
    path = tmp_path / "mixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def feeds_of(number: int) -> list[Any]:
    return [np.full((3, 4), number, np.float32)]


# ---- on the stand-in ----


@pytest.mark.usefixtures("leaves_nothing")
def test_devices_are_counted_and_used_and_nothing_of_them_is_in_this_process(
    standin: Callable[..., None], negative: str, tmp_path: Path
) -> None:
    standin(devices=5)
    with MultiDeviceSession(negative, provider=STANDIN) as session:
        assert session.devices == [0, 1, 2, 3, 4]
        outputs = session.infer({device: [feeds_of(device + 1)] for device in range(5)})
        assert {device: got[0][0][0, 0] for device, got in outputs.items()} == {d: -(d + 1) for d in range(5)}
        report = session.report()
        assert report.provider == STANDIN
        placement = (
            "all 1 nodes run on the device" if TELLS_NODES else "ONNX Runtime does not report which nodes run on the CPU"
        )
        assert placement in str(report)
        assert report.shared_weights == {}
    pids = {line for line in logged(tmp_path) if line.isdigit()}
    assert len(pids) == 6, "five workers, and the process that was asked"
    assert str(os.getpid()) not in pids
    assert "libstandin" not in Path("/proc/self/maps").read_text()


def test_copies_overlap_executions(standin: Callable[..., None], negative: str, tmp_path: Path) -> None:
    standin(devices=1, exec_ms=20, copy_ms=20)
    with MultiDeviceSession(negative, provider=STANDIN) as session:
        results = list(session.map([feeds_of(n) for n in range(12)]))
    assert [got[0][0, 0] for got in results] == [-n for n in range(12)]
    assert logged(tmp_path).count("overlap 0") > 0, "of 24 copies; one run after the other has none"


def test_a_device_that_is_lost_is_named_and_its_work_done_elsewhere(
    standin: Callable[..., None], negative: str, caplog: pytest.LogCaptureFixture
) -> None:
    standin(devices=3, exec_ms=2, lost="1:4")
    with MultiDeviceSession(negative, provider=STANDIN, max_attempts=3) as session:
        results = list(session.map([feeds_of(n) for n in range(120)]))
        report = session.report()
    assert [got[0][0, 0] for got in results] == [-n for n in range(120)]
    assert report.devices[1].failures or report.devices[1].retries
    assert "stand-in device 1 is lost" in caplog.text
    assert report.devices[0].tasks + report.devices[2].tasks > 100


def test_a_device_that_is_lost_again_and_again_is_quarantined(standin: Callable[..., None], negative: str) -> None:
    standin(devices=3, exec_ms=2, lost="1:0")
    sent = 0
    with MultiDeviceSession(negative, provider=STANDIN, max_attempts=10) as session:
        deadline = time.monotonic() + 60
        while {line.state for line in session.report().workers if line.device == 1} != {"quarantined"}:
            assert time.monotonic() < deadline, session.report()
            results = list(session.map([feeds_of(n) for n in range(sent, sent + 20)]))
            assert [got[0][0, 0] for got in results] == [-n for n in range(sent, sent + 20)]
            sent += 20
        assert session.report().devices[1].tasks == 0


def test_a_task_that_no_device_can_do_fails_with_the_provider_s_words(standin: Callable[..., None], negative: str) -> None:
    standin(devices=1, lost="0:0")
    with MultiDeviceSession(negative, provider=STANDIN) as session, pytest.raises(AisBenchError, match="device 0 is lost"):
        session.infer(feeds_of(1))


def test_memory_that_runs_out_is_a_memory_error_and_the_session_goes_on(standin: Callable[..., None], negative: str) -> None:
    standin(devices=1, bytes=1 << 20)
    with MultiDeviceSession(negative, provider=STANDIN) as session:
        with pytest.raises(DeviceMemoryError):
            session.infer([np.zeros((1 << 20, 4), np.float32)])
        assert session.infer(feeds_of(7))[0][0, 0] == -7


@pytest.mark.skipif(not TELLS_NODES, reason="ONNX Runtime reports nodes from 1.24 on")
def test_nodes_that_stay_on_the_processor_are_reported_and_logged_once(
    standin: Callable[..., None], mixed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, logger="ais_bench.session"),
        MultiDeviceSession(mixed, provider=STANDIN) as session,
    ):
        x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
        for _ in range(3):
            np.testing.assert_array_equal(session.infer([x])[0], np.maximum(-x, 0))
        report = session.report()
    assert report.fallback[0] is not None
    assert report.fallback[0].nodes == 2
    assert report.fallback[0].on_the_cpu == ["Relu 'second'"]
    said = [record.getMessage() for record in caplog.records if record.name == "ais_bench.session"]
    assert said == [f"{STANDIN}: 1 of 2 nodes run on the CPU: Relu 'second'"]
    assert said[0].partition(": ")[2] in str(report)


def test_fallback_can_be_refused(standin: Callable[..., None], mixed: str, negative: str) -> None:
    with (
        MultiDeviceSession(mixed, provider=STANDIN, fallback="error") as session,
        pytest.raises(WorkerStartError, match="fallback"),
    ):
        session.start()
    with pytest.raises(ModelLoadError, match="fallback"):
        InferSession(0, mixed, provider=STANDIN, fallback="error")
    with MultiDeviceSession(negative, provider=STANDIN, fallback="error") as session:
        assert session.infer(feeds_of(1))[0][0, 0] == -1


def test_one_session_of_one_device(standin: Callable[..., None], negative: str, mixed: str) -> None:
    session = InferSession(1, negative, provider=STANDIN)
    assert session.placement == ((1, []) if TELLS_NODES else None)
    np.testing.assert_array_equal(session.infer(feeds_of(3))[0], np.full((3, 4), -3, np.float32))
    many = session.infer_pipeline([feeds_of(n) for n in range(9)], "dymshape")
    assert [got[0][0, 0] for got in many] == [-n for n in range(9)]
    (last,) = session.infer_iteration(feeds_of(2), [0], 3)
    np.testing.assert_array_equal(last, np.full((3, 4), -2, np.float32))
    (kept,) = session.infer(feeds_of(4), out_array=False)
    kept.to_host()
    np.testing.assert_array_equal(np.array(kept), np.full((3, 4), -4, np.float32))
    session.free_resource()
    assert InferSession(0, mixed, provider=STANDIN).placement == ((2, ["Relu 'second'"]) if TELLS_NODES else None)
    with pytest.raises(DeviceUnavailable, match="StandInExecutionProvider has 2 devices, 0 to 1, and 9 was asked for"):
        InferSession(9, negative, provider=STANDIN)
    with (
        MultiDeviceSession(negative, provider=STANDIN, devices=[0, 4]) as session,
        pytest.raises(DeviceUnavailable, match="has 2 devices, 0 to 1, and 4 was asked for"),
    ):
        session.start()


# ---- memory of the stand-in's devices ----


def access_to(address: int) -> str:
    """Return the permissions of this process for the page at an address, as in /proc: "rw-p"."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= address < int(end, 16):
            return line.split()[1]
    return ""


def chain_of(path: Path, *operators: str) -> str:
    """Return the file of a model that applies operators in turn to float32 [2, 3]. It outputs the result and the input."""
    names = ["x", *(f"between_{number}" for number in range(len(operators) - 1)), "y"]
    nodes = [helper.make_node(operator, names[i : i + 1], names[i + 1 : i + 2]) for i, operator in enumerate(operators)]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"}
    graph = helper.make_graph(nodes, "chain", [infos["x"]], [infos["y"], infos["x"]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def test_results_stay_on_the_device_and_the_host_may_not_touch_them(
    standin: Callable[..., None], negative: str, tmp_path: Path
) -> None:
    session = InferSession(1, negative, provider=STANDIN)
    session.infer(feeds_of(1))  # the first run of a model looks whether outputs are written
    before = len(logged(tmp_path))
    (kept,) = session.infer(feeds_of(4), out_array=False)
    assert kept.device == 1
    assert access_to(kept.data_ptr) == "---p"
    assert logged(tmp_path)[before:] == ["in 1", "run 1"], "nothing is copied out, and the open shape needs no second run"
    (again,) = session.infer([kept], out_array=False)
    assert logged(tmp_path)[before:] == ["in 1", "run 1", "run 1"]
    again.to_host()
    assert logged(tmp_path)[before:][-1] == "out 1"
    np.testing.assert_array_equal(np.array(again), np.full((3, 4), 4, np.float32))
    kept.to_host()
    kept.to_device(1)
    assert access_to(kept.data_ptr) == "---p"
    np.testing.assert_array_equal(session.infer([kept])[0], np.full((3, 4), 4, np.float32))


def test_iteration_feeds_back_on_the_device(standin: Callable[..., None], tmp_path: Path) -> None:
    session = InferSession(0, chain_of(tmp_path / "chain.onnx", "Neg"), provider=STANDIN)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    session.infer([x])
    before = len(logged(tmp_path))
    results = session.infer_iteration([x], [0], 21)
    np.testing.assert_array_equal(results[0], -x)
    np.testing.assert_array_equal(results[1], x)
    lines = logged(tmp_path)[before:]
    assert {what: lines.count(f"{what} 0") for what in ("run", "in", "out")} == {"run": 21, "in": 1, "out": 2}


def test_memory_of_the_device_that_runs_out_is_given_back(standin: Callable[..., None], negative: str) -> None:
    standin(bytes=1 << 20)
    session = InferSession(0, negative, provider=STANDIN)
    large = np.zeros((1 << 15, 4), np.float32)  # two of them, the feeds and the outputs, do not fit beside a third
    kept = session.infer([large], out_array=False)
    for _ in range(3):
        with pytest.raises(DeviceMemoryError):
            session.infer([large], out_array=False)
        with pytest.raises(DeviceMemoryError):
            session.infer_pipeline([[large]] * 4, "dymshape")
        np.testing.assert_array_equal(session.infer(feeds_of(5))[0], np.full((3, 4), -5, np.float32))
    del kept
    assert len(session.infer([large], out_array=False)) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_neither_uses_nor_frees_memory_of_the_device(
    standin: Callable[..., None], negative: str, tmp_path: Path
) -> None:
    session = InferSession(0, negative, provider=STANDIN)
    (kept,) = session.infer(feeds_of(4), out_array=False)
    held = [session, kept]

    def child() -> str:
        said = []
        for use in (lambda: held[0].infer(feeds_of(1)), lambda: held[1].to_host()):
            try:
                use()
            except AisBenchError as error:
                said.append(type(error).__name__)
        address = held[1].data_ptr
        held.clear()
        gc.collect()
        return f"{said} {access_to(address)}"

    assert in_child(child) == "['SessionClosed', 'SessionClosed'] ---p"
    kept.to_host()
    np.testing.assert_array_equal(np.array(kept), np.full((3, 4), -4, np.float32))


def test_nodes_on_the_processor_read_and_write_memory_of_the_device(standin: Callable[..., None], tmp_path: Path) -> None:
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    for number, operators in enumerate([("Relu",), ("Relu", "Neg"), ("Neg", "Relu"), ("Neg", "Relu", "Neg")]):
        path = chain_of(tmp_path / f"{number}.onnx", *operators)
        wanted = InferSession(0, path).infer([x])
        session = InferSession(0, path, provider=STANDIN)
        kept = session.infer([x], out_array=False)
        for tensor in kept:
            tensor.to_host()
        for found in (session.infer([x]), session.infer([x]), [np.array(tensor) for tensor in kept]):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(session.infer_iteration([x], [0], 3), InferSession(0, path).infer_iteration([x], [0], 3))


def test_a_pool_copies_by_memory_of_the_provider(standin: Callable[..., None], negative: str, tmp_path: Path) -> None:
    standin(devices=1, staging=1)
    with MultiDeviceSession(negative, provider=STANDIN) as session:
        results = list(session.map([feeds_of(n) for n in range(20)]))
        report = session.report()
    assert [got[0][0, 0] for got in results] == [-n for n in range(20)]
    lines = logged(tmp_path)
    assert lines.count("run 0") == 20
    assert lines.count("staged 0") == 40
    assert report.host_memory[0].startswith("page-locked memory of the provider")


def test_times_of_copies_and_executions_are_apart(standin: Callable[..., None], negative: str) -> None:
    standin(devices=1, exec_ms=20, copy_ms=10)
    with MultiDeviceSession(negative, provider=STANDIN, tasks_in_flight=1) as session:
        for number in range(3):
            session.infer(feeds_of(number))
        report = session.report()
    for stage, least in (("copy_in_ms", 10), ("execute_ms", 20), ("copy_out_ms", 10)):
        times = getattr(report.devices[0], stage)
        assert times.count == 3
        assert times.p50 >= least
    assert report.times_by == "host"
    assert "measured by the host" in str(report)


def test_weights_of_a_provider_are_its_own(standin: Callable[..., None], negative: str) -> None:
    with MultiDeviceSession(negative, provider=STANDIN, devices=[0], share_weights=True) as session:
        session.infer(feeds_of(1))
        assert session.report().shared_weights == {0: f"not shared: {STANDIN} has the weights in memory of its own"}


# ---- host memory and the library of the provider for CUDA ----


@pytest.mark.usefixtures("leaves_nothing")
def test_slots_are_registered_with_cuda_and_copied_directly(cuda: Callable[..., None], negative: str, tmp_path: Path) -> None:
    def counts() -> dict[str, int]:
        lines = logged(tmp_path)
        return {what: lines.count(f"{what} 0") + lines.count(f"{what} 1") for what in ("run", "registered", "staged")}

    with MultiDeviceSession(negative, provider="cuda") as session:
        assert session.devices == [0, 1]
        for number, (got,) in enumerate(session.map([np.full((4096, 4), n, np.float32)] for n in range(200))):
            assert got[0, 0] == -number
        streamed = counts()
        for number in range(20):
            (got,) = session.infer([np.full((4096, 4), number, np.float32)], device=0)
            assert got[0, 0] == -number
        report = session.report()
    assert report.host_memory == {0: "registered", 1: "registered"}
    assert streamed["run"] == 200
    assert streamed["registered"] + streamed["staged"] == 400, "two copies for each run"
    assert streamed["staged"] > 0, "the first uses of a slot"
    # How many slots a stream uses depends on who is faster. Single calls use one slot again and again; its third use is direct.
    assert counts()["registered"] - streamed["registered"] >= 18
    lines = logged(tmp_path)
    assert lines.count("register") == lines.count("unregister") > 0


def test_without_registering_copies_go_through_page_locked_memory(
    cuda: Callable[..., None], negative: str, tmp_path: Path
) -> None:
    cuda(register=0)
    with MultiDeviceSession(negative, provider="cuda") as session:
        results = list(session.map([feeds_of(n) for n in range(40)]))
        report = session.report()
    assert [got[0][0, 0] for got in results] == [-n for n in range(40)]
    why = "page-locked memory of the provider: cudaHostRegister returned 801 (operation not supported)"
    assert report.host_memory == {0: why, 1: why}
    lines = logged(tmp_path)
    assert lines.count("staged 0") + lines.count("staged 1") == 80
    assert lines.count("registered 0") + lines.count("registered 1") == 0


def test_the_built_in_provider_for_cuda_is_registered_for_its_memory(
    cuda: Callable[..., None], cuda_library: str, negative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(libraries.PLUGINS)
    ask = _native.provider_devices
    monkeypatch.setattr(
        _native, "provider_devices", lambda options: ask(options) if "provider_library" in options else ["GPU", "GPU"]
    )
    monkeypatch.setattr(_native, "runtime_library", lambda _name: str(Path(cuda_library).parent / "libonnxruntime.so.1.99"))
    monkeypatch.setattr(libraries, "nvidia_gpus", lambda: 2)
    assert probe("cuda").library == cuda_library
    session = InferSession(1, negative, provider="cuda")
    (kept,) = session.infer(feeds_of(4), out_array=False)
    assert access_to(kept.data_ptr) == "---p"
    kept.to_host()
    np.testing.assert_array_equal(np.array(kept), np.full((3, 4), -4, np.float32))
    monkeypatch.setattr(libraries, "nvidia_gpus", lambda: 8)
    assert probe("cuda").library == "", "CUDA_VISIBLE_DEVICES leaves two of eight"


def test_gpus_of_the_system_are_counted_by_their_maker(tmp_path: Path) -> None:
    for card, maker in (("card0", "0x10de"), ("card1", "0x1a03"), ("card2", "0x10de"), ("card2-DP-1", "0x10de"), ("card3", "")):
        (tmp_path / card / "device").mkdir(parents=True)
        if maker:
            (tmp_path / card / "device" / "vendor").write_text(f"{maker}\n")
    assert libraries.nvidia_gpus(str(tmp_path)) == 2
    assert libraries.nvidia_gpus(str(tmp_path / "none")) == 0


# ---- providers that are not here ----


@pytest.mark.parametrize("name", PREFERENCE)
def test_a_provider_that_is_not_here_is_an_error_that_says_what_was_tried(name: str, negative: str) -> None:
    if probe(name).devices:
        pytest.skip(f"{name} is here")
    for ask in (
        lambda: MultiDeviceSession(negative, provider=name),
        lambda: InferSession(0, negative, provider=name),
        lambda: ask_for_provider(name),
    ):
        with pytest.raises(DeviceUnavailable) as caught:
            ask()
        text = str(caught.value)
        assert f"provider {name!r} cannot be used" in text
        assert "built in: " in text
        assert libraries.PLUGINS in text
        assert "pip install onnxruntime-" in text


def test_auto_takes_the_processor_if_there_is_nothing_else(negative: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(found.devices for found in list_providers()):
        pytest.skip("there is a provider here")
    found = choose("auto")
    assert found.name == "cpu"
    assert all(f"{name}: " in found.why for name in PREFERENCE)
    with MultiDeviceSession(negative, provider="auto", devices=[0]) as session:
        assert session.infer(feeds_of(1))[0][0, 0] == -1
        assert session.report().provider == ""


def test_names_that_are_none(negative: str) -> None:
    for make in (MultiDeviceSession, lambda model, **options: InferSession(0, model, **options)):
        with pytest.raises(ConfigError, match="provider must be one of 'tensorrt', 'cuda'"):
            make(negative, provider="coda")
        with pytest.raises(ConfigError, match="provider must be the name"):
            make(negative, provider=3)
        with pytest.raises(ConfigError, match="fallback must be one of 'cpu', 'error'"):
            make(negative, provider="cpu", fallback="never")
        assert make(negative, provider="cpu")


# ---- which library ----


def site_with(folder: Path, libraries_there: list[str], **distributions: str) -> str:
    capi = folder / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").touch()
    for name in libraries_there:
        (capi / name).touch()
    for name, library in distributions.items():
        info = folder / f"{name}-1.dist-info"
        info.mkdir()
        (info / "RECORD").write_text(f"onnxruntime/capi/{library},sha256=x,1\n")
    return str(folder)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Search onnxruntime only in one folder."""

    def set_path(site: str) -> None:
        monkeypatch.delenv("AIS_BENCH_ORT_LIBRARY", raising=False)
        monkeypatch.setattr("sys.path", [site])
        monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda _name: None)

    return set_path


def found_in(site: str) -> list[str]:
    return [os.path.basename(path) for path in libraries.candidates("ort") if path.startswith(site)]


def test_the_newest_library_by_number(only: Callable[[str], None], tmp_path: Path) -> None:
    site = site_with(tmp_path, ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.24.1", "libonnxruntime.so.1.10.2"])
    only(site)
    assert found_in(site) == [f"libonnxruntime.so.{version}" for version in ("1.24.1", "1.10.2", "1.9.0")]


def test_the_library_of_the_distribution_that_is_installed(only: Callable[[str], None], tmp_path: Path) -> None:
    left_over, its_own = "libonnxruntime.so.1.32.0", "libonnxruntime.so.1.24.1"
    site = site_with(tmp_path, [left_over, its_own], onnxruntime_openvino=its_own)
    only(site)
    assert found_in(site) == [its_own]


def test_a_mixture_is_an_error_that_says_how_to_get_out(
    only: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.24.1"]
    site = site_with(tmp_path, names, onnxruntime=names[0], onnxruntime_openvino=names[1], onnxruntime_ep_openvino="x.so")
    only(site)
    with pytest.raises(DeviceUnavailable) as caught:
        libraries.candidates("ort")
    text = str(caught.value)
    assert "onnxruntime 1 and onnxruntime-openvino 1 are installed together" in text
    assert "pip uninstall -y onnxruntime onnxruntime-openvino && pip install onnxruntime-openvino" in text
    monkeypatch.setenv("AIS_BENCH_ORT_LIBRARY", "/some/libonnxruntime.so")
    assert libraries.candidates("ort") == ["/some/libonnxruntime.so"]


def test_plugins_are_found_in_packages_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "onnxruntime_ep_other"
    package.mkdir()
    (package / "libother.so").write_bytes(b"\x7fELF...CreateEpFactories\0")
    (package / "libother.so.1").write_bytes(b"\x7fELF...CreateEpFactories\0")
    (package / "libhelper.so").write_bytes(b"\x7fELF...")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setenv(libraries.PLUGINS, f"/a/liba.so{os.pathsep}/b/libb.so")
    assert libraries.plugins() == ["/a/liba.so", "/b/libb.so", str(package / "libother.so")]


def test_the_command_line_lists_providers(standin: Callable[..., None], tmp_path: Path) -> None:
    from support.scripts import run_script

    said = run_script("import sys; sys.argv = ['ais-bench', 'devices']; from ais_bench.cli.main import main; sys.exit(main())")
    for name in PREFERENCE:
        assert name in said
