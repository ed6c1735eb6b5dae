"""The arrows of ARCHITECTURE.md, read from the sources: who may import and include whom."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Package of ais_bench -> the packages and modules of ais_bench that it may import.
PYTHON = {
    "errors": set(),
    "options": {"_native", "errors"},
    "shm": {"_native", "errors"},
    "pool": {"_native", "errors", "options", "shm"},
    "session": {"_native", "errors", "options", "pool", "shm"},
    "_pyinstaller": set(),
    "infer": {"session"},
    "emulator": {"_native", "errors", "options"},
    "evaluate": {"errors", "infer", "session"},
    "ray": {"_native", "errors", "options", "pool", "session"},
    "cli": {"errors", "evaluate", "infer", "session"},
}
# Folder of csrc -> the folders it may include.
CPP = {
    "base": set(),
    "device": {"base"},
    "device/ort": {"base", "device"},
    "device/acl": {"base", "device"},
    "session": {"base", "device"},
    "shm": {"base"},
    "worker": {"base", "device", "session", "shm"},
    "pool": set(),
    "bind": {"base", "device", "pool", "session", "shm", "worker"},
}
# What only these folders may say, because it belongs to a vendor or to one concern.
WORDS = {
    r"\bOrt[A-Z]\w*": {"device/ort"},
    r"\bacl(rt|mdl|Init|Finalize|Get|Create|Destroy)\w*": {"device/acl"},
    r"\bdl(open|sym)\s*\(": {"base"},
    r"\bpy::|\bpybind11::": {"bind"},
    r"\bSYS_futex\b": {"shm"},
    r"\bmemfd_create\b": {"shm"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {parts[1] for parts in (name.split(".") for name in names) if parts[0] == "ais_bench" and len(parts) > 1}


def sources(folder: str) -> list[Path]:
    return [path for path in (ROOT / "csrc" / folder).iterdir() if path.suffix in {".cpp", ".hpp", ".inc"}]


@pytest.mark.parametrize("package", sorted(PYTHON))
def test_python_packages_import_only_what_lies_below(package: str) -> None:
    folder = ROOT / "ais_bench" / package
    files = list(folder.rglob("*.py")) if folder.is_dir() else [*(ROOT / "ais_bench").glob(f"{package}.py")]
    for path in files:
        assert imported(path) <= PYTHON[package] | {package}, path


def test_every_python_package_has_a_rule() -> None:
    packages = {path.stem for path in (ROOT / "ais_bench").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert packages - {"__init__", "__main__"} <= set(PYTHON)


@pytest.mark.parametrize("folder", sorted(CPP))
def test_native_folders_include_only_what_lies_below(folder: str) -> None:
    files = sources(folder)
    assert files
    for path in files:
        for header in re.findall(r'#include "([^"]+)"', path.read_text()):
            target = str(Path(header).parent)
            runtimes = folder == "device" and header == "device/runtimes.hpp"
            assert target in CPP[folder] | {folder} or runtimes, f"{path} includes {header}"


@pytest.mark.parametrize("word", sorted(WORDS))
def test_words_of_one_concern_stay_in_its_folder(word: str) -> None:
    for folder in set(CPP) - WORDS[word]:
        for path in sources(folder):
            code = re.sub(r"//[^\n]*|\"(?:[^\"\\]|\\.)*\"", "", path.read_text())
            assert not re.search(word, code), f"{path} says {re.search(word, code)}"


def test_native_code_throws_only_at_the_edge() -> None:
    for folder in set(CPP) - {"bind"}:
        for path in sources(folder):
            assert not re.search(r"\bthrow\b", re.sub(r"//[^\n]*", "", path.read_text())), path


def test_importing_starts_nothing_and_loads_no_vendor_library() -> None:
    program = """
import sys, threading
import ais_bench.infer.interface, ais_bench.infer.summary, aclruntime
maps = open("/proc/self/maps").read()
heavy = {"onnxruntime", "torch", "ml_dtypes", "onnx", "cloudpickle"} & set(sys.modules)
print(threading.active_count(), sorted(heavy), "libonnxruntime" in maps, "libascendcl" in maps)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[0] == "1 [] False False", result.stdout


def test_the_package_file_has_short_names_and_nothing_needs_it() -> None:
    """Another distribution may overwrite it with an empty one."""
    program = """
import sys
import ais_bench
heavy = sorted(name for name in sys.modules if name.startswith("ais_bench.") or name == "numpy")
assert heavy == [], heavy
assert {"InferSession", "MemorySummary", "MultiDeviceSession", "__version__"} <= set(dir(ais_bench))
if len(sys.argv) > 1:
    for name in set(vars(ais_bench)) - {"__path__", "__name__", "__spec__", "__file__", "__loader__"}:
        delattr(ais_bench, name)  # what an empty file leaves
    try:
        ais_bench.InferSession
    except AttributeError:
        print("empty")
else:
    from ais_bench import InferSession, MemorySummary, MultiDeviceSession, __version__
    import ais_bench.session as session
    assert (InferSession, MultiDeviceSession) == (session.InferSession, session.MultiDeviceSession)
    assert {"InferSession", "MemorySummary", "MultiDeviceSession"} <= set(dir(session))
    print(__version__)
import ais_bench.infer.interface, ais_bench.infer.summary, ais_bench.emulator, aclruntime, ais_bench.session.multi_device
"""
    for arguments, words in (([], importlib.metadata.version("ais_bench")), (["empty"], "empty")):
        result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout.strip()) == (0, words), result.stderr
