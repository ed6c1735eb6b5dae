"""Fixtures for all tests: a check that nothing is left behind, and small models."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from ais_bench.emulator import Emulator, library_path, pack
from ais_bench.emulator.machine import LIBRARY_VARIABLE, find_onnxruntime
from ais_bench.session import InferSession
from support.acl import BY_NAME, Packed, assert_clean
from support.default_provider import PROVIDER, install
from support.runtimes import RUNTIMES, ProviderLimit, limit_of, model_file
from support.session import make_models

# For the processes that tests start: NumPy's threads would take as much processor time to start as the rest of NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["AIS_BENCH_CHECK_OUTPUTS"] = "1"  # every run checks whether bound outputs were written; read at the first run

if PROVIDER:
    install()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job of a shell; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor that listed the folder
            continue
    return found


def _is_watch(thread: str) -> bool:
    """Return whether this is the thread that watches for signals. It ends by itself, shortly after a model's last run."""
    try:
        return Path(f"/proc/self/task/{thread}/comm").read_text() == "ais_bench watch\n"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _child_processes(pid: int | str = "self") -> set[int]:
    """Return the children of a process and their children, as the kernel lists them. psutil would read all processes."""
    found: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread or process has just ended
            found |= {int(child) for child in tasks.read_text().split()}
    return found.union(*(_child_processes(child) for child in found))


def _snapshot() -> dict[str, set[object]]:
    """Return everything that a test could leave in this process and its folders, by kind."""
    return {
        "child processes": set(_child_processes()),
        "Python threads": {thread for thread in threading.enumerate()},
        # A provider may keep threads of its own.
        "native threads": {thread for thread in os.listdir("/proc/self/task") if not _is_watch(thread) and not PROVIDER},
        "descriptors": set(_descriptors()),
        "shared memory": {line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line},
        "files": {path for folder in (Path("/dev/shm"), Path.cwd()) for path in folder.glob("*ais_bench*")},
    }


_frozen_modules = 0


def _freeze() -> None:
    """Exclude the objects of imported modules from garbage collection, which would check all of torch after each test."""
    global _frozen_modules
    if len(sys.modules) != _frozen_modules:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


def _left_since(before: dict[str, set[object]]) -> dict[str, set[object]]:
    gc.collect()
    after = _snapshot()
    return {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]}


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a descriptor, shared memory or a file.

    Processes and threads may still be ending, so this waits for at most 20 seconds.
    """
    _freeze()
    before = _snapshot()
    yield
    deadline = time.monotonic() + 20
    while (left := _left_since(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def the_watch_ends() -> Iterator[None]:
    """Check that the thread that `leaves_nothing` ignores ends."""
    yield
    deadline = time.monotonic() + 20
    while (left := [thread for thread in os.listdir("/proc/self/task") if _is_watch(thread)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, model_folder: Path) -> str:
    """Return the test's runtime; the test runs once for each. Tensors without a session go to this runtime's devices.

    A provider of ONNX Runtime is a default of sessions (support/default_provider.py), and not another runtime.
    """
    name = "acl" if request.param == "acl" else "ort"
    if name == "acl":
        request.getfixturevalue("npu")
    InferSession(0, model_file(model_folder, "scalar", name)).free_resource()
    return name


@pytest.fixture
def model(runtime: str, model_folder: Path) -> Callable[[str], str]:
    """`model("add")` returns a small model's file for the test's runtime; tests/support/models.py describes the models."""
    return lambda name: model_file(model_folder, name, runtime)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def onnx_model(model_folder: Path) -> Callable[[str], str]:
    """Return the same models as ONNX files, for tests that use only `ort`."""
    return lambda name: model_file(model_folder, name, "ort")


@pytest.fixture(scope="session")
def multi_device_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    return functools.cache(lambda runtime: make_models(tmp_path_factory.mktemp("models"), runtime))


@pytest.fixture
def models(runtime: str, multi_device_models: Callable[[str], dict[str, str]]) -> dict[str, str]:
    """Return the models of tests/support/session.py as files for the test's runtime."""
    return multi_device_models(runtime)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "AIS_BENCH_LONG" in os.environ:
        return
    if item.get_closest_marker("long") is not None:
        pytest.skip("it takes long; make long")
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if (
        item.get_closest_marker("any_runtime")
        and not item.get_closest_marker("each_runtime")
        and params.get("runtime", "ort") != "ort"
    ):
        pytest.skip("it is about code that is the same for each runtime; make long")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Require that a runtime refuses what it cannot do, with the error of the table."""
    limit = limit_of(pyfuncitem)
    if isinstance(limit, ProviderLimit) and limit.refusal is None:
        pytest.skip(limit.why)
    if limit is None or limit.refusal is None:
        return (yield)
    with pytest.raises(limit.refusal, match=limit.words):
        yield
    return True


@pytest.fixture(autouse=True)
def alone_in_its_group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Never run tests of one `xdist_group` at the same time. Not every pytest lets pytest-xdist keep them on one worker."""
    group = request.node.get_closest_marker("xdist_group")
    if group is None:
        yield
        return
    with open(tmp_path_factory.getbasetemp().parent / f"{group.args[0]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packed]:
    """`packed("batch")` returns a model as ONNX and as a compiled model for the emulator, made at the first use."""
    folder = tmp_path_factory.mktemp("acl")
    made: dict[str, Packed] = {}

    def get(name: str) -> Packed:
        if name not in made:
            case = BY_NAME[name]
            place = folder / name.replace(" ", "_")
            place.mkdir()
            onnx = case.build(place)
            made[name] = Packed(case, str(onnx), str(pack(onnx, place / "model.om", **case.options)))
        return made[name]

    return get


@pytest.fixture(scope="session")
def emulator_in_process() -> Iterator[Emulator]:
    """Use the emulator as AscendCL in this process and its children. Its settings are fixed after it was loaded."""
    settings = {
        LIBRARY_VARIABLE: str(library_path()),
        "AIS_BENCH_ORT_LIBRARY": find_onnxruntime(),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if value is not None})
    yield Emulator()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def npu_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file in which the emulators of all processes report violations of AscendCL's rules."""
    file = tmp_path_factory.mktemp("npu") / "report"
    file.touch()
    return file


@pytest.fixture
def npu(emulator_in_process: Emulator, npu_report: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Yield the emulator without objects. After the test no process may have objects or violations in it."""
    emulator = emulator_in_process
    monkeypatch.setenv("AIS_EMULATOR_REPORT", str(npu_report))
    reported = npu_report.stat().st_size
    InferSession.finalize()
    emulator.set_faults()
    emulator.clear_report()
    yield emulator
    emulator.set_faults()
    gc.collect()
    InferSession.finalize()
    assert_clean(emulator)
    assert npu_report.read_bytes()[reported:] == b""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the tests of a provider only: those that the default environment runs without one need not run again."""
    if PROVIDER:
        left_out = [
            item for item in items if "runtime" not in getattr(item, "fixturenames", ()) and "providers" not in item.path.parts
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the models that a conformance test found to be refused, with the reasons."""
    refused: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for reason, names in report.user_properties:
            refused.setdefault(reason, []).extend(names)
    for reason, names in sorted(refused.items()):
        terminalreporter.write_line(f"{reason}: {len(names)} models: {', '.join(sorted(names))}")
