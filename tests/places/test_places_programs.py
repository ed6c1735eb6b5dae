"""Programs that are not scripts of `python`: frozen, zipped, and with an embedded Python."""

from __future__ import annotations

import importlib.util
import multiprocessing.spawn  # before a test changes sys.executable, because it keeps the value
import os
import subprocess
import sys
import types
import zipapp
from pathlib import Path

import pytest

from ais_bench import _native
from ais_bench.errors import ConfigError, UnsupportedError
from ais_bench.pool import interpreter
from support.scripts import environment, run_python
from support.session import add_model

# Prints all processes that were started from it.
USE = """
import os, sys
from support.handlers import Obedient, order
from ais_bench.pool import DevicePool, Task
with DevicePool(Obedient, [0]) as pool:
    print(pool.run(Task(order(Obedient.ECHO, 7))).result()[0][1])
"""


def test_a_frozen_program_without_support_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from ais_bench.pool import DevicePool
    from ais_bench.session import MultiDeviceSession

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigError, match="this program is frozen.*freeze_support"):
        DevicePool(print, [0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this program is frozen.*freeze_support"):
        MultiDeviceSession("model.onnx", runtime="acl").start()


def test_a_program_of_nuitkas_counts_as_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = types.SimpleNamespace(standalone=True)
    monkeypatch.setattr(sys.modules["__main__"], "__compiled__", compiled, raising=False)
    with pytest.raises(ConfigError, match="this program is frozen"):
        interpreter.command("worker")
    compiled.standalone = False  # it still runs on a Python
    assert interpreter.command("worker")[0] == sys.executable


def test_freeze_support_is_for_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_supported", False)
    monkeypatch.setattr(sys, "argv", ["app", interpreter.FLAG, "nothing that there is", "3"])
    interpreter.freeze_support()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert interpreter.command("worker", "3")[1:] == [interpreter.FLAG, "worker", "3"]


FROZEN = """
import sys
from ais_bench.pool import freeze_support
if "without" not in sys.argv:
    freeze_support()
print("started", flush=True)  # by every process that runs the program
import helper
from ais_bench.session import MultiDeviceSession

class Answer:
    def __init__(self, value): self.value = value

def wrap(outputs): return Answer(float(outputs[0][0, 0]))

with MultiDeviceSession(sys.argv[1], devices=[0], preprocess=helper.double, postprocess=wrap) as session:
    answer = session.infer(3)
    print(type(answer) is Answer, answer.value)
"""
HELPER = """
import numpy as np
def double(x): return [np.full((2, 3), x, np.float32)] * 2
"""


# PyInstaller follows every import, optional ones too. Those that the tests' environment has would take minutes.
NOT_FROZEN = [
    "IPython",
    "PIL",
    "cv2",
    "fsspec",
    "gevent",
    "ipykernel",
    "jinja2",
    "jupyter_client",
    "onnx",
    "pandas",
    "prompt_toolkit",
]
NOT_FROZEN += ["pyarrow", "pygments", "pytest", "ray", "requests", "rich", "setuptools", "torch", "yaml"]
PYINSTALLER = importlib.util.find_spec("PyInstaller")


@pytest.mark.long
@pytest.mark.skipif(PYINSTALLER is None, reason="PyInstaller is not installed; pip install --group wild")
def test_a_program_frozen_by_pyinstaller(tmp_path: Path) -> None:
    model = add_model(tmp_path / "add.onnx", [2, 3])
    (tmp_path / "app.py").write_text(FROZEN)
    (tmp_path / "helper.py").write_text(HELPER)
    hooks = interpreter.ais_bench.__path__[0] + "/_pyinstaller"
    command = [sys.executable, "-m", "PyInstaller", "--log-level=ERROR", f"--additional-hooks-dir={hooks}", "--noupx", "app.py"]
    made = subprocess.run(
        [*command, *(f"--exclude-module={name}" for name in NOT_FROZEN)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    program = [str(tmp_path / "dist" / "app" / "app"), model]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=plain)
    assert done.stdout == "started\nTrue 6.0\n", done.stderr
    refused = subprocess.run([*program, "without"], capture_output=True, text=True, timeout=60, env=plain)
    assert refused.stdout == "started\n"
    assert "ConfigError: this program is frozen" in refused.stderr


def test_a_zipped_program(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "helper.py").write_text(HELPER)
    (source / "__main__.py").write_text(FROZEN)
    zipapp.create_archive(source, tmp_path / "app.pyz")
    done = run_python(str(tmp_path / "app.pyz"), add_model(tmp_path / "add.onnx", [2, 3]))
    assert done.stdout == "started\nTrue 6.0\n", done.stderr


def test_python_embedded_in_another_program_uses_the_python_of_its_installation() -> None:
    done = run_python("-c", "import sys; sys.executable = '/usr/sbin/uwsgi'\n" + USE)
    assert done.stdout == "7\n", done.stderr
    done = run_python("-c", "import sys; sys.executable = ''\n" + USE)
    assert done.stdout == "7\n", done.stderr


def test_a_program_that_is_no_python_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = multiprocessing.spawn.get_executable()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for root in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, root, "/nowhere")
    try:
        multiprocessing.set_executable("/bin/false")  # like the value that multiprocessing takes from sys.executable
        with pytest.raises(ConfigError, match="'/bin/false', which is not Python.*set_executable"):
            interpreter.command("worker")
        multiprocessing.set_executable("/opt/launcher")  # an explicit setting is used
        assert interpreter.command("worker")[0] == "/opt/launcher"
    finally:
        multiprocessing.set_executable(before)


@pytest.mark.parametrize("name", ["python", "python3", "python3.13", "python3.13t", "python3.11d", "pypy3", "python3-intel64"])
def test_names_of_pythons(name: str) -> None:
    assert interpreter._is_python(os.path.join("/nowhere", name))


@pytest.mark.parametrize("name", ["uwsgi", "app", "mypython", "python-launcher.sh", "blender"])
def test_names_of_others(name: str) -> None:
    assert not interpreter._is_python(os.path.join("/nowhere", name))


@pytest.mark.parametrize("release", ["2.6.32-754.el6.x86_64", "3.9.1"])
def test_a_kernel_that_is_too_old_is_named(release: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"Linux {release}.*Linux 3.10 or newer"):
        interpreter.check_kernel(release)


@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "4.19.90-2003.4.0.0036.oe1", "4.4.0", "6.1", "unknown"])
def test_kernels_that_will_do(release: str) -> None:
    interpreter.check_kernel(release)


# ---- numpy's C interface ----


@pytest.mark.parametrize("interface", [(0x01000009, 0x0F, 1), (0x01000009, 0x11, 1), (0x02000000, 0x12, 1)])
def test_interfaces_of_numpy_that_will_do(interface: tuple[int, int, int]) -> None:
    _native._check_numpy(*interface)


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ((0x03000000, 0x20, 1), "its version is 0x3000000"),
        ((0x01000009, 0x0E, 1), "it has no data handlers"),
        ((0x02000000, 0x12, 2), "its data handlers have version 2"),
    ],
)
def test_another_interface_of_numpy_is_an_import_error(interface: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ImportError, match=rf"numpy 1.22 to 2.x; that of the installed numpy .* \({words}\)"):
        _native._check_numpy(*interface)


OTHER_NUMPY = """
import ctypes, sys
import numpy
home = numpy._core.multiarray if hasattr(numpy, "_core") else numpy.core.multiarray
python = ctypes.pythonapi
python.PyCapsule_GetPointer.restype, python.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
table = (ctypes.c_void_p * 320).from_address(python.PyCapsule_GetPointer(home._ARRAY_API, None))
other = (ctypes.c_void_p * 320)(*table)
version = ctypes.CFUNCTYPE(ctypes.c_uint)(lambda: 0x03000000)
other[0] = ctypes.cast(version, ctypes.c_void_p).value
home._ARRAY_API = python.PyCapsule_New(ctypes.addressof(other), None, None)
try:
    from ais_bench.session import InferSession
except ImportError as error:
    assert "its version is 0x3000000" in str(error) and "install one of those, or a newer ais_bench" in str(error), error
    print("refused")
"""


def test_the_interface_of_the_installed_numpy_is_checked_by_the_import() -> None:
    done = run_python("-c", OTHER_NUMPY)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
